import numpy as np
import pytest

from app.audio import wav
from app.audio.decode import open_decoder
from app.audio.wav_samples import READABLE, bounded
from tests.support.encoded import encoded, muxed
from tests.support.sound import Int16, joined, silence, tone

SOUND = joined(silence(100), tone(300), tone(200, level=1.0), silence(50))
# How far a sample may be off: what the codec itself loses.
LOSSLESS = ("wav-s16", "wav-s24", "wav-s32", "wav-f32", "wav-f64")
LOSSY = {"wav-u8": 256, "wav-mulaw": 700, "wav-alaw": 700}


def decode(stream: bytes, step: int) -> Int16:
    decoder = open_decoder("wav", 16_000)
    out = [decoder.feed(stream[i : i + step]) for i in range(0, len(stream), step)]
    assert decoder.sample_rate == 16_000
    return np.concatenate([*out, decoder.flush()])


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless(name: str) -> None:
    assert np.array_equal(decode(encoded(name, SOUND, 16_000), 1_000), SOUND)


@pytest.mark.parametrize(("name", "most"), LOSSY.items())
def test_lossy(name: str, most: int) -> None:
    samples = decode(encoded(name, SOUND, 16_000), 1_000)
    assert len(samples) == len(SOUND)
    assert np.abs(samples.astype(int) - SOUND).max() <= most


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_any_split_is_the_same(name: str) -> None:
    stream = encoded(name, SOUND[:3_000], 16_000)
    whole = decode(stream, len(stream))
    for step in (1, 7, 1_000):
        assert np.array_equal(decode(stream, step), whole)


@pytest.mark.parametrize(("name", "codec"), [("mulaw", wav.CODEC_MULAW), ("alaw", wav.CODEC_ALAW)])
def test_g711_is_ffmpegs(name: str, codec: int) -> None:
    from av import CodecContext, Packet
    from av.audio.codeccontext import AudioCodecContext

    every = bytes(range(256))
    context = CodecContext.create(f"pcm_{name}", "r")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = 8_000
    context.layout = "mono"
    (frame,) = context.decode(Packet(every))
    assert READABLE[codec, 8].read(every).tolist() == frame.to_ndarray()[0].tolist()


def test_channels_of_wide_samples_are_mixed_down() -> None:
    stream = muxed(SOUND, 16_000, "wav", "pcm_s24le", layout="mono")
    fmt = stream.index(b"fmt ") + 8
    # The same bytes as two channels at half the length: neighbours are averaged.
    stereo = stream[: fmt + 2] + b"\2\0" + stream[fmt + 4 :]
    pairs = SOUND[: len(SOUND) // 2 * 2].reshape(-1, 2).mean(axis=1)
    assert np.abs(decode(stereo, 999) - pairs).max() <= 0.5


def test_floats_that_are_no_audio_are_bounded() -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 0.5])
    assert bounded(wild).tolist() == [0.0, 1.0, -1.0, 1.0, -1.0, 0.5]
    for bits, dtype in ((32, "<f4"), (64, "<f8")):
        read = READABLE[wav.CODEC_FLOAT, bits].read
        assert read(wild.astype(dtype).tobytes()).tolist() == [
            0,
            32767,
            -32768,
            32767,
            -32768,
            16384,
        ]


@pytest.mark.parametrize(
    ("codec", "bits", "data", "expected"),
    [
        (1, 8, b"\x00\x80\xff", [-32768, 0, 32512]),
        (1, 24, b"\xff\xff\x7f\x00\x00\x80\xff\xff\xff", [32767, -32768, -1]),
        (1, 32, b"\xff\xff\xff\x7f\x00\x00\x00\x80", [32767, -32768]),
    ],
)
def test_ends_of_the_range(codec: int, bits: int, data: bytes, expected: list[int]) -> None:
    assert READABLE[codec, bits].read(data).tolist() == expected
