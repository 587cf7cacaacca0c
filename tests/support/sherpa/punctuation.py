"""ct-transformer: marks behind words, one row of logits a word.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, offline-ct-transformer-model.cc; words and marks
are in the metadata, there is no tokens.txt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import sherpa_onnx

from tests.support.sherpa.graphs import FLOAT, INT32, Graph, made
from tests.support.sherpa.tones import LETTERS

_MARKS: Final = ("<unk>", "_", "，", "。", "？", "、")
_BEHIND: Final = {"吗": "？", "了": "，", "和": "、", "吧": "。"}
_WORDS: Final = ("<unk>", *_BEHIND, *LETTERS, "hello", "world")


def ct_transformer(folder: Path) -> Path:
    """model.onnx in a folder, which is returned: ？ follows 吗, ， 了, 、 和 and 。 吧."""
    table = np.zeros((len(_WORDS), len(_MARKS)), np.float32)
    for row, word in zip(table, _WORDS, strict=True):
        row[_MARKS.index(_BEHIND.get(word, "_"))] = 5.0
    graph = Graph()
    words = graph.input("inputs", INT32, ["N", "T"])
    graph.input("text_lengths", INT32, ["N"])
    logits = graph.op("Gather", graph.floats(table), words)
    graph.output(logits, "logits", FLOAT, ["N", "T", len(_MARKS)])
    metadata = {
        "tokens": "|".join(_WORDS),
        "vocab_size": len(_WORDS),
        "punctuations": "|".join(_MARKS),
        "unk_symbol": "<unk>",
    }
    graph.save(made(folder) / "model.onnx", metadata)
    return folder


def load_punctuation(folder: Path) -> sherpa_onnx.OfflinePunctuation:
    """The punctuator of a folder."""
    model = sherpa_onnx.OfflinePunctuationModelConfig(
        ct_transformer=str(folder / "model.onnx"), num_threads=1
    )
    return sherpa_onnx.OfflinePunctuation(sherpa_onnx.OfflinePunctuationConfig(model=model))
