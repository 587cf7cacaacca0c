"""Paraformer, streaming (encoder and decoder) and offline.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, online-paraformer-model.cc,
online-recognizer-paraformer-impl.h, offline-paraformer-model.cc and
offline-paraformer-greedy-search-decoder.cc.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import sherpa_onnx

from tests.support.sherpa.graphs import (
    END,
    FLOAT,
    INT32,
    INT64,
    LETTER_COUNT,
    Graph,
    Shape,
    Value,
    made,
    onsets,
    write_tokens,
)
from tests.support.sherpa.lfr import METADATA, WIDTH, levels, offline_logits
from tests.support.sherpa.tones import LETTERS

_SPECIAL: Final = ("<blank>", "<s>", "</s>")
_END_OF_SENTENCE: Final = 2
_SYMBOLS: Final = (*_SPECIAL, *LETTERS, "<unk>")
_VOCABULARY: Final = len(_SYMBOLS)
_DIM: Final = 16
_BLOCKS: Final = 2
_KERNEL: Final = 11
_CACHE: Final[Shape] = ["N", _DIM, _KERNEL - 1]


def streaming(folder: Path) -> Path:
    """encoder.onnx, decoder.onnx and tokens.txt in a folder, which is returned."""
    write_tokens(made(folder) / "tokens.txt", _SYMBOLS)
    _write_encoder(folder / "encoder.onnx")
    _write_decoder(folder / "decoder.onnx")
    return folder


def offline(folder: Path, *, timestamps: bool = True) -> Path:
    """model.onnx and tokens.txt in a folder, which is returned; some exports have no times."""
    write_tokens(made(folder) / "tokens.txt", _SYMBOLS)
    graph = Graph()
    frames = graph.input("speech", FLOAT, ["N", "T", WIDTH])
    graph.input("speech_lengths", INT32, ["N"])
    logits = offline_logits(graph, frames)
    fires = _fires(graph, logits)
    graph.output(_fired(graph, logits, fires), "logits", FLOAT, ["N", "L", _VOCABULARY])
    count = graph.op("ReduceSum", fires, graph.integers(1), keepdims=0)
    graph.output(graph.op("Cast", count, to=INT32), "token_num", INT32, ["N"])
    if timestamps:
        _output_peaks(graph, fires)
    graph.save(folder / "model.onnx", {"vocab_size": _VOCABULARY, **METADATA})
    return folder


def load_streaming(folder: Path) -> sherpa_onnx.OnlineRecognizer:
    """The recogniser of a streaming model's folder."""
    return sherpa_onnx.OnlineRecognizer.from_paraformer(
        tokens=str(folder / "tokens.txt"),
        encoder=str(folder / "encoder.onnx"),
        decoder=str(folder / "decoder.onnx"),
        num_threads=1,
        enable_endpoint_detection=False,
    )


def load_offline(folder: Path) -> sherpa_onnx.OfflineRecognizer:
    """The recogniser of an offline model's folder."""
    return sherpa_onnx.OfflineRecognizer.from_paraformer(
        paraformer=str(folder / "model.onnx"), tokens=str(folder / "tokens.txt"), num_threads=1
    )


def _write_encoder(path: Path) -> None:
    """One weight a frame, 1 where a letter begins: the runtime sums the frames up to each 1."""
    graph = Graph()
    frames = graph.input("speech", FLOAT, ["N", "T", WIDTH])
    lengths = graph.input("speech_lengths", INT32, ["N"])
    # The runtime multiplies its features by the root of _DIM and adds positions of up to 1.
    heard = levels(graph, frames, scale=_DIM**-0.5)
    # The frames before the chunk come with it: its first one is only looked back at.
    logits = onsets(graph, heard, graph.slice(heard, 0, 1, 1))
    hidden = graph.pad(logits, [0, 0, _DIM - LETTER_COUNT - 1])
    graph.output(hidden, "enc", FLOAT, ["N", "T", _DIM])
    graph.output(lengths, "enc_len", INT32, ["N"])
    graph.output(_fires(graph, logits), "alphas", FLOAT, ["N", "T"])
    metadata = {
        "vocab_size": _VOCABULARY,
        "encoder_output_size": _DIM,
        "decoder_num_blocks": _BLOCKS,
        "decoder_kernel_size": _KERNEL,
    }
    graph.save(path, {**metadata, **METADATA})


