"""The encoder of a streaming zipformer2 with random weights, as an ONNX graph.

It has all that costs time in a published one: the convolutions in front, stacks at several frame
rates, attention with relative positions over the frames before, both convolutions of each layer,
Swoosh, BiasNorm and bypasses (Yao et al., "Zipformer: A faster and better encoder for automatic
speech recognition", arXiv 2310.11230). Shapes of the states and metadata: sherpa-onnx 1.13.4,
online-zipformer2-transducer-model.cc. Values are (frames, N, width) inside, as in published files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from onnx import TensorProto

from app.audio.pcm import Float32
from tests.support.sherpa.graphs import END, FLOAT, INT64, Graph, Shape, Value

CHUNK: Final = 16
"""Frames of 20 ms in a chunk of 320 ms."""
LEFT: Final = 128
"""Frames of 20 ms before a chunk that its attention sees."""
FRAMES: Final = 2 * CHUNK + 13
"""Frames of 10 ms that a chunk sees."""

MELS: Final = 80
_QUERY: Final = 32
_POSITION: Final = 4
_VALUE: Final = 12
"""Of a head of attention: sizes of a query, of what meets a relative position, and of a value."""
_FRONT: Final = (8, 32, 128)
"""Channels of the convolutions in front."""
_BANDS: Final = 19
"""What they leave of the 80."""
_CACHED: Final = 3
"""Frames that the front keeps for the next chunk, and those that it sees of it."""
_BRANCH: Final = 0.3
"""What a layer's parts add, against what it gets: at 1 nothing of a frame is left at the end."""


class Stack(NamedTuple):
    """Layers at one frame rate: 50 Hz over ``slower``. ``hidden``: of the feed-forward layers."""

    layers: int
    width: int
    hidden: int
    heads: int
    kernel: int
    slower: int

    @property
    def left(self) -> int:
        """Frames of its own rate before a chunk that its attention sees."""
        return LEFT // self.slower

    @property
    def frames(self) -> int:
        """Of its own rate, in a chunk."""
        return CHUNK // self.slower


