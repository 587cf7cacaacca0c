"""Matcha with a vocoder of HiFi-GAN's kind.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, offline-tts-matcha-model.cc, vocoder.cc for the
vocoder's ``model_type``. The runtime 2.0.1 also wants the vocoder's ``sample_rate`` to be the
model's, and ends the process where it is not. The "mel" here is the sound in pieces: the vocoder
puts them together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sherpa_onnx

from tests.support.sherpa.graphs import FLOAT, INT64, Graph
from tests.support.sherpa.speech import synthesizer, waveform, write_lexicon

RATE: Final = 16_000
_PIECE: Final = 200
"""Samples."""


def matcha(folder: Path) -> Path:
    """model-steps-3.onnx, vocoder.onnx, lexicon.txt, tokens.txt in a folder, which is returned."""
    write_lexicon(folder)
    graph = Graph()
    phones = graph.input("x", INT64, ["N", "L"])
    graph.input("x_length", INT64, ["N"])
    graph.input("noise_scale", FLOAT, [1])
    stretch = graph.input("length_scale", FLOAT, [1])
    sound = waveform(graph, phones, stretch, rate=RATE)
    piece = graph.integers(_PIECE)
    whole = graph.op("Mul", graph.op("Div", graph.length(sound, 1), piece), piece)
    even = graph.op("Slice", sound, graph.integers(0), whole, graph.integers(1))
    pieces = graph.op("Reshape", even, graph.integers(1, -1, _PIECE))
    mel = graph.op("Transpose", pieces, perm=[0, 2, 1])
    graph.output(mel, "mel", FLOAT, ["N", _PIECE, "F"])
    metadata = {
        "sample_rate": RATE,
        "n_speakers": 1,
        "jieba": 1,
        "has_espeak": 0,
        "use_eos_bos": 0,
        "pad_id": 0,
        "voice": "zh en-us",
    }
    graph.save(folder / "model-steps-3.onnx", metadata)
    _write_vocoder(folder / "vocoder.onnx")
    return folder


def load_matcha(folder: Path) -> sherpa_onnx.OfflineTts:
    """The synthesiser of a folder."""
    model = sherpa_onnx.OfflineTtsModelConfig()
    model.matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
        acoustic_model=str(folder / "model-steps-3.onnx"),
        vocoder=str(folder / "vocoder.onnx"),
        lexicon=str(folder / "lexicon.txt"),
        tokens=str(folder / "tokens.txt"),
    )
    return synthesizer(model)


def _write_vocoder(path: Path) -> None:
    graph = Graph()
    mel = graph.input("mel", FLOAT, ["N", _PIECE, "F"])
    pieces = graph.op("Transpose", mel, perm=[0, 2, 1])
    sound = graph.op("Reshape", pieces, graph.integers(1, 1, -1))
    graph.output(sound, "audio", FLOAT, ["N", 1, "S"])
    graph.save(path, {"model_type": "hifigan", "sample_rate": RATE})
