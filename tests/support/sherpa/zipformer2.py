"""Streaming zipformer2 of one stack with one layer: a transducer, and a CTC model.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, online-zipformer2-transducer-model.cc and
online-zipformer2-ctc-model.cc; how its decoder and joiner are called, also
online-transducer-greedy-search-decoder.cc.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import sherpa_onnx

from tests.support.sherpa.graphs import (
    FLOAT,
    INT64,
    LETTER_COUNT,
    Graph,
    Shape,
    Value,
    energies,
    last,
    made,
    onsets,
    write_tokens,
)
from tests.support.sherpa.tones import LETTERS

CHUNK: Final = 32
"""Frames of 10 ms by which a chunk moves on."""
FRAMES: Final = CHUNK + 13
"""Frames a chunk sees."""
OUTPUTS: Final = CHUNK // 4
"""Frames of 40 ms that come out of a chunk."""
SYMBOLS: Final = ("<blk>", *LETTERS, "<unk>")
PREFERRED: Final = {1: 1.5}
"""好 wins over 世 where both sound, until a hotword turns it round."""

_DIM: Final = 16
_HEADS: Final = 2
_QUERY: Final = 4
_LEFT: Final = 8
_KERNEL: Final = 5
_CONTEXT: Final = 2
_METADATA: Final = {
    "model_type": "zipformer2",
    "decode_chunk_len": CHUNK,
    "T": FRAMES,
    "num_encoder_layers": 1,
    "encoder_dims": _DIM,
    "cnn_module_kernels": _KERNEL,
    "left_context_len": _LEFT,
    "query_head_dims": _QUERY,
    "value_head_dims": _QUERY,
    "num_heads": _HEADS,
}
_ATTENTION: Final[Shape] = [_LEFT, "N", _QUERY * _HEADS]
_CONVOLUTION: Final[Shape] = ["N", _DIM, _KERNEL // 2]
_STATES: Final[dict[str, Shape]] = {
    "cached_key_0": _ATTENTION,
    "cached_nonlin_attn_0": [1, "N", _LEFT, 3 * _DIM // 4],
    "cached_val1_0": _ATTENTION,
    "cached_val2_0": _ATTENTION,
    "cached_conv1_0": _CONVOLUTION,
    "cached_conv2_0": _CONVOLUTION,
    "embed_states": ["N", 128, 3, 19],
}
_MEMORY: Final = "cached_conv1_0"
"""The state that keeps the last frame of a chunk."""


def transducer(folder: Path) -> Path:
    """encoder.onnx, decoder.onnx, joiner.onnx and tokens.txt in a folder, which is returned."""
    made(folder)
    graph = Graph()
    logits, states = _encoder(graph, PREFERRED)
    _finish(graph, "encoder_out", logits, states)
    graph.save(folder / "encoder.onnx", _METADATA)
    write_decoder_and_joiner(folder)
    return folder


def ctc(folder: Path) -> Path:
    """model.onnx and tokens.txt in a folder, which is returned."""
    write_tokens(made(folder) / "tokens.txt", SYMBOLS)
    graph = Graph()
    logits, states = _encoder(graph, {})
    _finish(graph, "log_probs", graph.op("LogSoftmax", logits, axis=-1), states)
    graph.save(folder / "model.onnx", _METADATA)
    return folder


def write_decoder_and_joiner(folder: Path) -> None:
    """What both zipformers have: decoder.onnx, joiner.onnx and tokens.txt.

    The decoder adds a little that depends on the last token, so that a row which is joined to
    another stream's shows in the scores; the joiner adds both. The metadata ``context_size`` is
    how many of the last tokens the decoder sees.
    """
    vocabulary = write_tokens(folder / "tokens.txt", SYMBOLS)
    table = np.random.default_rng(0).normal(0, 0.02, (vocabulary, vocabulary))
    graph = Graph()
    newest = graph.slice(graph.input("y", INT64, ["N", _CONTEXT]), _CONTEXT - 1, _CONTEXT, 1)
    rows = graph.op("Gather", graph.floats(table), newest)
    row = graph.op("Squeeze", rows, graph.integers(1))
    graph.output(row, "decoder_out", FLOAT, ["N", vocabulary])
    metadata = {"vocab_size": vocabulary, "context_size": _CONTEXT}
    graph.save(folder / "decoder.onnx", metadata)
    graph = Graph()
    heard = graph.input("encoder_out", FLOAT, ["N", vocabulary])
    said = graph.input("decoder_out", FLOAT, ["N", vocabulary])
    graph.output(graph.op("Add", heard, said), "logit", FLOAT, ["N", vocabulary])
    graph.save(folder / "joiner.onnx", {"joiner_dim": vocabulary})


def chunk_energies(graph: Graph, frames: Value) -> Value:
    """Features (N, more than CHUNK, 80) → (N, OUTPUTS, letters): the quietest of each four frames.

    The quietest: so a gap of 80 ms shows wherever it lies. The frames beyond the chunk come again
    in the next one.
    """
    own = graph.slice(frames, 0, CHUNK, 1)
    fours = graph.op("Reshape", own, graph.integers(0, OUTPUTS, 4, 80))
    return energies(graph, graph.op("ReduceMin", fours, axes=[2], keepdims=0))


def with_unknown(graph: Graph, logits: Value) -> Value:
    """Logits of blank and letters, and one of <unk>, which is never emitted."""
    return graph.pad(logits, [0, 0, 1], -50.0)


def load_transducer(folder: Path, **options: Any) -> sherpa_onnx.OnlineRecognizer:
    """The recogniser of a transducer's folder; options are those of ``from_transducer``."""
    return sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(folder / "tokens.txt"),
        encoder=str(folder / "encoder.onnx"),
        decoder=str(folder / "decoder.onnx"),
        joiner=str(folder / "joiner.onnx"),
        num_threads=1,
        enable_endpoint_detection=False,
        **options,
    )


