"""SenseVoice: CTC with four frames of tags in front: language, emotion, event, figures.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, offline-sense-voice-model.cc and
offline-recognizer-sense-voice-impl.h. It hears every language that it is told as the one of the
tag; with figures ("itn") a sentence ends with a full stop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import sherpa_onnx

from tests.support.sherpa.graphs import (
    FLOAT,
    INT32,
    INT64,
    Graph,
    Metadata,
    Value,
    made,
    write_tokens,
)
from tests.support.sherpa.lfr import METADATA, WIDTH, offline_logits
from tests.support.sherpa.tones import LETTERS

LANGUAGES: Final = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}
"""The numbers of the published model, as in its metadata."""
_WITH_ITN: Final = 14
_WITHOUT_ITN: Final = 15
_LANGUAGE_TAGS: Final = ("<|zh|>", "<|en|>", "<|yue|>", "<|ja|>", "<|ko|>")
_EMOTION: Final = "<|HAPPY|>"
_EVENT: Final = "<|Speech|>"
_TAGS: Final = (*_LANGUAGE_TAGS, _EMOTION, _EVENT, "<|withitn|>", "<|woitn|>")
_SYMBOLS: Final = ("<blank>", *LETTERS, *_TAGS, "。", "<unk>")
_VOCABULARY: Final = len(_SYMBOLS)


def sense_voice(folder: Path) -> Path:
    """model.onnx and tokens.txt in a folder, which is returned."""
    write_tokens(made(folder) / "tokens.txt", _SYMBOLS)
    graph = Graph()
    frames = graph.input("x", FLOAT, ["N", "T", WIDTH])
    lengths = graph.input("x_length", INT32, ["N"])
    language = graph.input("language", INT32, ["N"])
    figures = graph.input("text_norm", INT32, ["N"])
    letters = offline_logits(graph, frames)
    text = graph.pad(letters, [0, 0, _VOCABULARY - len(LETTERS) - 1], -99.0)
    text = _stopped(graph, text, lengths, figures)
    tags = graph.floats(_tag_logits())
    row = graph.integers(1)
    first = graph.op("Unsqueeze", graph.op("Gather", tags, language), row)
    last = graph.op("Unsqueeze", graph.op("Gather", tags, figures), row)
    size = graph.op("Concat", graph.length(frames, 0), graph.integers(2, _VOCABULARY), axis=0)
    middle = graph.op("Expand", graph.floats([[_only(_EMOTION), _only(_EVENT)]]), size)
    logits = graph.op("Concat", first, middle, last, text, axis=1)
    graph.output(logits, "logits", FLOAT, ["N", "T + 4", _VOCABULARY])
    graph.save(folder / "model.onnx", _metadata())
    return folder


def load_sense_voice(
    folder: Path, *, language: str = "auto", figures: bool = False
) -> sherpa_onnx.OfflineRecognizer:
    """The recogniser of a folder; figures can be chosen for a stream, the language cannot."""
    return sherpa_onnx.OfflineRecognizer.from_sense_voice(
        model=str(folder / "model.onnx"),
        tokens=str(folder / "tokens.txt"),
        language=language,
        use_itn=figures,
        num_threads=1,
    )


def _metadata() -> Metadata:
    """A comment with "Nano" would tell of another kind."""
    return {
        "comment": "tiny",
        "vocab_size": _VOCABULARY,
        "blank_id": 0,
        "normalize_samples": 0,
        "with_itn": _WITH_ITN,
        "without_itn": _WITHOUT_ITN,
        **{f"lang_{name}": number for name, number in LANGUAGES.items()},
        **METADATA,
    }


def _only(symbol: str) -> list[float]:
    """Logits that say one symbol."""
    return [9.0 if one == symbol else -99.0 for one in _SYMBOLS]


def _tag_logits() -> list[list[float]]:
    """For each number of a language or of a way to write figures, the tag that it gives."""
    tags = {number: f"<|{name}|>" for name, number in LANGUAGES.items()}
    tags |= {LANGUAGES["auto"]: "<|zh|>", _WITH_ITN: "<|withitn|>", _WITHOUT_ITN: "<|woitn|>"}
    return [_only(tags.get(number, "<unk>")) for number in range(max(tags) + 1)]


def _stopped(graph: Graph, logits: Value, lengths: Value, figures: Value) -> Value:
    """With figures, the last frame of each row says 。, whatever padding follows."""
    place = graph.op("Unsqueeze", graph.count(graph.length(logits, 1)), graph.integers(0))
    final = graph.op("Sub", graph.op("Cast", lengths, to=INT64), graph.integers(1))
    at_end = graph.op("Equal", place, graph.op("Unsqueeze", final, graph.integers(1)))
    wanted = graph.op("Equal", figures, graph.constant(np.array(_WITH_ITN, np.int32)))
    stops = graph.op("And", at_end, graph.op("Unsqueeze", wanted, graph.integers(1)))
    weight = graph.op("Unsqueeze", graph.as_float(stops), graph.integers(2))
    more = [999.0 if symbol == "。" else 0.0 for symbol in _SYMBOLS]
    return graph.op("Add", logits, graph.op("Mul", weight, graph.floats(more)))
