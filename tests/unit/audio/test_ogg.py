import random
import struct

import pytest

from app.audio import ogg
from app.audio.damage import MAX_BAD, Damage
from app.audio.ogg import MAX_GAP_BYTES, MAX_PACKET_BYTES, Page, PageReader, make_page
from app.core.errors import BadAudio
from tests.support.encoded import encoded
from tests.support.sound import tone


def page(
    segments: list[bytes], *, flags: int = 0, granule: int = 0, serial: int = 7, version: int = 0
) -> bytes:
    """A page by hand: its segments go out as they are, with a right checksum."""
    lacing = bytes(len(segment) for segment in segments)
    head = struct.pack("<4sBBqIII", b"OggS", version, flags, granule, serial, 0, 0)
    whole = head + bytes([len(segments)]) + lacing + b"".join(segments)
    crc = 0
    for byte in whole:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return whole[:22] + struct.pack("<I", crc) + whole[26:]


def read(stream: bytes, step: int = 1 << 20, damage: Damage | None = None) -> list[Page]:
    reader = PageReader(damage or Damage())
    return [p for i in range(0, len(stream), step) for p in reader.feed(stream[i : i + step])]


def packets(pages: list[Page]) -> list[bytes]:
    return [packet for found in pages for packet in found.packets]


FULL = bytes(255)
SPANNING = (
    page([b"first", FULL]) + page([FULL], flags=1, granule=-1) + page([b"end", b"next"], flags=1)
)


@pytest.mark.parametrize("step", [1, 3, 100, 1_000, 10**6])
def test_any_split_is_the_same(step: int) -> None:
    stream = encoded("ogg-opus", tone(500), 16_000)
    assert read(stream, step) == read(stream)
    assert packets(read(SPANNING, step)) == [b"first", 2 * FULL + b"end", b"next"]


def test_what_a_page_says() -> None:
    first, last = read(page([b"a"], flags=2, serial=9) + page([b"b"], flags=4, granule=-1))
    assert first == Page(9, 0, True, False, [b"a"], 29)
    assert last == Page(7, ogg.NO_GRANULE, False, True, [b"b"], 58)


def test_own_pages_are_read() -> None:
    for size in (0, 1, 254, 255, 256, 60_000):
        packet = random.Random(size).randbytes(size)
        made = make_page(packet, serial=3, number=2, granule=960, end=True)
        assert read(made) == [Page(3, 960, False, True, [packet], len(made))]
    assert make_page(b"abc", serial=7, begin=True) == page([b"abc"], flags=2)
    with pytest.raises(ValueError):
        make_page(bytes(255 * 255), serial=1)


def test_empty_pages_and_packets() -> None:
    assert packets(read(page([]) + page([b""]) + page([b"x"]))) == [b"", b"x"]


def test_damaged_page_and_rubbish_are_passed_over() -> None:
    good = page([b"good"])
    broken = good[:-1] + b"x"
    damage = Damage()
    for step in (1, 7, 1_000):
        stream = b"OggOgg" + good + broken + b"OggSOg" + page([b"v"], version=1) + good
        assert packets(read(stream, step, damage)) == [b"good", b"good"]
    assert damage.bad == 3 * 3  # checksum, a magic without a page, version


def test_packet_that_misses_a_part_is_left_out() -> None:
    damage = Damage()
    missing_middle = page([b"a", FULL]) + page([b"rest", b"b"])
    assert packets(read(missing_middle, damage=damage)) == [b"a", b"rest", b"b"]
    assert damage.bad == 1
    begins_inside = page([FULL], flags=1, granule=-1) + page([b"rest", b"c"], flags=1)
    assert packets(read(begins_inside, damage=damage)) == [b"c"]
    assert damage.bad == 2


def test_too_long_packet_is_left_out() -> None:
    damage = Damage()
    stream = page([FULL] * 255)
    stream += page([FULL] * 255, flags=1) + page([b"end", b"ok"], flags=1)
    assert packets(read(stream, damage=damage)) == [b"ok"]
    assert damage.bad == 1


def test_position_is_behind_a_page_with_no_open_packet() -> None:
    reader = PageReader(Damage())
    one, two = page([b"a"]), page([b"b", FULL])
    reader.feed(one + one[:10])
    assert reader.position == len(one)
    reader.feed(one[10:] + two)
    assert reader.position == 2 * len(one)
    reader.feed(page([b"end"], flags=1))
    assert reader.position == 2 * len(one) + len(two) + len(page([b"end"]))


def test_endless_rubbish() -> None:
    reader = PageReader(Damage())
    with pytest.raises(BadAudio, match="no Ogg stream"):
        for fed in range(0, 10 * MAX_GAP_BYTES, 1_000):
            reader.feed(bytes(1_000))
            assert reader.buffered <= 1_000
            assert fed <= MAX_GAP_BYTES


def test_many_magics_without_pages_cost_little() -> None:
    """Each could be 64 KiB to check."""
    damage = Damage()
    hostile = (b"OggS\0" + bytes(21) + b"\x01\xff") * 40_000
    with pytest.raises(BadAudio, match="damaged"):
        read(hostile, 64 * 1024, damage)
    assert damage.bad == MAX_BAD + 1


def test_buffer_is_bounded_by_the_longest_page() -> None:
    reader = PageReader(Damage())
    head = page([])[:26] + b"\xff" + b"\xff" * 255
    reader.feed(head)
    for _ in range(64):
        reader.feed(bytes(1_000))
        assert reader.buffered <= 65_307
    assert MAX_PACKET_BYTES <= 65_536
