import struct

import pytest

from app.audio.ebml import MAX_ELEMENT_BYTES, Head, Packet, WebmReader
from app.core.errors import BadAudio, SpeechError, UnsupportedFormat
from tests.support.encoded import encoded
from tests.support.sound import tone

OPUS_HEAD = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 312, 48_000, 0, 0)
HEAD = Head(OPUS_HEAD)


def element(identity: str, *body: bytes) -> bytes:
    whole = b"".join(body)
    return bytes.fromhex(identity) + (1 << 28 | len(whole)).to_bytes(4, "big") + whole


def unknown(identity: str) -> bytes:
    return bytes.fromhex(identity) + b"\x01\xff\xff\xff\xff\xff\xff\xff"


def track(number: int = 1, codec: bytes = b"A_OPUS", private: bytes = OPUS_HEAD) -> bytes:
    return element(
        "AE", element("D7", bytes([number])), element("86", codec), element("63A2", private)
    )


def block(data: bytes, number: int = 1, flags: int = 0x80) -> bytes:
    return bytes([0x80 | number, 0, 0, flags]) + data


def simple(data: bytes, number: int = 1, flags: int = 0x80) -> bytes:
    return element("A3", block(data, number, flags))


EBML = element("1A45DFA3", element("4282", b"webm"))
START = EBML + unknown("18538067") + element("1549A966", b"info")
CLUSTER = unknown("1F43B675") + element("E7", b"\0")
STREAM = START + element("1654AE6B", track()) + CLUSTER + simple(b"one") + CLUSTER + simple(b"two")


def read(stream: bytes, step: int = 1 << 20) -> list[Head | Packet]:
    reader = WebmReader()
    return [e for i in range(0, len(stream), step) for e in reader.feed(stream[i : i + step])]


@pytest.mark.parametrize("step", [1, 3, 99, 10**6])
@pytest.mark.parametrize("name", ["webm-opus", "webm-opus-file"])
def test_any_split_is_the_same(name: str, step: int) -> None:
    stream = encoded(name, tone(500), 16_000)
    events = read(stream)
    assert isinstance(events[0], Head)
    assert len(events) == 1 + 26  # 500 ms and the pre-skip, in packets of 20 ms
    assert read(stream, step) == events


def test_unknown_sizes_and_other_elements() -> None:
    assert read(STREAM) == [HEAD, Packet(b"one"), Packet(b"two")]
    known = EBML + element("18538067", element("1654AE6B", track()), element("EC", bytes(99)))
    known += element("1F43B675", element("E7", b"\0"), simple(b"x"))
    assert read(known + element("1C53BB6B", bytes(200_000)) + simple(b"y")) == [
        HEAD,
        Packet(b"x"),
        Packet(b"y"),
    ]


def test_groups_and_their_padding() -> None:
    group = element("A0", element("A1", block(b"x")), element("75A2", b"\x06\x5f\xbd\x10"))
    negative = element("A0", element("75A2", b"\xff"), element("A1", block(b"y")))
    assert read(STREAM + group + negative)[-2:] == [Packet(b"x", 0x065FBD10), Packet(b"y", 0)]


def test_other_tracks_are_left_out() -> None:
    tracks = element("1654AE6B", track(1, b"V_VP8", b""), track(2), track(3))
    stream = START + tracks + CLUSTER + simple(bytes(100_000), 1) + simple(b"a", 2)
    assert read(stream + simple(b"b", 3) + simple(b"c", 2)) == [HEAD, Packet(b"a"), Packet(b"c")]


def test_recording_after_recording() -> None:
    events = [HEAD, Packet(b"one"), Packet(b"two")]
    assert read(STREAM + STREAM) == events + events


def test_blocks_that_cannot_be_read() -> None:
    assert read(STREAM + simple(b"laced", flags=0x82))[-1] == Packet(b"")
    assert read(STREAM + element("A3", b"\x81\0\0"))[-1] == Packet(b"")
    assert read(CLUSTER[:0] + START + CLUSTER + simple(b"before the tracks")) == []


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"not webm at all", BadAudio),
        (b"\0", BadAudio),
        (STREAM[4:], BadAudio),
        (STREAM + b"\0", BadAudio),
        (STREAM + b"\xec\0", BadAudio),
        (STREAM + b"\xec\xff", BadAudio),  # only segments and clusters have an unknown size
        (START + unknown("1654AE6B"), BadAudio),
        (START + element("1654AE6B", bytes(MAX_ELEMENT_BYTES + 1)), BadAudio),
        (START + element("1654AE6B", b"\xae\x88"), BadAudio),
        (START + element("1654AE6B", track(private=b"OpusHead")), BadAudio),
        (START + element("1654AE6B", track(codec=b"A_VORBIS")), UnsupportedFormat),
        (START + element("1654AE6B"), UnsupportedFormat),
    ],
)
def test_refused(stream: bytes, error: type[SpeechError]) -> None:
    with pytest.raises(error):
        read(stream)
    with pytest.raises(error):
        read(stream, 1)


def test_preamble_leads_to_the_same_state() -> None:
    stream = STREAM + element("EC", bytes(300)) + simple(b"three") + STREAM
    whole = read(stream)
    for done in range(len(stream)):
        reader = WebmReader()
        events = reader.feed(stream[:done])
        preamble = reader.preamble()
        assert len(preamble) <= 200
        other = WebmReader()
        again = other.feed(preamble)
        assert len(again) == any(isinstance(event, Head) for event in events)
        rest = other.feed(stream[reader.position :])
        assert events + rest == whole, done


def test_kept_bytes_are_bounded() -> None:
    reader = WebmReader()
    reader.feed(STREAM + bytes.fromhex("A3") + b"\x01" + b"\xff" * 6 + b"\xfe")
    for _ in range(100):
        assert reader.feed(bytes(10_000)) == []
        assert reader.buffered == 0
    reader = WebmReader()
    reader.feed(STREAM + element("A3", bytes(MAX_ELEMENT_BYTES))[:-1])
    assert reader.buffered <= MAX_ELEMENT_BYTES + 12
