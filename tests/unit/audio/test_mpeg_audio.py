import pytest

from app.audio.mpeg_audio import MAX_TAG_BYTES, Priming, TagSkipper, priming
from app.core.errors import BadAudio
from tests.support.encoded import encoded
from tests.support.sound import tone


def tag(size: int, *, version: int = 4, flags: int = 0) -> bytes:
    synchsafe = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, flags]) + synchsafe + b"t" * size


def skipped(stream: bytes, step: int) -> bytes:
    skipper = TagSkipper()
    out = [skipper.feed(stream[i : i + step]) for i in range(0, len(stream), step)]
    return b"".join(out) + skipper.flush()


@pytest.mark.parametrize("step", [1, 3, 11, 1_000])
@pytest.mark.parametrize(
    ("stream", "rest"),
    [
        (b"", b""),
        (b"audio and more", b"audio and more"),
        (tag(300) + b"audio", b"audio"),
        (tag(0) + b"audio", b"audio"),
        (tag(5, version=2) + tag(200, version=3) + b"ID", b"ID"),
        (tag(7, flags=0x10) + b"3DI.......audio", b"audio"),
        (b"ID3\xff" + b"no tag at all", b"ID3\xff" + b"no tag at all"),
        (b"ID3\4\0\0\x80\0\0\0" + b"no tag", b"ID3\4\0\0\x80\0\0\0" + b"no tag"),
        (b"IDE", b"IDE"),
        (tag(50)[:30], b""),
        (b"audio" + tag(10), b"audio" + tag(10)),
    ],
)
def test_tags_are_passed_over(stream: bytes, rest: bytes, step: int) -> None:
    assert skipped(stream, step) == rest


def test_found() -> None:
    skipper = TagSkipper()
    skipper.feed(tag(10)[:9])
    assert not skipper.found
    assert skipper.pending == 9
    skipper.feed(tag(10)[9:])
    assert skipper.found
    assert skipper.pending == 0


def test_too_large_tag() -> None:
    assert skipped(tag(MAX_TAG_BYTES) + b"x", 100_000) == b"x"
    with pytest.raises(BadAudio, match="cover picture"):
        TagSkipper().feed(tag(MAX_TAG_BYTES + 1)[:10])


@pytest.mark.parametrize("done", [10, 11, 150, 309, 310, 311, 314])
def test_preamble_leads_to_the_same_state(done: int) -> None:
    stream = tag(300) + b"audio"
    skipper = TagSkipper()
    given = skipper.feed(stream[:done])
    other = TagSkipper()
    assert other.feed(skipper.preamble()) == b""
    position = done - skipper.pending
    assert given + other.feed(stream[position:]) + other.flush() == b"audio"


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_priming_of_lame(rate: int) -> None:
    stream = encoded("mp3-lame", tone(1_000, rate), rate)
    stream = skipped(stream, len(stream))
    found = priming(stream[:1_500])
    assert found is not None
    assert found.end - found.start == rate
    assert 1_000 < found.start < 2_000
    assert found.total - found.end < 2 * 1_152


def test_frames_without_a_tag() -> None:
    stream = encoded("mp3", tone(300), 16_000)
    for start in range(0, len(stream), 108):
        assert priming(stream[start : start + 108]) is None
    for junk in (b"", b"\xff", b"\xff\xfb\x90", b"Info", bytes(500)):
        assert priming(junk) is None


def info_frame(flags: int, body: bytes, mode: int = 0xC0) -> bytes:
    side_info = 17 if mode == 0xC0 else 32
    head = b"\xff\xfb\x90" + bytes([mode]) + bytes(side_info)
    return (head + b"Xing" + bytes([0, 0, 0, flags]) + body).ljust(417, b"\0")


LAME = b"LAME3.100" + bytes(12) + (576 << 12 | 1_000).to_bytes(3, "big")


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (info_frame(0, b""), Priming(0, 0, 0)),
        (info_frame(1, (10).to_bytes(4, "big")), Priming(0, 0, 0)),
        (info_frame(1, (10).to_bytes(4, "big") + LAME), Priming(1_105, 11_049, 11_520)),
        (
            info_frame(15, (10).to_bytes(4, "big") + bytes(108) + LAME, mode=0),
            Priming(1_105, 11_049, 11_520),
        ),
        # Numbers that cannot be true never give a range that runs backwards.
        (info_frame(1, bytes(4) + LAME), Priming(1_105, 1_105, 1_105)),
        (info_frame(15, bytes(112))[:100], Priming(0, 0, 0)),
    ],
)
def test_tags_by_hand(frame: bytes, expected: Priming) -> None:
    assert priming(frame) == expected
