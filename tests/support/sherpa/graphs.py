"""ONNX graphs by hand, and the parts that all tiny recognisers share.

The recognisers have no trained weights. A letter's token is emitted where the energy of its band
crosses a threshold upwards from one frame to the next; the frame before the first one comes out of
the model's state. So states that get mixed up between streams change the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.support.sherpa.tones import BANDS, LETTERS

FLOAT: Final = TensorProto.FLOAT
INT32: Final = TensorProto.INT32
INT64: Final = TensorProto.INT64
END: Final = 2**31 - 1
"""The end of an axis, for :meth:`Graph.slice`."""
LETTER_COUNT: Final = len(LETTERS)
_THRESHOLD: Final = 5.0

Value = str
"""The name of a tensor in a graph."""
Shape = Sequence[int | str]
"""A name stands for any length."""
Metadata = Mapping[str, object]
"""The custom metadata in which the runtime finds a model's kind and sizes, written by str()."""


class Graph:
    """A graph in the making: each call adds a node and gives the name of what it computes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._values = 0

    def input(self, name: str, kind: int, shape: Shape) -> Value:
        """An input; the runtime goes by their order, and rarely by the name."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: Value, name: str, kind: int, shape: Shape) -> None:
        """An output, in the order of the calls."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, values: NDArray[np.generic]) -> Value:
        """A constant of the array's own type and shape."""
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def floats(self, values: ArrayLike) -> Value:
        """A constant of float32."""
        return self.constant(np.asarray(values, np.float32))

    def integers(self, *values: int) -> Value:
        """A constant of int64, shape (values,)."""
        return self.constant(np.asarray(values, np.int64))

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """A node with one output."""
        return self.ops(1, kind, *inputs, **attributes)[0]

    def ops(self, outputs: int, kind: str, *inputs: Value, **attributes: Any) -> list[Value]:
        """A node with several outputs."""
        names = [f"value{self._values + index}" for index in range(outputs)]
        self._values += outputs
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def slice(self, value: Value, begin: int, end: int, axis: int) -> Value:
        """From ``begin`` up to ``end`` of one axis; negative ones count from its end."""
        return self.op("Slice", value, *map(self.integers, (begin, end, axis)))

    def pad(self, value: Value, behind: Sequence[int], filler: float = 0.0) -> Value:
        """More of ``filler`` behind what is there: how many, for each axis."""
        before = [0] * len(behind)
        return self.op("Pad", value, self.integers(*before, *behind), self.floats(filler))

    def as_float(self, value: Value) -> Value:
        """The same numbers in float32."""
        return self.op("Cast", value, to=FLOAT)

    def length(self, value: Value, axis: int) -> Value:
        """The length of one axis: int64, shape (1,)."""
        return self.slice(self.op("Shape", value), axis, axis + 1, 0)

    def count(self, length: Value) -> Value:
        """0, 1, … ``length`` - 1: int64, shape (length,), of a scalar or a shape of (1,)."""
        zero, one = self.constant(np.array(0)), self.constant(np.array(1))
        return self.op("Range", zero, self.op("Reshape", length, self.integers()), one)

    def save(self, path: Path, metadata: Metadata) -> None:
        """Write the model, checked."""
        graph = helper.make_graph(self._nodes, "tiny", self._inputs, self._outputs, self._constants)
        # Operators and format that every onnxruntime of the last years reads.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def energies(
    graph: Graph,
    features: Value,
    *,
    width: int = 80,
    first: int = 0,
    floor: float = 8.0,
    scale: float = 1.0,
) -> Value:
    """Log mel features (…, width) → energies of the letters' bands (…, letters), 0 or more.

    ``first`` is where the 80 bands begin in a frame that is several stacked ones; the energy is
    ``scale`` * log mel + ``floor``. Silence lies at -16, a tone at about -4 for samples up to 1,
    and at +18 for samples up to 32768.
    """
    weights = np.zeros((width, LETTER_COUNT), np.float32)
    weights[first + np.array(BANDS), np.arange(LETTER_COUNT)] = scale
    bands = graph.op("MatMul", features, graph.floats(weights))
    return graph.op("Relu", graph.op("Add", bands, graph.floats(floor)))


def onsets(
    graph: Graph, levels: Value, before: Value, *, preferred: Mapping[int, float] | None = None
) -> Value:
    """Energies (N, T, letters) and those of the frame before (N, 1, letters) → logits.

    The logits are (N, T, 1 + letters): blank, always 0, and the letters, above 0 where their band
    crosses the threshold. ``preferred`` adds to letters, only where they rise.
    """
    past = graph.slice(graph.op("Concat", before, levels, axis=1), 0, -1, 1)
    threshold = graph.floats(_THRESHOLD)
    rises = graph.as_float(
        graph.op(
            "And",
            graph.op("Less", past, threshold),
            graph.op("GreaterOrEqual", levels, threshold),
        )
    )
    # One way or the other, and clearly: a beam search adds up what is unlikely over many frames.
    certain = graph.op("Mul", graph.op("Sub", rises, graph.floats(0.5)), graph.floats(40.0))
    # 0 for the loudest band, below for the others: a tone leaks into the bands beside it.
    quieter = graph.op("Sub", levels, graph.op("ReduceMax", levels, axes=[-1]))
    letters = graph.op("Add", certain, graph.op("Mul", quieter, graph.floats(0.5)))
    if preferred:
        more = graph.floats([preferred.get(letter, 0.0) for letter in range(LETTER_COUNT)])
        letters = graph.op("Add", letters, graph.op("Mul", rises, more))
    blank = graph.op("Mul", graph.slice(letters, 0, 1, -1), graph.floats(0.0))
    return graph.op("Concat", blank, letters, axis=-1)


def last(graph: Graph, levels: Value) -> Value:
    """The last frame: (N, T, letters) → (N, 1, letters)."""
    return graph.slice(levels, -1, END, 1)


def made(folder: Path) -> Path:
    """The folder, there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_tokens(path: Path, symbols: Sequence[str]) -> int:
    """tokens.txt: "symbol number" lines from 0 on. Returns how many there are."""
    lines = (f"{symbol} {number}\n" for number, symbol in enumerate(symbols))
    path.write_text("".join(lines), "utf-8")
    return len(symbols)
