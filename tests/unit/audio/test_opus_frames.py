import struct

import numpy as np
import pytest
from av import CodecContext, Packet
from av.audio.codeccontext import AudioCodecContext

from app.audio.opus_frames import (
    FrameReader,
    checked_head,
    frame,
    framing,
    packet_samples,
    without_pre_skip,
)
from app.core.errors import BadAudio, SpeechError, UnsupportedFormat
from tests.support.encoded import encoded, opus_packets
from tests.support.sound import joined, silence, tone

SOUND = joined(silence(200), tone(600), silence(200))


def head(channels: int = 1, family: int = 0, version: int = 1, tail: bytes = b"") -> bytes:
    fixed = struct.pack("<8sBBHIhB", b"OpusHead", version, channels, 312, 48_000, 0, family)
    return fixed + tail


@pytest.mark.parametrize("step", [1, 2, 99, 10**6])
def test_frames_are_taken_apart_for_any_split(step: int) -> None:
    stream = encoded("opu", SOUND, 16_000)
    reader = FrameReader()
    found: list[bytes] = []
    for i in range(0, len(stream), step):
        found += reader.feed(stream[i : i + step])
        assert reader.position == sum(len(packet) + 1 for packet in found)
    assert found == opus_packets(SOUND, 16_000)
    assert reader.position == len(stream)


def test_frames_there_and_back() -> None:
    for packet in (b"a", bytes(255)):
        assert FrameReader().feed(frame(packet)) == [packet]
    for packet in (b"", bytes(256)):
        with pytest.raises(ValueError):
            frame(packet)


def test_empty_frames_are_given_as_they_are() -> None:
    assert FrameReader().feed(b"\0\1x\0") == [b"", b"x", b""]


@pytest.mark.parametrize("frame_ms", [2.5, 5, 10, 20, 40, 60])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_duration_of_a_packet(frame_ms: float, rate: int) -> None:
    expected = {int(frame_ms * 48)}
    assert {packet_samples(p) for p in opus_packets(SOUND, rate, frame_ms)} == expected


def test_duration_is_what_the_decoder_gives() -> None:
    """Every first byte: with one frame (code 0), two (1, 2) and three (3)."""
    for first in range(256):
        code = first & 3
        packet = bytes([first]) + (b"\x03" if code == 3 else b"") + bytes(60 if code != 2 else 61)
        context = CodecContext.create("opus", "r")
        assert isinstance(context, AudioCodecContext)
        context.sample_rate, context.layout = 48_000, "mono"
        try:
            frames = [*context.decode(Packet(packet)), *context.decode(None)]
        except ValueError:
            assert packet_samples(packet) is None
        else:
            assert packet_samples(packet) == sum(found.samples for found in frames), first


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x03",  # code 3 without its count
        b"\x0b\x00",  # no frames
        b"\x0b\x07" + bytes(70),  # 7 frames of 20 ms
        b"\x49" + bytes(3),  # two frames of one size in an odd number of bytes
        b"\x48" + bytes(1_300),  # one frame is never that long
    ],
)
def test_what_cannot_be_a_packet(packet: bytes) -> None:
    assert packet_samples(packet) is None


def test_framed_and_bare_messages_are_told_apart() -> None:
    for rate, frame_ms in ((16_000, 20), (16_000, 60), (8_000, 20), (48_000, 10)):
        packets = opus_packets(SOUND, rate, frame_ms)
        assert not any(framing(packets[at : at + 2]) for at in range(len(packets) - 1))
        framed = [frame(packet) for packet in packets if len(packet) < 256]
        assert all(framing([message]) is None for message in framed)
        assert all(framing(framed[at : at + 2]) for at in range(len(framed) - 1))
        assert framing([b"".join(framed[:5])])
        assert framing([framed[0], packets[1]]) is False
        assert framing([b"".join(framed[:5])[:-1]]) is False
    assert framing([b""]) is False


def test_a_packet_that_begins_with_its_own_length_is_no_framed_one() -> None:
    """Noise gives packets of all lengths; of two in a row hardly any pair looks framed."""
    noise = np.random.default_rng(5).integers(-9_000, 9_000, 16_000 * 30).astype(np.int16)
    packets = opus_packets(noise, 16_000)
    assert any(framing([packet]) is None for packet in packets)
    pairs = [framing(packets[at : at + 2]) for at in range(len(packets) - 1)]
    assert sum(map(bool, pairs)) <= len(pairs) // 100


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (head(), 19),
        (head(2), 19),
        (head(1, tail=b"more"), 19),
        (head(6, 1, tail=b"\4\2\0\4\1\2\3\5more"), 27),
    ],
)
def test_good_heads(data: bytes, size: int) -> None:
    assert checked_head(data) == data[:size]
    skipped = without_pre_skip(data)
    assert len(skipped) == len(data)
    assert struct.unpack_from("<H", skipped, 10) == (0,)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", BadAudio),
        (head()[:-1], BadAudio),
        (b"OpusHeaX" + head()[8:], BadAudio),
        (head(version=16), BadAudio),
        (head(0), BadAudio),
        (head(3), BadAudio),
        (head(6, 1), BadAudio),
        (head(2, 1, tail=b"\0\0\0\0"), BadAudio),
        (head(2, 1, tail=b"\1\2\0\0"), BadAudio),
        (head(9, 1, tail=bytes(20)), UnsupportedFormat),
        (head(255, 255, tail=bytes(300)), UnsupportedFormat),
    ],
)
def test_bad_heads(data: bytes, error: type[SpeechError]) -> None:
    with pytest.raises(error):
        checked_head(data)