def _write_decoder(path: Path) -> None:
    """The token of each summed frame, and states that hold the last frames."""
    graph = Graph()
    graph.input("enc", FLOAT, ["N", "T", _DIM])
    graph.input("enc_len", INT32, ["N"])
    frames = graph.input("acoustic_embeds", FLOAT, ["N", "L", _DIM])
    graph.input("acoustic_embeds_len", INT32, ["N"])
    caches = [graph.input(f"in_cache_{i}", FLOAT, _CACHE) for i in range(_BLOCKS)]
    weights = np.zeros((_DIM, _VOCABULARY), np.float32)
    letters = np.arange(LETTER_COUNT)
    weights[1 + letters, len(_SPECIAL) + letters] = 1.0
    never = [-9.0 if symbol in _SPECIAL else 0.0 for symbol in _SYMBOLS]
    scores = graph.op("MatMul", frames, graph.floats(weights))
    logits = graph.op("Add", scores, graph.floats(never))
    graph.output(logits, "logits", FLOAT, ["N", "L", _VOCABULARY])
    best = graph.op("ArgMax", logits, axis=2, keepdims=0)
    graph.output(best, "sample_ids", INT64, ["N", "L"])
    columns = graph.op("Transpose", frames, perm=[0, 2, 1])
    for index, cache in enumerate(caches):
        both = graph.op("Concat", cache, columns, axis=2)
        newest = graph.slice(both, 1 - _KERNEL, END, 2)
        graph.output(newest, f"out_cache_{index}", FLOAT, _CACHE)
    graph.save(path, {})


def _fires(graph: Graph, logits: Value) -> Value:
    """Logits (N, T, 1 + letters) → (N, T): 1 where a letter begins, else 0."""
    letters = graph.slice(logits, 1, END, 2)
    best = graph.op("ReduceMax", letters, axes=[2], keepdims=0)
    return graph.as_float(graph.op("Greater", best, graph.floats(0.0)))


def _fired(graph: Graph, logits: Value, fires: Value) -> Value:
    """The logits (N, L, symbols) of the frames that fire, in order, then of ends of sentence."""
    steps = graph.length(fires, 1)
    place = graph.as_float(graph.count(steps))
    order = graph.op("Sub", graph.op("Mul", fires, graph.floats(1e6)), place)
    index = graph.ops(2, "TopK", order, steps, axis=1)[1]
    index = graph.op("Unsqueeze", index, graph.integers(2))
    letters = graph.slice(graph.op("GatherND", logits, index, batch_dims=1), 1, END, 2)
    special = graph.op("Mul", graph.slice(letters, 0, len(_SPECIAL), 2), graph.floats(0.0))
    full = graph.pad(graph.op("Concat", special, letters, axis=2), [0, 0, 1], -99.0)
    fired = graph.op("GatherND", fires, index, batch_dims=1)
    silent = graph.op("Sub", graph.floats(1.0), graph.op("Unsqueeze", fired, graph.integers(2)))
    end = np.zeros(_VOCABULARY)
    end[_END_OF_SENTENCE] = 999.0
    return graph.op("Add", full, graph.op("Mul", silent, graph.floats(end)))


def _output_peaks(graph: Graph, fires: Value) -> None:
    """Where tokens begin on a grid of 20 ms; the runtime drops the last one, so one is added."""
    graph.output(graph.op("Tile", fires, graph.integers(1, 3)), "us_alphas", FLOAT, ["N", "T3"])
    finer = graph.pad(graph.op("Unsqueeze", fires, graph.integers(2)), [0, 0, 2])
    peaks = graph.pad(graph.op("Reshape", finer, graph.integers(0, -1)), [0, 1], 1.0)
    graph.output(peaks, "us_cif_peak", FLOAT, ["N", "T3 + 1"])