class RandomLayers:
    """A graph whose weights are drawn as they are needed, so that numbers of about 1 stay so."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.graph = Graph()
        self._rng = rng

    def weights(self, *shape: int, deviation: float) -> Value:
        """A constant, normally distributed about 0."""
        drawn = self._rng.standard_normal(shape, np.float32)
        return self.graph.floats(drawn * np.float32(deviation))

    def linear(self, value: Value, inputs: int, outputs: int, gain: float = 1.0) -> Value:
        """(…, inputs) → (…, outputs)."""
        matrix = self.weights(inputs, outputs, deviation=gain / inputs**0.5)
        product = self.graph.op("MatMul", value, matrix)
        return self.graph.op("Add", product, self.weights(outputs, deviation=0.1))

    def convolution(self, value: Value, shape: Sequence[int], **attributes: Any) -> Value:
        """With weights of ``shape``: outputs, inputs of a group, and lengths."""
        inputs = int(np.prod(shape[1:]))
        kernel = self.weights(*shape, deviation=1.5 / inputs**0.5)
        bias = self.weights(shape[0], deviation=0.1)
        return self.graph.op("Conv", value, kernel, bias, **attributes)

    def swoosh(self, value: Value, *, left: bool) -> Value:
        """log(1 + exp(x - 4)) - 0.08 x - 0.035, which is the left one; 1 and 0.313 for the right
        one. The logarithm is taken so that nothing overflows."""
        op, floats = self.graph.op, self.graph.floats
        shift, offset = (4.0, 0.035) if left else (1.0, 0.313)
        moved = op("Sub", value, floats(shift))
        beyond = op("Exp", op("Neg", op("Abs", moved)))
        corner = op("Log", op("Add", beyond, floats(1.0)))
        raised = op("Add", op("Max", moved, floats(0.0)), corner)
        return op("Sub", op("Sub", raised, op("Mul", value, floats(0.08))), floats(offset))

    def norm(self, value: Value, width: int) -> Value:
        """BiasNorm: to a mean square of 1, a bias not counted."""
        op = self.graph.op
        moved = op("Sub", value, self.weights(width, deviation=0.1))
        power = op("ReduceMean", op("Mul", moved, moved), axes=[-1])
        return op("Mul", value, op("Pow", power, self.graph.floats(-0.5)))

    def bypass(self, before: Value, after: Value, width: int) -> Value:
        """Between the two, each channel at a place of its own."""
        op = self.graph.op
        share = self.graph.floats(self._rng.uniform(0.5, 0.9, width))
        return op("Add", before, op("Mul", op("Sub", after, before), share))

    def pieces(self, value: Value, *sizes: int) -> list[Value]:
        """The last axis, cut up."""
        ends = np.cumsum(sizes).tolist()
        return [
            self.graph.slice(value, end - size, end, -1)
            for end, size in zip(ends, sizes, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Spread:
    """What an encoder gives: mean and standard deviation of each channel, shape (joined,)."""

    mean: Float32
    deviation: Float32


class Encoder(RandomLayers):
    """From log-mels (N, FRAMES, 80) to (N, CHUNK / 2, ``joined``), and the states of all layers.

    ``spread``: that of the same weights without it, so that a mean of 0 and a deviation of 1 come
    out: random layers let little of what differs from frame to frame through.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        stacks: Sequence[Stack],
        joined: int,
        spread: Spread | None = None,
    ) -> None:
        super().__init__(rng)
        self._stacks = stacks
        self._spread = spread or Spread(np.zeros(joined, np.float32), np.ones(joined, np.float32))
        graph, shapes = self.graph, states(stacks)
        mels = graph.input("x", FLOAT, ["N", FRAMES, MELS])
        self._states = {name: graph.input(name, FLOAT, shape) for name, shape in shapes.items()}
        seen = graph.input("processed_lens", INT64, ["N"])
        heard = graph.op("Transpose", self._all(mels, self._before(seen), joined), perm=[1, 0, 2])
        graph.output(heard, "encoder_out", FLOAT, ["N", CHUNK // 2, joined])
        for name, shape in shapes.items():
            graph.output(self._states[name], f"new_{name}", FLOAT, shape)
        more = graph.op("Add", seen, graph.integers(CHUNK))
        graph.output(more, "new_processed_lens", INT64, ["N"])

    def save(self, path: Path) -> None:
        """Write it, with its metadata."""
        columns: dict[str, Callable[[Stack], int]] = {
            "num_encoder_layers": lambda stack: stack.layers,
            "encoder_dims": lambda stack: stack.width,
            "cnn_module_kernels": lambda stack: stack.kernel,
            "left_context_len": lambda stack: stack.left,
            "query_head_dims": lambda stack: _QUERY,
            "value_head_dims": lambda stack: _VALUE,
            "num_heads": lambda stack: stack.heads,
        }
        lists = {
            key: ",".join(str(of(each)) for each in self._stacks) for key, of in columns.items()
        }
        numbers = {"version": 1, "decode_chunk_len": 2 * CHUNK, "T": FRAMES}
        self.graph.save(path, {"model_type": "zipformer2", **numbers, **lists})

    def _all(self, mels: Value, before: Value, joined: int) -> Value:
        stacks = self._stacks
        value = self._front(mels, stacks[0].width)
        outputs: list[Value] = []
        width = stacks[0].width
        for number, stack in enumerate(stacks):
            value = self._resized(value, width, stack.width)
            value = self._stack(value, number, before)
            outputs.append(value)
            width = stack.width
        widest = max(stack.width for stack in stacks)
        found = self.linear(self._slower(self._widened(outputs), 2, widest), widest, joined)
        found = self.graph.op("Sub", found, self.graph.floats(self._spread.mean))
        return self.graph.op("Div", found, self.graph.floats(self._spread.deviation))

    def _keep(self, name: str, whole: Value, frames: int, axis: int) -> None:
        """The last frames are the state for the next chunk."""
        self._states[name] = self.graph.slice(whole, -frames, END, axis)

    # The front

    def _front(self, mels: Value, width: int) -> Value:
        """(N, FRAMES, 80) → (CHUNK, N, width), at half the rate."""
        graph, (first, second, third) = self.graph, _FRONT
        centred = graph.op("Mul", graph.op("Add", mels, graph.floats(9.0)), graph.floats(0.3))
        value = graph.op("Unsqueeze", centred, graph.integers(1))
        value = self.convolution(value, (first, 1, 3, 3), pads=[0, 1, 0, 1])
        value = self.swoosh(value, left=False)
        value = self.convolution(value, (second, first, 3, 3), strides=[2, 2])
        value = self.swoosh(value, left=False)
        value = self.convolution(value, (third, second, 3, 3), strides=[1, 2])
        value = self._next(self.swoosh(value, left=False), third)
        rows = graph.op("Transpose", value, perm=[2, 0, 1, 3])
        rows = graph.op("Reshape", rows, graph.integers(0, 0, third * _BANDS))
        return self.norm(self.linear(rows, third * _BANDS, width), width)

    def _next(self, value: Value, channels: int) -> Value:
        """ConvNeXt: a wide convolution of each channel, then a feed-forward layer at each place."""
        graph, size = self.graph, 2 * _CACHED + 1
        own = graph.slice(value, 0, CHUNK, 2)
        whole = graph.op("Concat", self._states["embed_states"], value, axis=2)
        self._states["embed_states"] = graph.slice(whole, CHUNK, CHUNK + _CACHED, 2)
        sides = [0, size // 2, 0, size // 2]
        inner = self.convolution(whole, (channels, 1, size, size), group=channels, pads=sides)
        inner = self.convolution(inner, (3 * channels, channels, 1, 1))
        inner = self.convolution(self.swoosh(inner, left=True), (channels, 3 * channels, 1, 1))
        return graph.op("Add", own, inner)

    def _before(self, seen: Value) -> Value:
        """Whether a frame of the attention was before the stream began: (N, 1, LEFT + CHUNK)."""
        graph = self.graph
        ages = graph.constant(np.arange(LEFT - 1, -1, -1, dtype=np.int64))
        before = graph.op("LessOrEqual", graph.op("Unsqueeze", seen, graph.integers(1, 2)), ages)
        padded = graph.pad(graph.as_float(before), [0, 0, CHUNK])
        return graph.op("Cast", padded, to=TensorProto.BOOL)

    # Stacks

    def _stack(self, value: Value, number: int, before: Value) -> Value:
        graph, stack, original = self.graph, self._stacks[number], value
        first = sum(each.layers for each in self._stacks[:number])
        if stack.slower > 1:
            value = self._slower(value, stack.slower, stack.width)
            every = (0, END, 2, stack.slower)
            before = graph.op("Slice", before, *map(graph.integers, every))
        for layer in range(first, first + stack.layers):
            value = self._layer(value, stack, layer, before)
        if stack.slower == 1:
            return value
        again = graph.op("Unsqueeze", value, graph.integers(1))
        again = graph.op("Tile", again, graph.integers(1, stack.slower, 1, 1))
        again = graph.op("Reshape", again, graph.integers(CHUNK, -1, stack.width))
        return self.bypass(original, again, stack.width)

    def _slower(self, value: Value, times: int, width: int) -> Value:
        """CHUNK frames → CHUNK / times: weighted means of so many."""
        graph = self.graph
        apart = graph.op("Reshape", value, graph.integers(CHUNK // times, times, -1, width))
        weights = np.full((times, 1, 1), 1 / times, np.float32)
        return graph.op(
            "ReduceSum",
            graph.op("Mul", apart, graph.floats(weights)),
            graph.integers(1),
            keepdims=0,
        )

    def _resized(self, value: Value, width: int, wanted: int) -> Value:
        """With channels of 0 more, or without the last ones."""
        if wanted < width:
            return self.graph.slice(value, 0, wanted, -1)
        return self.graph.pad(value, [0, 0, wanted - width]) if wanted > width else value

    def _widened(self, outputs: Sequence[Value]) -> Value:
        """The channels of the last stack, and those beyond them of the latest that has them."""
        pieces, width = [outputs[-1]], self._stacks[-1].width
        for stack, output in zip(self._stacks[::-1], outputs[::-1], strict=True):
            if stack.width > width:
                pieces.append(self.graph.slice(output, width, stack.width, -1))
                width = stack.width
        return self.graph.op("Concat", *pieces, axis=-1)

    # A layer

    def _layer(self, value: Value, stack: Stack, layer: int, before: Value) -> Value:
        op, width, hidden = self.graph.op, stack.width, stack.hidden
        attention = self._attention(value, stack, layer, before)
        original = value
        value = op("Add", value, self._feed_forward(value, width, hidden * 3 // 4))
        value = op("Add", value, self._gated_attention(value, attention, stack, layer))
        value = op("Add", value, self._attended(value, attention, stack, f"val1_{layer}"))
        value = op("Add", value, self._convolved(value, stack, f"conv1_{layer}"))
        value = op("Add", value, self._feed_forward(value, width, hidden))
        value = self.bypass(original, value, width)
        value = op("Add", value, self._attended(value, attention, stack, f"val2_{layer}"))
        value = op("Add", value, self._convolved(value, stack, f"conv2_{layer}"))
        value = op("Add", value, self._feed_forward(value, width, hidden * 5 // 4))
        return self.bypass(original, self.norm(value, width), width)

    def _feed_forward(self, value: Value, width: int, hidden: int) -> Value:
        inner = self.swoosh(self.linear(value, width, hidden, 3.0), left=True)
        return self.linear(inner, hidden, width, _BRANCH)

    def _attention(self, value: Value, stack: Stack, layer: int, before: Value) -> Value:
        """How much each frame looks at each one: (heads, N, frames, left + frames)."""
        graph, heads = self.graph, stack.heads
        sizes = (_QUERY * heads, _QUERY * heads, _POSITION * heads)
        drawn = self.linear(value, stack.width, sum(sizes), 0.5)
        query, key, position = self.pieces(drawn, *sizes)
        keys = graph.op("Concat", self._states[f"cached_key_{layer}"], key, axis=0)
        self._keep(f"cached_key_{layer}", keys, stack.left, 0)
        turned = graph.op("Transpose", self._heads(keys, heads, _QUERY), perm=[0, 1, 3, 2])
        scores = graph.op("MatMul", self._heads(query, heads, _QUERY), turned)
        scores = graph.op("Add", scores, self._distances(position, stack))
        # A second axis of (N, 1, …) is that of the frames here: the first one, of heads, is added.
        scores = graph.op("Where", before, graph.floats(-1000.0), scores)
        return graph.op("Softmax", scores, axis=-1)

    def _heads(self, value: Value, heads: int, size: int) -> Value:
        """(frames, N, heads * size) → (heads, N, frames, size)."""
        apart = self.graph.op("Reshape", value, self.graph.integers(0, 0, heads, size))
        return self.graph.op("Transpose", apart, perm=[2, 1, 0, 3])

    def _distances(self, position: Value, stack: Stack) -> Value:
        """What the distance of two frames adds to how much one looks at the other."""
        graph, heads, frames = self.graph, stack.heads, stack.frames
        span = stack.left + frames
        table = self.weights(heads, 1, _POSITION, span + frames - 1, deviation=1.0)
        scores = graph.op("MatMul", self._heads(position, heads, _POSITION), table)
        places = np.arange(frames - 1, -1, -1)[:, None] + np.arange(span)
        wanted = graph.op("Concat", graph.op("Shape", scores, end=3), graph.integers(span), axis=0)
        found = graph.op("Expand", graph.constant(places.astype(np.int64)), wanted)
        return graph.op("GatherElements", scores, found, axis=3)

    def _gated_attention(self, value: Value, attention: Value, stack: Stack, layer: int) -> Value:
        """With the first head alone, between two gates."""
        graph, name, hidden = self.graph, f"cached_nonlin_attn_{layer}", stack.width * 3 // 4
        drawn = self.linear(value, stack.width, 3 * hidden)
        gate, inner, last = self.pieces(drawn, hidden, hidden, hidden)
        inner = graph.op("Mul", inner, graph.op("Tanh", gate))
        whole = graph.op("Concat", self._states[name], self._heads(inner, 1, hidden), axis=2)
        self._keep(name, whole, stack.left, 2)
        seen = graph.op("MatMul", graph.slice(attention, 0, 1, 0), whole)
        return self.linear(
            graph.op("Mul", self._joined(seen, hidden), last), hidden, stack.width, _BRANCH
        )

    def _attended(self, value: Value, attention: Value, stack: Stack, name: str) -> Value:
        graph, size = self.graph, _VALUE * stack.heads
        drawn = self.linear(value, stack.width, size)
        whole = graph.op("Concat", self._states[f"cached_{name}"], drawn, axis=0)
        self._keep(f"cached_{name}", whole, stack.left, 0)
        seen = graph.op("MatMul", attention, self._heads(whole, stack.heads, _VALUE))
        return self.linear(self._joined(seen, size), size, stack.width, _BRANCH)

    def _joined(self, value: Value, size: int) -> Value:
        """(heads, N, frames, …) → (frames, N, size)."""
        turned = self.graph.op("Transpose", value, perm=[2, 1, 0, 3])
        return self.graph.op("Reshape", turned, self.graph.integers(0, 0, size))

    def _convolved(self, value: Value, stack: Stack, name: str) -> Value:
        """A convolution of each channel over what was before, and one within the chunk."""
        graph, width, kernel = self.graph, stack.width, stack.kernel
        inner, gate = self.pieces(self.linear(value, width, 2 * width), width, width)
        inner = graph.op("Mul", inner, graph.op("Sigmoid", gate))
        inner = graph.op("Transpose", inner, perm=[1, 2, 0])
        whole = graph.op("Concat", self._states[f"cached_{name}"], inner, axis=2)
        self._keep(f"cached_{name}", whole, kernel // 2, 2)
        past = self.convolution(whole, (width, 1, kernel // 2 + 1), group=width)
        sides = [kernel // 2, kernel // 2]
        within = self.convolution(inner, (width, 1, kernel), group=width, pads=sides)
        edges = self.weights(width, stack.frames, deviation=0.5)
        both = graph.op("Add", past, graph.op("Mul", within, edges))
        turned = graph.op("Transpose", both, perm=[2, 0, 1])
        return self.linear(self.swoosh(turned, left=False), width, width, _BRANCH)


def states(stacks: Sequence[Stack]) -> dict[str, Shape]:
    """What is passed on from chunk to chunk, by name, in the runtime's order."""
    shapes: dict[str, Shape] = {}
    for stack in stacks:
        for _ in range(stack.layers):
            layer, half = len(shapes) // 6, stack.kernel // 2
            values: Shape = [stack.left, "N", _VALUE * stack.heads]
            shapes |= {
                f"cached_key_{layer}": [stack.left, "N", _QUERY * stack.heads],
                f"cached_nonlin_attn_{layer}": [1, "N", stack.left, stack.width * 3 // 4],
                f"cached_val1_{layer}": values,
                f"cached_val2_{layer}": values,
                f"cached_conv1_{layer}": ["N", stack.width, half],
                f"cached_conv2_{layer}": ["N", stack.width, half],
            }
    shapes["embed_states"] = ["N", _FRONT[-1], _CACHED, _BANDS]
    return shapes
