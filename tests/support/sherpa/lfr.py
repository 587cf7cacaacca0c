"""What Paraformer and SenseVoice have in common: frames stacked seven by seven, every 60 ms.

The features are those of samples up to 32768. Metadata: sherpa-onnx 1.13.4,
offline-paraformer-model.cc and offline-sense-voice-model.cc.
"""

from __future__ import annotations

from typing import Final

from tests.support.sherpa.graphs import Graph, Value, energies, onsets

WIDTH: Final = 560
"""Features of a stacked frame."""
METADATA: Final = {
    "lfr_window_size": 7,
    "lfr_window_shift": 6,
    "neg_mean": ",".join(["0"] * WIDTH),
    "inv_stddev": ",".join(["1"] * WIDTH),
}
"""How frames are stacked, and each feature's mean, negated, and inverse standard deviation."""


def levels(graph: Graph, frames: Value, *, scale: float = 1.0) -> Value:
    """Stacked frames (N, T, 560) → energies (N, T, letters) of the middle one of the seven."""
    return energies(graph, frames, width=WIDTH, first=3 * 80, floor=-13.0, scale=scale)


def offline_logits(graph: Graph, frames: Value) -> Value:
    """Stacked frames (N, T, 560) of a whole sentence → logits (N, T, 1 + letters)."""
    heard = levels(graph, frames)
    nothing = graph.op("Mul", graph.slice(heard, 0, 1, 1), graph.floats(0.0))
    return onsets(graph, heard, nothing)