def load_beam_search(folder: Path) -> sherpa_onnx.OnlineRecognizer:
    """The same with the search that hotwords need; a hotword is written in characters."""
    return load_transducer(
        folder,
        decoding_method="modified_beam_search",
        modeling_unit="cjkchar",
        hotwords_score=2.0,
    )


def load_ctc(folder: Path) -> sherpa_onnx.OnlineRecognizer:
    """The recogniser of a CTC model's folder."""
    return sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
        tokens=str(folder / "tokens.txt"),
        model=str(folder / "model.onnx"),
        num_threads=1,
        enable_endpoint_detection=False,
    )


def _encoder(graph: Graph, preferred: dict[int, float]) -> tuple[Value, dict[str, Value]]:
    """Logits (N, OUTPUTS, symbols), and the states by name."""
    frames = graph.input("x", FLOAT, ["N", FRAMES, 80])
    states = {name: graph.input(name, FLOAT, shape) for name, shape in _STATES.items()}
    seen = graph.input("processed_lens", INT64, ["N"])
    levels = chunk_energies(graph, frames)
    # (N, DIM, 2): the first letters' rows of the first column.
    column = graph.slice(graph.op("Transpose", states[_MEMORY], perm=[0, 2, 1]), 0, 1, 1)
    logits = onsets(graph, levels, graph.slice(column, 0, LETTER_COUNT, 2), preferred=preferred)
    kept = graph.op("Transpose", last(graph, levels), perm=[0, 2, 1])
    states[_MEMORY] = graph.pad(kept, [0, _DIM - LETTER_COUNT, _KERNEL // 2 - 1])
    states["processed_lens"] = graph.op("Add", seen, graph.integers(CHUNK // 2))
    return with_unknown(graph, logits), states


def _finish(graph: Graph, name: str, logits: Value, states: dict[str, Value]) -> None:
    # The runtime takes the size of a CTC model's vocabulary from this shape.
    graph.output(logits, name, FLOAT, ["N", OUTPUTS, len(SYMBOLS)])
    for state, shape in _STATES.items():
        graph.output(states[state], f"new_{state}", FLOAT, shape)
    graph.output(states["processed_lens"], "new_processed_lens", INT64, ["N"])
