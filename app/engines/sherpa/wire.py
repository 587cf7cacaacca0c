"""The outer fields of a protocol buffer message, as far as ONNX files need them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

VARINT: Final = 0
CHUNK: Final = 2
"""A field with a length: text, bytes, or a message."""
_FIXED: Final = {1: 8, 5: 4}
_LONGEST_VARINT: Final = 10


class Damaged(Exception):
    """The bytes are no whole message; the text says why."""


class Field(NamedTuple):
    """A field: its number and kind, where its tag begins, and where its value begins and ends."""

    number: int
    kind: int
    tag: int
    begin: int
    end: int


def fields(data: bytes, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message between two places, in order.

    Raises:
        Damaged: there is something else.
    """
    while begin < end:
        start = begin
        tag, begin = varint(data, begin, end)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, stop = varint(data, begin, end)
        elif kind == CHUNK:
            size, begin = varint(data, begin, end)
            stop = begin + size
        elif kind in _FIXED:
            stop = begin + _FIXED[kind]
        else:
            raise Damaged("it is no ONNX model")
        if stop > end:
            raise Damaged("it is cut short, or no ONNX model")
        yield Field(number, kind, start, begin, stop)
        begin = stop


def chunks(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields with a length: their number, and where they begin and end."""
    for field in fields(data, begin, end):
        if field.kind == CHUNK:
            yield field.number, field.begin, field.end


def varint(data: bytes, begin: int, end: int) -> tuple[int, int]:
    """A number, and the place behind it."""
    number = 0
    for index in range(_LONGEST_VARINT):
        if begin + index >= end:
            raise Damaged("it is cut short, or no ONNX model")
        byte = data[begin + index]
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, begin + index + 1
    raise Damaged("it is no ONNX model")


def number_field(number: int, value: int) -> bytes:
    """A field of a whole number, 0 or more."""
    return _written(number << 3 | VARINT) + _written(value)


def chunk_field(number: int, *parts: bytes) -> bytes:
    """A field with a length."""
    return chunk_head(number, sum(map(len, parts))) + b"".join(parts)


def chunk_head(number: int, size: int) -> bytes:
    """What comes before the ``size`` bytes of such a field."""
    return _written(number << 3 | CHUNK) + _written(size)


def _written(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
