"""The Ogg container (RFC 3533), read from a stream that arrives in pieces."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from app.audio.damage import Damage
from app.core.errors import BadAudio

MAX_PACKET_BYTES: Final = 64 * 1024
"""Longer packets are left out. No Opus packet comes near; pictures in the tags do."""

MAX_GAP_BYTES: Final = 64 * 1024
"""Rubbish between two pages. A page itself is at most 65,307 bytes long."""

NO_GRANULE: Final = -1
"""The granule position of a page in which no packet ends."""

_MAGIC: Final = b"OggS"
_HEADER: Final = struct.Struct("<4sBBqIIIB")
"""Magic, version, flags, granule position, serial number, page number, checksum, segments."""
_CHECKSUM_OFFSET: Final = 22
_CONTINUED, _BEGIN, _END = 1, 2, 4
_FULL_SEGMENT: Final = 255

_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Page:
    """``packets``: those that end in this page, whole. ``begin`` and ``end``: the first and the
    last page of its logical stream. ``resume_at``: the position behind it, unless a packet is open
    there."""

    serial: int
    granule: int
    begin: bool
    end: bool
    packets: list[bytes]
    resume_at: int | None = None


class PageReader:
    """Finds the pages of a stream and joins the packets that span several.

    Keeps at most one page and one packet. Bytes that are no page, or one with a wrong checksum,
    are passed over; the latter, and packets that miss a part, are counted in ``damage``.
    """

    def __init__(self, damage: Damage) -> None:
        self._damage = damage
        self._data = bytearray()
        self._done = 0
        self._gap = 0
        self._partial = bytearray()
        self._joining: int | None = None
        self.position = 0
        """Bytes fed until the end of the last page behind which no packet was open: a new reader
        can go on from there."""

    @property
    def buffered(self) -> int:
        """Bytes of a page that is not complete yet."""
        return len(self._data)

    def feed(self, data: bytes) -> list[Page]:
        """Take in the next bytes, and return the pages that they complete.

        Raises:
            BadAudio: more than :data:`MAX_GAP_BYTES` between two pages, or too much damage.
        """
        self._data += data
        start, pages = 0, []
        while (size := self._page_bytes(start)) is not None:
            if size < 0:
                start = self._pass_over(start, -size)
                continue
            page = self._page(start, size)
            if page.resume_at is not None:
                self.position = page.resume_at
            pages.append(page)
            start += size
        self._done += start
        del self._data[:start]
        return pages

    def _page_bytes(self, start: int) -> int | None:
        """The size of the page at ``start``; None if it is not complete, and if there is none,
        minus the number of bytes to pass over before one is looked for."""
        data = self._data
        seen = data[start : start + len(_MAGIC)]
        if not _MAGIC.startswith(seen):
            return -1
        if len(data) < start + _HEADER.size:
            return None
        segments = data[start + _HEADER.size - 1]
        body = start + _HEADER.size + segments
        size = body - start + sum(data[start + _HEADER.size : body])
        if len(data) < body or len(data) < start + size:
            return None
        if data[start + len(_MAGIC)] != 0 or not _intact(bytes(data[start : start + size])):
            self._damage.count_bad()
            return -len(_MAGIC)
        self._gap = 0
        return size

    def _pass_over(self, start: int, least: int) -> int:
        """Where the next page may begin, at least so many bytes behind ``start``."""
        found = self._data.find(_MAGIC, start + least)
        if found < 0:
            # All but what may be the beginning of a magic.
            found = max(start + least, len(self._data) - len(_MAGIC) + 1)
        self._gap += found - start
        if self._gap > MAX_GAP_BYTES:
            raise BadAudio(
                "The audio is no Ogg stream, or it is damaged: check the format parameter, and "
                "send all bytes in order."
            )
        return found

    def _page(self, start: int, size: int) -> Page:
        _, _, flags, granule, serial, _, _, segments = _HEADER.unpack_from(self._data, start)
        lacing = self._data[start + _HEADER.size : start + _HEADER.size + segments]
        body = bytes(self._data[start + _HEADER.size + segments : start + size])
        follows = bool(flags & _CONTINUED)
        packets = self._packets(serial, lacing, body, follows)
        end = self._done + start + size if self._joining is None else None
        return Page(serial, granule, bool(flags & _BEGIN), bool(flags & _END), packets, end)

    def _packets(self, serial: int, lacing: bytearray, body: bytes, follows: bool) -> list[bytes]:
        """The packets that end in a page; ``follows``: the first has begun in an earlier one."""
        if self._joining is not None and not (follows and self._joining == serial):
            self._damage.count_bad()  # its end is missing
            self._drop()
        headless = follows and self._joining is None
        packets: list[bytes] = []
        offset = 0
        for size in lacing:
            part = body[offset : offset + size]
            offset += size
            if not headless and len(self._partial) + len(part) > MAX_PACKET_BYTES:
                headless = True  # its end does not matter any more
                self._drop()
            self._joining = serial
            if not headless:
                self._partial += part
            if size == _FULL_SEGMENT:
                continue
            if headless:
                self._damage.count_bad()
            else:
                packets.append(bytes(self._partial))
            headless = False
            self._drop()
        if headless:
            # It does not end here either: the next page is as good as this one.
            self._drop()
        return packets

    def _drop(self) -> None:
        self._joining = None
        self._partial.clear()


def _checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it: that of zlib on mirrored bytes, from 0 and not inverted at the end."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _intact(page: bytes) -> bool:
    (checksum,) = struct.unpack_from("<I", page, _CHECKSUM_OFFSET)
    blank = page[:_CHECKSUM_OFFSET] + bytes(4) + page[_CHECKSUM_OFFSET + 4 :]
    return bool(_checksum(blank) == checksum)


def make_page(
    packet: bytes,
    *,
    serial: int,
    number: int = 0,
    granule: int = 0,
    begin: bool = False,
    end: bool = False,
) -> bytes:
    """A page with one whole packet.

    Raises:
        ValueError: the packet is too long for one page (65,024 bytes or more).
    """
    segments = len(packet) // _FULL_SEGMENT + 1
    if segments > _FULL_SEGMENT:
        raise ValueError("the packet does not fit into one page")
    lacing = bytes([_FULL_SEGMENT] * (segments - 1) + [len(packet) % _FULL_SEGMENT])
    flags = (_BEGIN if begin else 0) | (_END if end else 0)
    head = _HEADER.pack(_MAGIC, 0, flags, granule, serial, number, 0, segments)
    checksum = struct.pack("<I", _checksum(head + lacing + packet))
    return head[:_CHECKSUM_OFFSET] + checksum + head[_CHECKSUM_OFFSET + 4 :] + lacing + packet
