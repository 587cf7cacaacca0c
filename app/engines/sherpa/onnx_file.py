"""What an ONNX file tells of itself, read without the runtime.

sherpa-onnx ends the process, without an exception, over a model whose metadata are missing or
nonsense: so every file is looked at before the runtime sees it. Only the outermost fields of the
file are walked (onnx.proto: ModelProto.graph is 7, metadata_props 14; GraphProto.output 12); all
else is skipped by its length, which also shows a file that is cut short.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from app.engines.reading import check_file, size_of
from app.engines.sherpa.folder import unusable
from app.engines.sherpa.wire import VARINT, Damaged, chunks, varint

_GRAPH: Final = 7
_METADATA: Final = 14
_GRAPH_OUTPUT: Final = 12

_QUANTISED_BY_CALL: Final = b"DynamicQuantize"
"""So begin the names of the operators that find a scale: …Linear, …MatMul and …LSTM."""


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A whole ONNX file.

    ``outputs``: the shape of each output, None for a length that may be any.
    ``scaled_by_call``: its arithmetic is int8 with one scale for all that a call has, so that what
    an input gives depends on what it shares the call with.
    """

    path: Path
    metadata: Mapping[str, str]
    outputs: tuple[tuple[int | None, ...], ...]
    scaled_by_call: bool

    def text(self, key: str) -> str:
        """A value of the metadata.

        Raises:
            EngineNotUsable: it is not there, or empty.
        """
        value = self.metadata.get(key, "")
        if not value:
            raise unusable(self.path, f"its metadata have no {key}")
        return value

    def number(self, key: str, *, least: int = 0) -> int:
        """A whole number of the metadata, ``least`` or more.

        Raises:
            EngineNotUsable: it is not there, or is none.
        """
        value = self.text(key)
        if not _is_whole(value) or int(value) < least:
            raise unusable(self.path, f"{key} is {value[:40]!r} in its metadata")
        return int(value)

    def numbers(self, key: str) -> list[int]:
        """Whole numbers of the metadata with commas between them, at least one.

        Raises:
            EngineNotUsable: it is not there, or has something else.
        """
        values = self.text(key).split(",")
        if not all(_is_whole(value) for value in values):
            raise unusable(self.path, f"{key} is {self.text(key)[:40]!r} in its metadata")
        return [int(value) for value in values]

    def check_floats(self, key: str, count: int) -> None:
        """Whether a value of the metadata is ``count`` numbers with commas between them.

        Raises:
            EngineNotUsable: it is not.
        """
        values = self.text(key).split(",")
        try:
            found = [float(value) for value in values]
        except ValueError:
            raise unusable(self.path, f"{key} in its metadata is not all numbers") from None
        if len(found) != count:
            raise unusable(self.path, f"{key} in its metadata has {len(found)} of {count} numbers")


def read_onnx(path: Path) -> OnnxFile:
    """What ``path`` tells of itself; milliseconds for hundreds of megabytes.

    Raises:
        EngineNotUsable: it cannot be read, is cut short, or is no ONNX model.
    """
    try:
        check_file(path)
        if not size_of(path):
            raise ValueError("it is empty")  # which cannot be mapped
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parsed(path, cast(bytes, data))  # which it is like, in all that is used here
    except OSError as error:
        raise unusable(path, error.strerror or error) from None
    except (Damaged, ValueError) as error:
        raise unusable(path, error) from None


def _parsed(path: Path, data: bytes) -> OnnxFile:
    metadata: dict[str, str] = {}
    outputs: list[tuple[int | None, ...]] | None = None
    for field, begin, end in chunks(data, 0, len(data)):
        if field == _METADATA:
            pair = {number: data[at:to] for number, at, to in chunks(data, begin, end)}
            metadata[_decoded(pair.get(1, b""))] = _decoded(pair.get(2, b""))
        elif field == _GRAPH:
            outputs = [
                _shape(data, at, to)
                for number, at, to in chunks(data, begin, end)
                if number == _GRAPH_OUTPUT
            ]
    if not outputs:
        raise Damaged("it is no ONNX model")
    return OnnxFile(path, metadata, tuple(outputs), data.find(_QUANTISED_BY_CALL) >= 0)


def _shape(data: bytes, begin: int, end: int) -> tuple[int | None, ...]:
    """Of a ValueInfoProto: type (2), tensor_type (1), shape (2), dim (1), dim_value (1)."""
    places = [(begin, end)]
    for wanted in (2, 1, 2, 1):
        places = [
            (at, to)
            for start, stop in places
            for field, at, to in chunks(data, start, stop)
            if field == wanted
        ]
    return tuple(_length(data, at, to) for at, to in places)


def _length(data: bytes, begin: int, end: int) -> int | None:
    if begin == end:
        return None
    tag, place = varint(data, begin, end)
    return varint(data, place, end)[0] if tag == 1 << 3 | VARINT else None


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _is_whole(value: str) -> bool:
    stripped = value.strip()
    return stripped.isascii() and stripped.isdecimal() and len(stripped) < 10
