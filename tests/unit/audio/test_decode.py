import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio import wav
from app.audio.decode import Decoder, open_decoder
from app.core.errors import BadAudio, SpeechError, UnsupportedFormat, UnsupportedSampleRate

SAMPLES = np.arange(-50, 50, dtype=np.int16) * 300
PCM_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body + b"\0" * (len(body) % 2)


def fmt(codec: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", codec, channels, rate, rate * frame, frame, bits)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def wav_of(samples: np.ndarray = SAMPLES, **format_fields: int) -> bytes:
    return riff(chunk(b"fmt ", fmt(**format_fields)), chunk(b"data", samples.tobytes()))


def decode(decoder: Decoder, *pieces: bytes) -> list[int]:
    out = [decoder.feed(piece) for piece in pieces]
    out.append(decoder.flush())
    joined = np.concatenate(out)
    assert joined.dtype == np.int16
    return [int(sample) for sample in joined]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


cuts = st.lists(st.integers(0, 10_000), max_size=30)


@given(data=st.binary(max_size=300), where=cuts)
def test_pcm_is_the_same_for_any_split(data: bytes, where: list[int]) -> None:
    expected = np.frombuffer(data[: len(data) // 2 * 2], "<i2").tolist()
    assert decode(open_decoder("pcm", 16_000), *split(data, where)) == expected


STREAMS = {
    "plain": wav_of(),
    "tags before the samples, of odd length": riff(
        chunk(b"LIST", b"INFOabc"),
        chunk(b"fmt ", fmt()),
        chunk(b"bext", b"x" * 603),
        chunk(b"data", SAMPLES.tobytes()),
    ),
    "format chunk with an extension": riff(
        chunk(b"fmt ", fmt() + b"\0\0"), chunk(b"data", SAMPLES.tobytes())
    ),
    "extensible": riff(
        chunk(b"fmt ", fmt(codec=0xFFFE) + struct.pack("<HHIH", 22, 16, 4, 1) + PCM_GUID_TAIL),
        chunk(b"data", SAMPLES.tobytes()),
    ),
    "chunks after the samples": wav_of() + chunk(b"LIST", b"tags that are not audio"),
    "size 0": riff(chunk(b"fmt ", fmt()), struct.pack("<4sI", b"data", 0)) + SAMPLES.tobytes(),
    "size unknown": wav.make_header(16_000, None) + SAMPLES.tobytes(),
    "size 0x7fffffff": riff(chunk(b"fmt ", fmt()), struct.pack("<4sI", b"data", 0x7FFFFFFF))
    + SAMPLES.tobytes(),
    "no header at all": SAMPLES.tobytes(),
    "half a sample at the end": wav.make_header(16_000, None) + SAMPLES.tobytes() + b"\7",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_wav_whole_and_bytewise(stream: bytes) -> None:
    assert decode(open_decoder("wav", 16_000), stream) == SAMPLES.tolist()
    single = [stream[i : i + 1] for i in range(len(stream))]
    assert decode(open_decoder("wav", 16_000), *single) == SAMPLES.tolist()


@given(name=st.sampled_from(sorted(STREAMS)), where=cuts)
def test_wav_is_the_same_for_any_split(name: str, where: list[int]) -> None:
    assert decode(open_decoder("wav", 16_000), *split(STREAMS[name], where)) == SAMPLES.tolist()


def test_rate_of_the_header_overrules() -> None:
    decoder = open_decoder("wav", 16_000)
    assert decoder.sample_rate is None
    stream = wav_of(rate=44_100)
    decoder.feed(stream[:20])
    assert decoder.sample_rate is None
    decoder.feed(stream[20:])
    assert decoder.sample_rate == 44_100


def test_rate_without_header_is_the_requested_one() -> None:
    assert open_decoder("pcm", 8_000).sample_rate == 8_000
    decoder = open_decoder("wav", 8_000)
    decoder.feed(SAMPLES.tobytes())
    assert decoder.sample_rate == 8_000


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_mixed_down(channels: int) -> None:
    frames = np.zeros((40, channels), np.int16)
    frames[:, 0] = np.arange(40) * channels
    stream = wav_of(frames, channels=channels)
    pieces = [stream[i : i + 7] for i in range(0, len(stream), 7)]
    assert decode(open_decoder("wav", 16_000), *pieces) == list(range(40))


def test_mixdown_of_loud_channels_does_not_wrap() -> None:
    stream = wav_of(np.full((10, 2), 32_767, np.int16), channels=2)
    assert decode(open_decoder("wav", 16_000), stream) == [32_767] * 10


def test_short_stream_that_might_have_become_a_header() -> None:
    assert decode(open_decoder("wav", 16_000), b"RIFF") == np.frombuffer(b"RIFF", "<i2").tolist()


def test_nothing_at_all() -> None:
    assert decode(open_decoder("wav", 16_000), b"") == []


@pytest.mark.parametrize(
    ("stream", "error", "text"),
    [
        (wav_of(codec=17, bits=4), BadAudio, "16-bit PCM"),
        (wav_of(codec=7, bits=16), BadAudio, "16-bit PCM"),
        (wav_of(codec=3, bits=16), BadAudio, "16-bit PCM"),
        (wav_of(bits=12), BadAudio, "16-bit PCM"),
        (wav_of(channels=0), BadAudio, "Channels"),
        (wav_of(channels=65), BadAudio, "Channels"),
        (wav_of(rate=7_999), UnsupportedSampleRate, "8000"),
        (wav_of(rate=192_001), UnsupportedSampleRate, "192000"),
        (riff(chunk(b"data", b"\0" * 8)), BadAudio, "Invalid wav header!"),
        (riff(chunk(b"fmt ", b"\1\0"), chunk(b"data", b"")), BadAudio, "Invalid wav header!"),
        (riff(chunk(b"LIST", b"\0" * 70_000), b"more"), BadAudio, "Too large wav header!"),
        (riff(struct.pack("<4sI", b"fmt ", 2**32 - 1)), BadAudio, "Too large wav header!"),
        (riff(struct.pack("<4sI", b"LIST", 2**32 - 1)), BadAudio, "Too large wav header!"),
        (riff(*[chunk(b"junk", b"")] * 9_000), BadAudio, "Too large wav header!"),
    ],
)
def test_refused_wav(stream: bytes, error: type[SpeechError], text: str) -> None:
    with pytest.raises(error, match=text):
        open_decoder("wav", 16_000).feed(stream)
    decoder = open_decoder("wav", 16_000)
    with pytest.raises(error, match=text):
        for i in range(0, len(stream), 1_000):
            decoder.feed(stream[i : i + 1_000])


def test_end_inside_the_header() -> None:
    decoder = open_decoder("wav", 16_000)
    decoder.feed(wav_of()[:30])
    with pytest.raises(BadAudio, match="ends inside the header"):
        decoder.flush()


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_what_is_documented(tail: bytes) -> None:
    decoder = open_decoder("wav", 16_000)
    try:
        decoder.feed(b"RIFF\0\0\0\0WAVE" + tail)
        decoder.flush()
    except (BadAudio, UnsupportedSampleRate):
        pass


@pytest.mark.parametrize("name", ["pcm", "PCM", ".pcm", "wav", "WAV", ".Wav", " wav "])
def test_names_in_any_spelling(name: str) -> None:
    open_decoder(name, 16_000)


@pytest.mark.parametrize("name", ["", "mp3x", "../pcm", "p c m"])
def test_unknown_format(name: str) -> None:
    with pytest.raises(UnsupportedFormat, match="pcm, wav"):
        open_decoder(name, 16_000)


@pytest.mark.parametrize("rate", [-1, 0, 7_999, 192_001])
def test_unsupported_rate(rate: int) -> None:
    with pytest.raises(UnsupportedSampleRate):
        open_decoder("pcm", rate)
