"""From FFmpeg's frames to samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from av import AudioResampler
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from app.audio.ffmpeg_frames import MAX_VALUES, check_frame, frame_samples
from app.core.errors import BadAudio

LEFT = np.array([0, 1000, -32768, 32767, 5], dtype=np.int16)
RIGHT = np.array([0, 3000, -32768, 32767, 6], dtype=np.int16)
MEAN = [0, 2000, -32768, 32767, 6]
"""Halves are rounded to the even number."""


def _frame(
    values: NDArray[Any], format: str, layout: str = "stereo", rate: int = 8000
) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(values), format=format, layout=layout)
    frame.sample_rate = rate
    return frame


def split(frame: AudioFrame, channels: int) -> NDArray[np.int16]:
    return np.stack([frame_samples(frame, channel) for channel in range(channels)])


def _sized(frame: AudioFrame) -> AudioFrame:
    frame.sample_rate = 8000
    return frame


def _as(format: str, planes: NDArray[np.int16]) -> NDArray[Any]:
    match format:
        case "u8":
            return ((planes >> 8) + 128).astype(np.uint8)
        case "s16":
            return planes
        case "s32":
            return planes.astype(np.int32) << 16
        case "flt":
            return (planes / 32768).astype(np.float32)
        case _:
            return planes / 32768


@pytest.mark.parametrize("format", ["s16", "s32", "flt", "dbl"])
@pytest.mark.parametrize("planar", [False, True])
def test_every_number_format_gives_the_same_samples(format: str, planar: bool) -> None:
    planes = _as(format, np.stack([LEFT, RIGHT]))
    frame = _frame(planes, format + "p") if planar else _frame(planes.T.reshape(1, -1), format)
    check_frame(frame)
    for channel, expected in enumerate([LEFT, RIGHT, np.zeros(5, np.int16)]):
        one = frame_samples(frame, channel)
        assert one.dtype == np.int16 and one.base is None
        assert one.tolist() == expected.tolist()
    mixed = frame_samples(frame, None)
    assert mixed.dtype == np.int16
    assert mixed.tolist() == MEAN


def test_eight_bits_are_the_upper_half() -> None:
    values = np.array([[128, 129, 0, 255]], dtype=np.uint8)
    assert frame_samples(_frame(values, "u8", "mono"), None).tolist() == [0, 256, -32768, 32512]


def test_beyond_full_scale_is_clipped_and_no_number_is_silence() -> None:
    values = np.array([[1.8, -3.0, np.nan, np.inf, -np.inf, 3e38]], dtype=np.float32)
    assert frame_samples(_frame(values, "flt", "mono"), None).tolist() == [
        32767,
        -32768,
        0,
        32767,
        -32768,
        32767,
    ]


def test_opposite_infinities_in_two_channels_are_no_error() -> None:
    values = np.array([[np.inf, 3e38], [-np.inf, 3e38]], dtype=np.float32)
    assert frame_samples(_frame(values, "fltp"), None).tolist() == [0, 32767]


@pytest.mark.parametrize("rate", [0, 7999, 192_001, 1_700_000_000])
def test_impossible_rates_are_refused(rate: int) -> None:
    frame = _frame(np.zeros((1, 8), np.int16), "s16", "mono")
    frame.sample_rate = rate
    with pytest.raises(BadAudio, match="sample rate"):
        check_frame(frame)


def test_eight_planes_are_read() -> None:
    # PyAV cannot fill a frame of 8 planes, for the reason for which it cannot read one.
    values = np.arange(800, dtype=np.int16).reshape(8, 100)
    packed = _frame(values.T.reshape(1, -1), "s16", "8 channels")
    (frame,) = AudioResampler(format="s16p").resample(packed)
    assert frame.format.is_planar
    check_frame(frame)
    assert np.array_equal(split(frame, 8), values)


def test_more_planes_are_refused_and_more_interleaved_channels_are_not() -> None:
    values = np.arange(900, dtype=np.int16)
    with pytest.raises(BadAudio, match="send 1 to 8"):
        check_frame(_sized(AudioFrame("s16p", "9 channels", 100)))
    frame = _frame(values.reshape(1, 900), "s16", "9 channels")
    check_frame(frame)
    assert np.array_equal(split(frame, 9), values.reshape(100, 9).T)


def test_huge_frames_are_refused() -> None:
    check_frame(_frame(np.zeros((2, MAX_VALUES // 2), np.int16), "s16p"))
    with pytest.raises(BadAudio, match="too large"):
        check_frame(_frame(np.zeros((2, MAX_VALUES // 2 + 1), np.int16), "s16p"))
