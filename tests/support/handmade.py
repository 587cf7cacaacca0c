"""Streams of formats without an encoder at hand, put together from random frames: noise, but of an
exactly known duration. In these formats every bit pattern is a sound.
"""

from __future__ import annotations

import struct

import numpy as np

_FRAME_MS = 20


def amr_wb(ms: int) -> bytes:
    """AMR-WB at 16 kHz, 6.6 kbit/s (RFC 4867 section 5): ``ms`` is rounded down to 20."""
    return b"#!AMR-WB\n" + b"".join(b"\x04" + _noise(i, 17) for i in range(ms // _FRAME_MS))


def gsm_wav(ms: int) -> bytes:
    """Microsoft's GSM 6.10 in wav at 8 kHz: blocks of 65 bytes and 320 samples, 40 ms."""
    data = b"".join(_noise(i, 65) for i in range(ms // 40))
    format_chunk = struct.pack("<HHIIHHHH", 0x31, 1, 8000, 1625, 65, 0, 2, 320)
    chunks = b"WAVE" + _chunk(b"fmt ", format_chunk) + _chunk(b"data", data)
    return _chunk(b"RIFF", chunks)


def speex(ms: int) -> bytes:
    """Narrow-band Speex at 8 kHz in Ogg: packets of one 20 ms frame in mode 3 (8 kbit/s)."""
    count = ms // _FRAME_MS
    comment = struct.pack("<I4sI", 4, b"test", 0)
    pages = [_page([_speex_head()], 0, 0, 2), _page([comment], 0, 1, 0)]
    for start in range(0, count, 50):
        stop = min(start + 50, count)
        packets = [_speex_packet(i) for i in range(start, stop)]
        pages.append(_page(packets, 160 * stop, len(pages), 4 if stop == count else 0))
    return b"".join(pages)


def _noise(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _speex_head() -> bytes:
    """80 bytes: rate 8000, mode 0, bit stream 4, mono, frames of 160 samples, one per packet."""
    numbers = (1, 80, 8000, 0, 4, 1, 0xFFFFFFFF, 160, 0, 1, 0, 0, 0)
    return struct.pack("<8s20s13I", b"Speex   ", b"1.2", *numbers)


def _speex_packet(seed: int) -> bytes:
    """A zero bit (narrow band), four bits of mode, 155 of parameters: 20 bytes."""
    parameters = int.from_bytes(_noise(seed, 20), "big") % (1 << 155)
    return (3 << 155 | parameters).to_bytes(20, "big")


def _page(packets: list[bytes], granule: int, number: int, flags: int) -> bytes:
    """RFC 3533 section 6; every packet shorter than 255 bytes."""
    lacing = bytes(len(packet) for packet in packets)
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, 7, number, 0)
    page = head + bytes([len(lacing)]) + lacing + b"".join(packets)
    return page[:22] + struct.pack("<I", _crc(page)) + page[26:]


def _crc(data: bytes) -> int:
    """CRC-32 with the polynomial 04c11db7, nothing reflected."""
    register = 0
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1) ^ (0x104C11DB7 if register & 0x80000000 else 0)
    return register
