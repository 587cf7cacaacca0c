"""VITS: Melo of one voice, and one with a lexicon and several voices.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, offline-tts-vits-model.cc. ``comment`` tells
Melo, whose input has tones too; ``jieba`` splits Chinese words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sherpa_onnx

from tests.support.sherpa.graphs import FLOAT, INT64, Graph, Value
from tests.support.sherpa.speech import synthesizer, waveform, write_lexicon

MELO_RATE: Final = 44_100
VITS_RATE: Final = 16_000
VITS_VOICES: Final = 3


def melo(folder: Path) -> Path:
    """model.onnx, lexicon.txt and tokens.txt in a folder, which is returned."""
    write_lexicon(folder, with_tones=True)
    graph = Graph()
    phones = _phones(graph)
    graph.input("tones", INT64, ["N", "L"])
    graph.input("sid", INT64, [1])
    stretch = _scales(graph)
    _output(graph, waveform(graph, phones, stretch, rate=MELO_RATE))
    metadata = {
        "comment": "melo",
        "version": 2,
        "sample_rate": MELO_RATE,
        "n_speakers": 1,
        "speaker_id": 1,
        "add_blank": 1,
        "jieba": 1,
        "language": "Chinese + English",
    }
    graph.save(folder / "model.onnx", metadata)
    return folder


def vits(folder: Path) -> Path:
    """The same files; voice n is 1 / (n + 1) as loud as voice 0."""
    write_lexicon(folder)
    graph = Graph()
    phones = _phones(graph)
    stretch = _scales(graph)
    voice = graph.as_float(graph.input("sid", INT64, [1]))
    one = graph.floats(1.0)
    level = graph.op("Div", one, graph.op("Add", voice, one))
    _output(graph, waveform(graph, phones, stretch, rate=VITS_RATE, level=level))
    metadata = {
        "comment": "tiny",
        "sample_rate": VITS_RATE,
        "n_speakers": VITS_VOICES,
        "add_blank": 0,
        "jieba": 1,
        "language": "Chinese",
        "punctuation": ", . ! ?",
    }
    graph.save(folder / "model.onnx", metadata)
    return folder


def load_vits(folder: Path) -> sherpa_onnx.OfflineTts:
    """The synthesiser of either folder."""
    model = sherpa_onnx.OfflineTtsModelConfig()
    model.vits = sherpa_onnx.OfflineTtsVitsModelConfig(
        model=str(folder / "model.onnx"),
        lexicon=str(folder / "lexicon.txt"),
        tokens=str(folder / "tokens.txt"),
    )
    return synthesizer(model)


def _phones(graph: Graph) -> Value:
    phones = graph.input("x", INT64, ["N", "L"])
    graph.input("x_lengths", INT64, ["N"])
    return phones


def _scales(graph: Graph) -> Value:
    """Three numbers of which the second one is used: how long a phone is."""
    graph.input("noise_scale", FLOAT, [1])
    stretch = graph.input("length_scale", FLOAT, [1])
    graph.input("noise_scale_w", FLOAT, [1])
    return stretch


def _output(graph: Graph, sound: Value) -> None:
    channel = graph.op("Unsqueeze", sound, graph.integers(1))
    graph.output(channel, "y", FLOAT, ["N", 1, "S"])
