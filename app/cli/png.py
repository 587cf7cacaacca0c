"""Small pictures as PNG, with nothing but zlib: rectangles and a little text."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

Colour = tuple[int, int, int]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
SCALE: Final = 2
GLYPH_WIDTH: Final = 3 * SCALE
GLYPH_HEIGHT: Final = 5 * SCALE
_ADVANCE: Final = 4 * SCALE

_DEPTH_BITS: Final = 8
_PALETTE: Final = 3
"""The colour type whose pixels are indices (PNG specification, section 6.1)."""


class Picture:
    """A canvas in the first of up to 256 ``colours``; the others are used by their index. What lies
    outside is cut off. (0, 0) is at the top left."""

    def __init__(self, width: int, height: int, colours: Sequence[Colour]) -> None:
        self._pixels = np.zeros((height, width), np.uint8)
        self._colours = colours

    def fill(self, left: int, top: int, width: int, height: int, colour: int) -> None:
        """A rectangle."""
        right, bottom = left + width, top + height
        self._pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = colour

    def write(self, left: int, top: int, text: str, colour: int) -> None:
        """A line of text, in capital letters; a character that :data:`FONT` lacks is left blank."""
        for index, character in enumerate(text.upper()):
            rows = FONT.get(character, ())
            for y, row in enumerate(rows):
                for x, dot in enumerate(row):
                    if dot == "#":
                        at = left + index * _ADVANCE + x * SCALE
                        self.fill(at, top + y * SCALE, SCALE, SCALE, colour)

    def encoded(self) -> bytes:
        """The picture as a PNG file."""
        height, width = self._pixels.shape
        # Each line begins with its filter: 0 is none.
        lines = np.hstack([np.zeros((height, 1), np.uint8), self._pixels]).tobytes()
        palette = bytes(part for colour in self._colours for part in colour)
        header = struct.pack(">IIBBBBB", width, height, _DEPTH_BITS, _PALETTE, 0, 0, 0)
        return b"".join(
            [
                SIGNATURE,
                _chunk(b"IHDR", header),
                _chunk(b"PLTE", palette),
                _chunk(b"IDAT", zlib.compress(lines, 9)),
                _chunk(b"IEND", b""),
            ]
        )


def text_width(text: str) -> int:
    """In pixels."""
    return max(0, len(text) * _ADVANCE - SCALE)


def _chunk(name: bytes, data: bytes) -> bytes:
    """PNG specification, section 5.3."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _font(drawing: str) -> dict[str, tuple[str, ...]]:
    """Characters of 3 by 5 dots, from lines of them side by side, each under its name."""
    font: dict[str, tuple[str, ...]] = {}
    lines = drawing.strip("\n").split("\n")
    for first in range(0, len(lines), 6):
        names, *rows = lines[first : first + 6]
        for column in range(0, len(names), 4):
            cells = tuple(row[column : column + 3] for row in rows)
            font[names[column]] = cells
    return font


FONT: Final = _font("""
0   1   2   3   4   5   6   7   8   9   .   :
### .#. ### ### #.# ### ### ### ### ### ... ...
#.# ##. ..# ..# #.# #.. #.. ..# #.# #.# ... .#.
#.# .#. ### ### ### ### ### ..# ### ### ... ...
#.# .#. #.. ..# ..# ..# #.# ..# #.# ..# ... .#.
### ### ### ### ..# ### ### ..# ### ### .#. ...
A   C   D   E   G   H   I   K   L   M   N   O
.#. .## ##. ### .## #.# ### #.# #.. #.# ##. ###
#.# #.. #.# #.. #.. #.# .#. #.# #.. ### #.# #.#
### #.. #.# ##. #.# ### .#. ##. #.. ### #.# #.#
#.# #.. #.# #.. #.# #.# .#. #.# #.. #.# #.# #.#
#.# .## ##. ### .## #.# ### #.# ### #.# #.# ###
P   R   S   T   B   W
##. ##. .## ### ##. #.#
#.# #.# #.. .#. #.# #.#
##. ##. .#. .#. ##. ###
#.. #.# ..# .#. #.# ###
#.. #.# ##. .#. ##. #.#
""")
"""5 rows for each character; ``#`` is a dot."""
