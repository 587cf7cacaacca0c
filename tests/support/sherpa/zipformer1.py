"""The first streaming zipformer (pruned_transducer_stateless7_streaming), of one layer.

The bilingual models of 2023 are of this kind. Inputs, outputs and metadata: sherpa-onnx 1.13.4,
online-zipformer-transducer-model.cc. Loaded as :func:`zipformer2.load_transducer` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support.sherpa.graphs import (
    FLOAT,
    INT64,
    LETTER_COUNT,
    Graph,
    Shape,
    last,
    made,
    onsets,
)
from tests.support.sherpa.zipformer2 import (
    CHUNK,
    OUTPUTS,
    PREFERRED,
    SYMBOLS,
    chunk_energies,
    with_unknown,
    write_decoder_and_joiner,
)

FRAMES: Final = CHUNK + 7
"""Frames a chunk sees."""

_DIM: Final = 16
_LEFT: Final = 8
_KERNEL: Final = 5
_LAYERS: Final = 1
_METADATA: Final = {
    "model_type": "zipformer",
    "decode_chunk_len": CHUNK,
    "T": FRAMES,
    "num_encoder_layers": _LAYERS,
    "encoder_dims": _DIM,
    "attention_dims": _DIM,
    "cnn_module_kernels": _KERNEL,
    "left_context_len": _LEFT,
}
_VALUES: Final[Shape] = [_LAYERS, _LEFT, "N", _DIM // 2]
_CONVOLUTION: Final[Shape] = [_LAYERS, "N", _DIM, _KERNEL - 1]
_STATES: Final[dict[str, tuple[int, Shape]]] = {
    "cached_len_0": (INT64, [_LAYERS, "N"]),
    "cached_avg_0": (FLOAT, [_LAYERS, "N", _DIM]),
    "cached_key_0": (FLOAT, [_LAYERS, _LEFT, "N", _DIM]),
    "cached_val_0": (FLOAT, _VALUES),
    "cached_val2_0": (FLOAT, _VALUES),
    "cached_conv1_0": (FLOAT, _CONVOLUTION),
    "cached_conv2_0": (FLOAT, _CONVOLUTION),
}
_MEMORY: Final = "cached_avg_0"
"""The state that keeps the last frame of a chunk."""


def transducer(folder: Path) -> Path:
    """encoder.onnx, decoder.onnx, joiner.onnx and tokens.txt in a folder, which is returned."""
    write_decoder_and_joiner(made(folder))
    graph = Graph()
    frames = graph.input("x", FLOAT, ["N", FRAMES, 80])
    states = {name: graph.input(name, *state) for name, state in _STATES.items()}
    levels = chunk_energies(graph, frames)
    before = graph.op("Transpose", states[_MEMORY], perm=[1, 0, 2])
    before = graph.slice(before, 0, LETTER_COUNT, 2)
    logits = with_unknown(graph, onsets(graph, levels, before, preferred=PREFERRED))
    graph.output(logits, "encoder_out", FLOAT, ["N", OUTPUTS, len(SYMBOLS)])
    kept = graph.op("Transpose", last(graph, levels), perm=[1, 0, 2])
    states[_MEMORY] = graph.pad(kept, [0, 0, _DIM - LETTER_COUNT])
    states["cached_len_0"] = graph.op("Add", states["cached_len_0"], graph.integers(CHUNK // 2))
    for name, state in _STATES.items():
        graph.output(states[name], f"new_{name}", *state)
    graph.save(folder / "encoder.onnx", _METADATA)
    return folder
