"""Makes an int8 model's streams independent of each other.

``quantize_dynamic`` of onnxruntime, by which the published int8 files are made, gives all of a
call's activations one scale (DynamicQuantizeLinear): a loud stream takes precision from its mates,
and what a stream gives depends on them. Here each row of a matrix, which is a frame of one stream,
gets its own scale; weights stay as they are. It costs a tenth of the time in a batch of 16, and a
fifth to a third alone, where batches take half (docs/sherpa-engine.md). Field numbers: onnx.proto.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, cast

import structlog

from app.engines.sherpa.kinds import FoundModel
from app.engines.sherpa.onnx_file import read_onnx
from app.engines.sherpa.wire import (
    Damaged,
    chunk_field,
    chunk_head,
    chunks,
    fields,
    number_field,
    varint,
)

_GRAPH, _OPSETS = 7, 8
_NODE, _CONSTANT = 1, 5
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5
_FLOAT, _UINT8, _INT64 = 1, 2, 7
_INTEGER, _INTEGERS = 2, 7
_QUANTISING: Final = "DynamicQuantize"
"""So begin the names of the operators that find a scale: …MatMul and …LSTM have it inside."""
_QUANTISE: Final = "DynamicQuantizeLinear"
_PRODUCT: Final = "MatMulInteger"
_AXES_ARE_AN_INPUT: Final = 18
"""Of ReduceMax: from this version of the operators on."""

log = structlog.get_logger(__name__)


class CannotRewrite(Exception):
    """The model is not of the form that is known here; the text says why."""


@dataclass(frozen=True, slots=True)
class _Node:
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@contextmanager
def independent(model: FoundModel) -> Iterator[FoundModel]:
    """The model with files whose streams are independent, for as long as it is being loaded; as it
    is where nothing has to be done, or it cannot be (then it does not batch)."""
    with ExitStack() as stack:
        if not model.batches:
            try:
                folder = stack.enter_context(TemporaryDirectory(prefix="funspeech-"))
                model = _rewritten(model, Path(folder))
            except (CannotRewrite, Damaged, OSError) as error:
                log.warning(
                    "an int8 model is decoded one stream at a time",
                    model=model.folder.name,
                    reason=str(error),
                )
        yield model


def _rewritten(model: FoundModel, folder: Path) -> FoundModel:
    files = dict(model.files)
    for name, path in model.files.items():
        if read_onnx(path).scaled_by_call:
            files[name] = folder / path.name
            rewrite(path, files[name])
    return replace(model, files=files, batches=True)


def rewrite(source: Path, target: Path) -> int:
    """Write the model with a scale for each row. Returns how many scales there were.

    Raises:
        CannotRewrite: rows are not what its scales are for.
        Damaged: it is no ONNX model.
        OSError: it cannot be read or written.
    """
    with (
        source.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        target.open("wb") as out,
    ):
        data = cast(bytes, mapped)  # which it is like, in all that is used here
        top = list(fields(data, 0, len(data)))
        version = max((_opset(data, f.begin, f.end) for f in top if f.number == _OPSETS), default=0)
        count = 0
        for field in top:
            if field.number != _GRAPH:
                out.write(data[field.tag : field.end])
                continue
            places, count = _graph(data, field.begin, field.end, version)
            size = sum(
                len(place) if isinstance(place, bytes) else place[1] - place[0] for place in places
            )
            out.write(chunk_head(_GRAPH, size))
            for place in places:
                # One constant after the other: a model is hundreds of megabytes.
                out.write(place if isinstance(place, bytes) else data[place[0] : place[1]])
    return count


def _graph(
    data: bytes, begin: int, end: int, version: int
) -> tuple[list[bytes | tuple[int, int]], int]:
    """The new graph, in bytes and places of the old one, and how many scales it had."""
    found: list[bytes | tuple[int, int]] = [_constants(version)]
    nodes: list[_Node] = []
    quantised: list[_Node] = []
    scales: set[str] = set()
    for field in fields(data, begin, end):
        node = _node(data, field.begin, field.end) if field.number == _NODE else None
        if node is not None:
            nodes.append(node)
        if node is not None and node.operator == _QUANTISE:
            found.append(_scaled_by_row(node, f"rows{len(quantised)}_", version))
            quantised.append(node)
            scales.update(node.outputs[1:2])
        elif node is not None and node.operator == "Mul" and scales & set(node.inputs):
            found.append(_kept_apart(node))
        else:
            found.append((field.tag, field.end))
    _check(data, nodes, quantised)
    return found, len(quantised)


def _check(data: bytes, nodes: Sequence[_Node], quantised: Sequence[_Node]) -> None:
    """Whether a scale for each row is right wherever it is used."""
    for node in nodes:
        if node.operator.startswith(_QUANTISING) and node.operator != _QUANTISE:
            raise CannotRewrite(f"{node.operator} has its scale inside")
    if _count(data, _QUANTISING.encode()) != len(quantised):
        raise CannotRewrite("some of its scales are in branches or loops")
    values = {output for node in quantised for output in node.outputs[:1]}
    scales = {output for node in quantised for output in node.outputs[1:2]}
    for node in nodes:
        if values & set(node.inputs[1:]) or (
            values & set(node.inputs[:1]) and node.operator != _PRODUCT
        ):
            raise CannotRewrite(f"{node.operator} has no rows to scale")
        if scales & set(node.inputs) and node.operator != "Mul":
            raise CannotRewrite(f"{node.operator} takes no scale for each row")


def _count(data: bytes, wanted: bytes) -> int:
    count, place = 0, data.find(wanted)
    while place >= 0:
        count, place = count + 1, data.find(wanted, place + len(wanted))
    return count


# Reading


def _node(data: bytes, begin: int, end: int) -> _Node:
    texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _OPERATOR: []}
    for number, at, to in chunks(data, begin, end):
        if number in texts:
            texts[number].append(data[at:to].decode("utf-8", "replace"))
    return _Node("".join(texts[_OPERATOR]), tuple(texts[_INPUT]), tuple(texts[_OUTPUT]))


def _opset(data: bytes, begin: int, end: int) -> int:
    """The version of the standard operators; 0 of others."""
    version = 0
    for field in fields(data, begin, end):
        if field.number == 1 and data[field.begin : field.end] not in (b"", b"ai.onnx"):
            return 0
        if field.number == 2:
            version, _ = varint(data, field.begin, field.end)
    return version


# Writing


def _constants(version: int) -> bytes:
    found = [
        _constant("rows_127", _FLOAT, struct.pack("<f", 127.0)),
        _constant("rows_128", _FLOAT, struct.pack("<f", 128.0)),
        _constant("rows_least", _FLOAT, struct.pack("<f", 1e-9)),
        _constant("rows_zero", _UINT8, b"\x80"),
    ]
    if version >= _AXES_ARE_AN_INPUT:
        found.append(_constant("rows_axis", _INT64, struct.pack("<q", -1), number_field(1, 1)))
    return b"".join(found)


def _constant(name: str, kind: int, value: bytes, shape: bytes = b"") -> bytes:
    """A TensorProto: dims (1), data_type (2), name (8), raw_data (9)."""
    return chunk_field(
        _CONSTANT,
        shape,
        number_field(2, kind),
        chunk_field(8, name.encode()),
        chunk_field(9, value),
    )


def _scaled_by_row(node: _Node, prefix: str, version: int) -> bytes:
    """In place of the operator: x / (largest of the row / 127) + 128, and 128 for the zero."""
    (value,) = node.inputs
    quantised, scale, *zero = node.outputs
    steps = {name: prefix + name for name in ("abs", "max", "some", "div", "round", "sum")}
    keep = _attribute("keepdims", number_field(3, 1), _INTEGER)
    if version >= _AXES_ARE_AN_INPUT:
        largest = _operator("ReduceMax", [steps["abs"], "rows_axis"], steps["max"], keep)
    else:
        # -1, as the 64 bits of a negative number.
        axes = _attribute("axes", number_field(8, (1 << 64) - 1), _INTEGERS)
        largest = _operator("ReduceMax", [steps["abs"]], steps["max"], keep, axes)
    to_uint8 = _attribute("to", number_field(3, _UINT8), _INTEGER)
    written = [
        _operator("Abs", [value], steps["abs"]),
        largest,
        _operator("Max", [steps["max"], "rows_least"], steps["some"]),
        _operator("Div", [steps["some"], "rows_127"], scale),
        _operator("Div", [value, scale], steps["div"]),
        _operator("Round", [steps["div"]], steps["round"]),
        _operator("Add", [steps["round"], "rows_128"], steps["sum"]),
        _operator("Cast", [steps["sum"]], quantised, to_uint8),
        *(_operator("Identity", ["rows_zero"], name) for name in zero if name),
    ]
    return b"".join(written)


def _kept_apart(product: _Node) -> bytes:
    """A product with scales, and behind it the maximum of that alone, which changes nothing.

    Without it the runtime makes one operator, MatMulIntegerToFloat, of the product of matrices, of
    this one and of a bias behind them, and multiplies the bias by the rows' scales too: no error,
    and nearly no bias (onnxruntime 1.28.2 and 1.31.1, from the level ORT_ENABLE_EXTENDED on).
    """
    (output,) = product.outputs
    between = f"rows_{output}"
    return _operator("Mul", product.inputs, between) + _operator("Max", [between], output)


def _operator(kind: str, inputs: Sequence[str], output: str, *attributes: bytes) -> bytes:
    return chunk_field(
        _NODE,
        *(chunk_field(_INPUT, name.encode()) for name in inputs),
        chunk_field(_OUTPUT, output.encode()),
        chunk_field(_OPERATOR, kind.encode()),
        *attributes,
    )


def _attribute(name: str, value: bytes, kind: int) -> bytes:
    """An AttributeProto: name (1), i (3) or ints (8), type (20)."""
    return chunk_field(_ATTRIBUTE, chunk_field(1, name.encode()), value, number_field(20, kind))
