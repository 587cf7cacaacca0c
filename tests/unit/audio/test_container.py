"""Whole files: what comes out, at which length, and at which cost."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from app.audio.budget import Budget
from app.audio.container import BLOCK_SAMPLES, CONTAINERS, Block, decode_file
from app.audio.sniff import FILES, STREAMING, Kind, what_is
from app.core.errors import AudioTooLong, BadAudio, UnsupportedFormat
from tests.support.encoded import encoded, muxed
from tests.support.handmade import amr_wb, gsm_wav, speex
from tests.support.sound import joined, main_frequency, silence, tone

BUDGET: Final = Budget(max_bytes=64 << 20, max_audio_ms=600_000, wall_s=60)


def blocks_of(data: bytes, kind: str, **options: object) -> list[Block]:
    return list(decode_file(io.BytesIO(data), kind, BUDGET, **options))  # type: ignore[arg-type]  # the options of decode_file


def samples_of(blocks: Iterable[Block]) -> NDArray[np.int16]:
    return np.concatenate([block.samples for block in blocks], axis=-1)


def heard(samples: NDArray[np.int16], rate: int) -> tuple[float, float]:
    """From where to where it is loud, in ms, on a grid of 5 ms."""
    step = rate * 5 // 1000
    whole = samples[: len(samples) // step * step].reshape(-1, step).astype(np.float64)
    loud = np.flatnonzero(np.sqrt((whole**2).mean(axis=1)) > 1000)
    return float(loud[0] * 5), float(loud[-1] * 5 + 5)


# (format of tests.support.encoded, sample rate, rate that comes out, samples more than went in,
# samples by which all is late): what cannot be known to be an encoder's padding stays.
DURATIONS: Final = [
    ("wav-u8", 16_000, 16_000, 0, 0),
    ("wav-s24", 16_000, 16_000, 0, 0),
    ("wav-f64", 16_000, 16_000, 0, 0),
    ("wav-mulaw", 8_000, 8_000, 0, 0),
    ("wav-adpcm-ms", 16_000, 16_000, 864, 0),
    ("wav-adpcm-ima", 16_000, 16_000, 984, 0),
    ("mp3", 16_000, 16_000, 1_536, 1_105),
    ("mp3-lame", 16_000, 16_000, 0, 0),
    ("mp3-lame", 44_100, 44_100, 0, 0),
    ("aac", 16_000, 16_000, 1_152, 1_024),
    ("m4a", 16_000, 16_000, 0, 0),
    ("m4a", 44_100, 44_100, 0, 0),
    ("flac", 16_000, 16_000, 0, 0),
    ("flac", 48_000, 48_000, 0, 0),
    ("ogg-flac", 16_000, 16_000, 0, 0),
    ("ogg-opus", 16_000, 48_000, 0, 0),
    ("ogg-opus", 8_000, 48_000, 0, 0),
    ("webm-opus", 16_000, 48_000, 0, 0),
    ("webm-opus-file", 48_000, 48_000, 0, 0),
    ("amr", 8_000, 8_000, 160, 40),
    ("wma", 16_000, 16_000, -384, -512),
]


def _kind(data: bytes, format: str) -> Kind:
    kind = what_is(data[:64], format.split("-")[0])
    assert kind is not None
    return kind


@pytest.mark.parametrize(("format", "rate", "out_rate", "extra", "lag"), DURATIONS)
def test_every_format_comes_out_as_long_as_it_went_in(
    format: str, rate: int, out_rate: int, extra: int, lag: int
) -> None:
    sound = joined(silence(600, rate), tone(1800, rate, 700), silence(600, rate))
    data = encoded(format, sound, rate)
    blocks = blocks_of(data, _kind(data, format))
    assert {block.sample_rate for block in blocks} == {out_rate}
    samples = samples_of(blocks)
    assert samples.dtype == np.int16
    assert len(samples) == 3 * out_rate + extra
    begin, end = heard(samples, out_rate)
    late = 1000 * lag / out_rate
    assert begin == pytest.approx(600 + late, abs=15)
    assert end == pytest.approx(2400 + late, abs=15)
    middle = samples[out_rate : 2 * out_rate]
    assert main_frequency(middle, out_rate) == pytest.approx(700, abs=2)
    assert np.abs(middle).max() == pytest.approx(9830, rel=0.15)


@pytest.mark.parametrize(
    ("data", "kind", "samples", "rate"),
    [
        (amr_wb(3000), Kind.AMR, 48_000, 16_000),
        (speex(3000), Kind.SPEEX, 24_000, 8_000),
        (gsm_wav(3000), Kind.WAV_FILE, 24_000, 8_000),
    ],
    ids=["amr-wb", "speex", "gsm"],
)
def test_formats_without_an_encoder_have_the_right_length(
    data: bytes, kind: Kind, samples: int, rate: int
) -> None:
    assert what_is(data[:64], "wav") is kind
    blocks = blocks_of(data, kind)
    assert {block.sample_rate for block in blocks} == {rate}
    assert len(samples_of(blocks)) == samples


def test_ffmpeg_is_loaded_with_the_first_file_only() -> None:
    program = "import sys, app.audio.container; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_everything_that_is_a_file_and_most_streams_are_read() -> None:
    assert set(CONTAINERS) == (FILES | STREAMING | {Kind.WAV}) - {Kind.OPU, Kind.OPUS_PACKETS}


@pytest.mark.parametrize("kind", [Kind.PCM, Kind.OPU, "concat", "hls", "", "../etc"])
def test_other_kinds_are_refused_before_anything_is_read(kind: str) -> None:
    file = io.BytesIO(b"x" * 100)
    with pytest.raises(UnsupportedFormat, match="Accepted: aac, amr, flac"):
        decode_file(file, kind, BUDGET)
    assert file.tell() == 0


@pytest.mark.parametrize("format", ["wav-s16", "flac"])
def test_lossless_formats_are_bit_exact(format: str) -> None:
    sound = joined(tone(700, 44_100), silence(50, 44_100), tone(250, 44_100, 90.0, 0.99))
    data = encoded(format, sound, 44_100)
    assert np.array_equal(samples_of(blocks_of(data, _kind(data, format))), sound)


def test_apple_lossless_is_bit_exact() -> None:
    sound = tone(1000, 44_100)
    data = muxed(sound, 44_100, "mp4", "alac")
    assert np.array_equal(samples_of(blocks_of(data, Kind.M4A)), sound)


def test_fragmented_mp4_is_read_to_its_end() -> None:
    options = {"movflags": "empty_moov+frag_every_frame+default_base_moof"}
    data = muxed(tone(3000), 16_000, "mp4", "aac", seekable=False, options=options)
    # No edit list: the encoder's first frame of 1,024 samples stays.
    assert len(samples_of(blocks_of(data, Kind.M4A))) == 48_000 + 1_024


def test_an_mp4_that_understates_its_duration_loses_nothing() -> None:
    data = bytearray(encoded("m4a", tone(3000), 16_000))
    at = data.index(b"mdhd") + 20
    assert int.from_bytes(data[at : at + 4], "big") in (48_000, 49_024)
    data[at : at + 4] = (16_000).to_bytes(4, "big")
    assert len(samples_of(blocks_of(bytes(data), Kind.M4A))) >= 48_000


def test_channels_are_mixed_or_one_is_heard() -> None:
    import av

    left, right = tone(1000, 16_000, 400), tone(1000, 16_000, 900)
    sink = io.BytesIO()
    with av.open(sink, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=16_000, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        packed = np.stack([left, right], axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout="stereo")
        frame.sample_rate = 16_000
        for each in (frame, None):
            output.mux(stream.encode(each))
    for channel, expected in enumerate([left, right, 0 * left]):
        blocks = blocks_of(sink.getvalue(), Kind.FLAC, channel=channel)
        assert np.array_equal(samples_of(blocks), expected)
        assert {block.channels for block in blocks} == {2}
    mixed = samples_of(blocks_of(sink.getvalue(), Kind.FLAC))
    expected = np.rint((left.astype(np.float64) + right) / 2)
    assert np.array_equal(mixed, expected)


def test_eight_channels_in_planes_of_their_own() -> None:
    data = muxed(tone(1000, 48_000), 48_000, "mp4", "aac", layout="7.1")
    for channel in (None, 0, 7):
        blocks = blocks_of(data, Kind.M4A, channel=channel)
        assert samples_of(blocks).shape == (48_000,)
        assert blocks[-1].channels == 8


def test_the_first_channel_of_mono_is_all_there_is() -> None:
    data = encoded("flac", tone(1000), 16_000)
    blocks = blocks_of(data, Kind.FLAC, channel=0)
    assert np.array_equal(samples_of(blocks), tone(1000))
    assert {block.channels for block in blocks} == {1}


def test_the_rate_may_change_within_a_file() -> None:
    data = encoded("aac", tone(2000), 16_000) + encoded("aac", tone(2000, 48_000), 48_000)
    blocks = blocks_of(data, Kind.AAC)
    rates = [block.sample_rate for block in blocks]
    assert rates == sorted(rates)
    seconds = {
        rate: sum(len(b.samples) for b in blocks if b.sample_rate == rate) / rate
        for rate in set(rates)
    }
    assert seconds[16_000] == pytest.approx(2, abs=0.2)
    assert seconds[48_000] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("format", ["ogg-flac", "ogg-opus"])
def test_a_stream_that_begins_again_goes_on(format: str) -> None:
    first, second = encoded(format, tone(1000), 16_000), encoded(format, tone(2000), 16_000)
    kind = _kind(first, format)
    seconds = sum(len(b.samples) / b.sample_rate for b in blocks_of(first + second, kind))
    assert seconds == pytest.approx(3, abs=0.02)


def test_small_frames_are_joined() -> None:
    blocks = blocks_of(amr_wb(60_000), Kind.AMR)
    assert all(len(block.samples) >= BLOCK_SAMPLES for block in blocks[:-1])
    assert len(blocks) == pytest.approx(60 * 16_000 / BLOCK_SAMPLES, abs=2)


def test_a_film_gives_its_sound() -> None:
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as output:
        pictures = output.add_stream("mpeg4", rate=25)
        assert isinstance(pictures, av.VideoStream)
        pictures.width = pictures.height = 64
        sound = output.add_stream("aac", rate=16_000, layout="mono")
        assert isinstance(sound, av.AudioStream)
        for i in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * i, np.uint8))
            picture.pts = i
            output.mux(pictures.encode(picture))
        frame = av.AudioFrame.from_ndarray(tone(1000).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        output.mux(sound.encode(frame))
        output.mux(pictures.encode(None))
        output.mux(sound.encode(None))
    assert len(samples_of(blocks_of(sink.getvalue(), Kind.M4A))) == 16_000


def test_a_codec_that_is_not_on_the_list_is_refused() -> None:
    data = muxed(tone(500, 48_000), 48_000, "mp4", "ac3")
    with pytest.raises(UnsupportedFormat, match="codec inside m4a"):
        blocks_of(data, Kind.M4A)


def test_a_file_without_audio_is_refused() -> None:
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as output:
        pictures = output.add_stream("mpeg4", rate=25)
        assert isinstance(pictures, av.VideoStream)
        pictures.width = pictures.height = 64
        output.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(pictures.encode(None))
    with pytest.raises(BadAudio, match="no audio"):
        blocks_of(sink.getvalue(), Kind.M4A)


# Budgets


class _Steps:
    """A clock that goes on by ``step`` whenever it is looked at."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_audio_of_exactly_the_budget_is_accepted() -> None:
    data = encoded("flac", tone(2000), 16_000)
    exactly = Budget(1 << 20, 2000, 60)
    assert len(samples_of(decode_file(io.BytesIO(data), "flac", exactly))) == 32_000
    with pytest.raises(AudioTooLong):
        list(decode_file(io.BytesIO(data), "flac", Budget(1 << 20, 1999, 60)))


