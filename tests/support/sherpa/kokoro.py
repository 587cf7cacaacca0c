"""Kokoro of two voices, whose names are in the model.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, offline-tts-kokoro-model.cc. voices.bin has a
style vector for each voice and each number of tokens: float32 of the shape in ``style_dim`` for
each voice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import sherpa_onnx

from tests.support.sherpa.graphs import FLOAT, INT64, Graph
from tests.support.sherpa.speech import synthesizer, waveform, write_lexicon

RATE: Final = 24_000
VOICES: Final = {"one": 1.0, "two": 0.5}
"""How loud each is."""
_LENGTHS: Final = 510
_STYLE: Final = 256


def kokoro(folder: Path) -> Path:
    """model.onnx, voices.bin, lexicon.txt and tokens.txt in a folder, which is returned."""
    write_lexicon(folder)
    styles = np.zeros((len(VOICES), _LENGTHS, _STYLE), np.float32)
    styles[:, :, 0] = np.array(list(VOICES.values()))[:, None]
    styles.tofile(folder / "voices.bin")
    graph = Graph()
    phones = graph.input("tokens", INT64, [1, "L"])
    style = graph.input("style", FLOAT, [1, _STYLE])
    speed = graph.input("speed", FLOAT, [1])
    level = graph.op("Reshape", graph.slice(style, 0, 1, 1), graph.integers(1))
    stretch = graph.op("Div", graph.floats([1.0]), speed)
    sound = waveform(graph, phones, stretch, rate=RATE, level=level)
    graph.output(graph.op("Reshape", sound, graph.integers(-1)), "audio", FLOAT, ["S"])
    metadata = {
        "version": 2,
        "sample_rate": RATE,
        "n_speakers": len(VOICES),
        "speaker_names": ",".join(VOICES),
        "style_dim": f"{_LENGTHS},1,{_STYLE}",
        "has_espeak": 1,
        "voice": "en-us",
    }
    graph.save(folder / "model.onnx", metadata)
    return folder


def load_kokoro(folder: Path) -> sherpa_onnx.OfflineTts:
    """The synthesiser of a folder."""
    model = sherpa_onnx.OfflineTtsModelConfig()
    model.kokoro = sherpa_onnx.OfflineTtsKokoroModelConfig(
        model=str(folder / "model.onnx"),
        voices=str(folder / "voices.bin"),
        tokens=str(folder / "tokens.txt"),
        lexicon=str(folder / "lexicon.txt"),
    )
    return synthesizer(model)
