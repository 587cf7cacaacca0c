"""A frame as FFmpeg decodes it, as samples of ours.

A frame's header comes from the file: rates of 1.7 GHz were seen in damaged ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from app.audio.channels import Channel, heard
from app.audio.decode import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, wrong_rate
from app.audio.pcm import FULL_SCALE, Float32, Int16, to_int16
from app.core.errors import BadAudio

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

MAX_VALUES: Final = 1 << 21
"""Samples of all channels in one frame; the largest that a real encoder makes (FLAC, 8 channels of
65,535) has a quarter of that."""

MAX_PLANES: Final = 8
"""Channels that a frame may have each in a plane of its own. FFmpeg keeps no end mark behind the
pointers to the planes, where PyAV looks for one: from 8 planes on, ``AudioFrame.to_ndarray`` reads
through pointers that are none, and from 9 on even counting the planes leaves the frame."""

_DTYPES: Final = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
"""By the names of FFmpeg's interleaved formats; native byte order."""

_SCALES: Final = {"u": 128.0, "i": 2147483648.0}
"""What full scale is in FFmpeg's integer formats other than s16, by numpy's kind: u8 and s32."""


def check_frame(frame: AudioFrame) -> None:
    """Refuse what no real stream has.

    Raises:
        BadAudio: a rate outside 8000 to 192000 Hz, no channel or more than 64 (:data:`MAX_PLANES`
            if they are not interleaved), or more than :data:`MAX_VALUES`.
    """
    channels = frame.layout.nb_channels
    if not MIN_SAMPLE_RATE <= frame.sample_rate <= MAX_SAMPLE_RATE:
        raise BadAudio(wrong_rate(frame.sample_rate))
    most = MAX_PLANES if frame.format.is_planar else MAX_CHANNELS
    if not 1 <= channels <= most:
        raise BadAudio(f"Invalid number of channels! The audio has {channels}: send 1 to {most}.")
    if frame.samples * channels > MAX_VALUES:
        raise BadAudio("The audio cannot be decoded: its blocks are too large; convert it to wav.")


def frame_samples(frame: AudioFrame, channel: Channel) -> Int16:
    """The samples of a checked frame, shape (n,): the mean of its channels, or those of one.

    Clipped where a lossy codec goes beyond full scale; what is no number is 0.
    """
    planes = _planes(frame)
    if planes.dtype == np.int16:
        return heard(planes.T, channel)
    scaled = _scaled(planes)
    if channel is None:
        # Before it is rounded to 16 bits.
        return to_int16(scaled.mean(axis=0))
    return heard(to_int16(scaled).T, channel)


def _planes(frame: AudioFrame) -> NDArray[Any]:
    """In FFmpeg's own number format, shape (channels, n)."""
    dtype = np.dtype(_DTYPES[frame.format.packed.name])
    channels, count = frame.layout.nb_channels, frame.samples
    if frame.format.is_planar:
        # Not to_ndarray(): see MAX_PLANES.
        planes = [memoryview(plane) for plane in frame.planes[:channels]]
        return np.stack([np.frombuffer(plane, dtype, count) for plane in planes])
    values: NDArray[Any] = np.frombuffer(memoryview(frame.planes[0]), dtype, count * channels)
    return values.reshape(count, channels).T


def _scaled(planes: NDArray[Any]) -> Float32:
    """float32 with a full scale of 1.0."""
    kind = planes.dtype.kind
    if kind == "f":
        # Far beyond full scale there is only damage; the sum of the channels must stay finite.
        finite = np.nan_to_num(planes, posinf=FULL_SCALE, neginf=-FULL_SCALE)
        floats: Float32 = np.clip(finite, -FULL_SCALE, FULL_SCALE).astype(np.float32)
        return floats
    scale = _SCALES[kind]
    centred = planes.astype(np.float64) - (scale if kind == "u" else 0.0)
    scaled: Float32 = (centred / scale).astype(np.float32)
    return scaled