def test_too_large_a_file_is_not_even_opened() -> None:
    data = encoded("flac", tone(500), 16_000)
    with pytest.raises(AudioTooLong, match="bytes"):
        list(decode_file(io.BytesIO(data), "flac", Budget(len(data) - 1, 9000, 60)))
    assert list(decode_file(io.BytesIO(data), "flac", Budget(len(data), 9000, 60)))


@pytest.mark.parametrize("wall_s", [0.5, 3, 30, 100])
def test_work_ends_at_the_deadline_wherever_it_is(
    wall_s: float, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded("flac", tone(60_000), 16_000)
    clock = _Steps(1.0)
    with pytest.raises(BadAudio):
        list(decode_file(io.BytesIO(data), "flac", Budget(1 << 30, 100_000, wall_s), clock=clock))
    assert clock.now < wall_s + 20
    # PyAV keeps an exception from read() per thread: it must be gone.
    assert len(samples_of(blocks_of(data, Kind.FLAC))) == 60 * 16_000
    assert capfd.readouterr().err == ""


def test_the_consumers_time_is_not_counted() -> None:
    data = encoded("flac", tone(10_000), 16_000)
    clock = _Steps(0.0)
    for _ in decode_file(io.BytesIO(data), "flac", Budget(1 << 20, 60_000, 5), clock=clock):
        clock.now += 1000


def test_nothing_is_read_ahead_of_the_consumer() -> None:
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    noise = np.random.default_rng(0).integers(-9999, 9999, 160_000, dtype=np.int16)
    file = Counting(encoded("flac", noise, 16_000))
    blocks = decode_file(file, "flac", BUDGET)
    next(blocks)
    assert file.taken < len(file.getvalue()) / 2
    blocks.close()
    assert not file.closed


def test_a_file_that_cannot_be_read_is_not_the_clients_fault(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 8192:
                raise OSError(5, "Input/output error")
            return super().read(size)

    noise = np.random.default_rng(0).integers(-9999, 9999, 160_000, dtype=np.int16)
    with pytest.raises(OSError, match="Input/output error"):
        list(decode_file(Broken(encoded("flac", noise, 16_000)), "flac", BUDGET))
    assert capfd.readouterr().err == ""


def _holes(data: bytes) -> bytes:
    damaged = bytearray(data)
    for at in (len(data) // 3, 2 * len(data) // 3):
        damaged[at : at + 60] = bytes(60)
    return bytes(damaged)


@pytest.mark.parametrize(("format", "kind"), [("mp3", Kind.MP3), ("aac", Kind.AAC)])
def test_two_holes_cost_only_the_packets_they_are_in(format: str, kind: Kind) -> None:
    data = encoded(format, tone(3000), 16_000)
    assert len(samples_of(blocks_of(_holes(data), kind))) / 16_000 > 2.5


def test_what_follows_the_audio_does_not_matter() -> None:
    data = encoded("mp3-lame", tone(1000), 16_000) + bytes(4096)
    assert len(samples_of(blocks_of(data, Kind.MP3))) >= 16_000
