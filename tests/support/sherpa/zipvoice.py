"""ZipVoice, which speaks in the voice of a reference, with a Vocos vocoder.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, offline-tts-zipvoice-model.cc and
vocos-vocoder.cc. Channel k of the "mel" is the tone of letter k; the reference is read, and
changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import sherpa_onnx

from app.audio.pcm import Float32
from tests.support.sherpa.graphs import FLOAT, INT64, LETTER_COUNT, Graph, Shape, Value
from tests.support.sherpa.speech import PHONES, synthesizer, write_lexicon
from tests.support.sherpa.tones import RATE as REFERENCE_RATE
from tests.support.sherpa.tones import frequency

RATE: Final = 24_000
_CHANNELS: Final = 100
_HOP: Final = 256
"""Samples a frame."""
_WINDOW: Final = 1024
_BINS: Final = _WINDOW // 2 + 1
_FRAMES: Final = 23
"""Frames a letter: 245 ms."""
_TONE_FRAMES: Final = slice(2, 15)
_FEATURES: Final[Shape] = [1, "T", _CHANNELS]


def zipvoice(folder: Path) -> Path:
    """encoder.onnx, decoder.onnx, vocoder.onnx, lexicon.txt, tokens.txt in a folder, returned."""
    write_lexicon(folder)
    _write_encoder(folder / "encoder.onnx")
    _write_decoder(folder / "decoder.onnx")
    _write_vocos(folder / "vocoder.onnx")
    return folder


def load_zipvoice(folder: Path) -> sherpa_onnx.OfflineTts:
    """The synthesiser of a folder."""
    model = sherpa_onnx.OfflineTtsModelConfig()
    model.zipvoice = sherpa_onnx.OfflineTtsZipvoiceModelConfig(
        tokens=str(folder / "tokens.txt"),
        encoder=str(folder / "encoder.onnx"),
        decoder=str(folder / "decoder.onnx"),
        vocoder=str(folder / "vocoder.onnx"),
        lexicon=str(folder / "lexicon.txt"),
    )
    return synthesizer(model)


def in_voice_of(samples: Float32, text: str, *, steps: int = 4) -> sherpa_onnx.GenerationConfig:
    """How to speak like a sound of 16 kHz, whose text is needed too."""
    config = sherpa_onnx.GenerationConfig()
    config.reference_audio = samples.tolist()
    config.reference_sample_rate = REFERENCE_RATE
    config.reference_text = text
    config.num_steps = steps
    return config


def _write_encoder(path: Path) -> None:
    """The text's features behind as many empty frames as the reference has."""
    letters = np.zeros((len(PHONES), _FRAMES, _CHANNELS), np.float32)
    for letter in range(LETTER_COUNT):
        letters[1 + letter, _TONE_FRAMES, letter] = 0.1
    graph = Graph()
    phones = graph.input("tokens", INT64, [1, "L"])
    graph.input("prompt_tokens", INT64, [1, "P"])
    skipped = graph.input("prompt_features_len", INT64, [])
    graph.input("speed", FLOAT, [])
    rows = graph.op("Gather", graph.floats(letters), phones)
    text = graph.op("Reshape", rows, graph.integers(1, -1, _CHANNELS))
    frames = graph.op("Reshape", skipped, graph.integers(1))
    size = graph.op("Concat", graph.integers(1), frames, graph.integers(_CHANNELS), axis=0)
    start = graph.op("Expand", graph.floats(0.0), size)
    condition = graph.op("Concat", start, text, axis=1)
    graph.output(condition, "text_condition", FLOAT, _FEATURES)
    graph.save(path, {"use_espeak": 0})


def _write_decoder(path: Path) -> None:
    """The flow that leads from noise straight to the text's features, in any number of steps."""
    graph = Graph()
    time = graph.input("t", FLOAT, [])
    now = graph.input("x", FLOAT, _FEATURES)
    goal = graph.input("text_condition", FLOAT, _FEATURES)
    graph.input("speech_condition", FLOAT, _FEATURES)
    graph.input("guidance_scale", FLOAT, [])
    left = graph.op("Sub", graph.floats(1.0), time)
    velocity = graph.op("Div", graph.op("Sub", goal, now), left)
    graph.output(velocity, "v", FLOAT, _FEATURES)
    metadata = {
        "version": 1,
        "feat_dim": _CHANNELS,
        "sample_rate": RATE,
        "n_fft": _WINDOW,
        "hop_length": _HOP,
        "window_length": _WINDOW,
        "num_mels": _CHANNELS,
    }
    graph.save(path, metadata)


def _write_vocos(path: Path) -> None:
    """ "mel" (1, channels, F) → magnitude, and cosine and sine of the phase, (1, bins, F) each.

    The runtime does the inverse Fourier transform.
    """
    weights = np.zeros((_BINS, _CHANNELS), np.float32)
    for letter in range(LETTER_COUNT):
        # An amplitude of 0.3 under a Hann window; the runtime divides features by 0.1 first.
        weights[round(frequency(letter) * _WINDOW / RATE), letter] = 0.3 * _WINDOW / 4
    graph = Graph()
    mel = graph.input("mels", FLOAT, ["N", _CHANNELS, "F"])
    phase = _phases(graph, graph.as_float(graph.count(graph.length(mel, 2))))
    magnitude = graph.op("MatMul", graph.floats(weights), mel)
    values = {"mag": magnitude, "x": graph.op("Cos", phase), "y": graph.op("Sin", phase)}
    for name, value in values.items():
        graph.output(value, name, FLOAT, ["N", _BINS, "F"])
    metadata = {
        "model_type": "vocos",
        "sample_rate": RATE,
        "n_fft": _WINDOW,
        "hop_length": _HOP,
        "win_length": _WINDOW,
        "center": 1,
        "normalized": 0,
        "window_type": "hann",
        "pad_mode": "reflect",
    }
    graph.save(path, metadata)


def _phases(graph: Graph, frames: Value) -> Value:
    """Frames' numbers (F,) → (1, bins, F): a bin's sine goes on from one frame to the next."""
    turn = np.arange(_BINS)[:, None] * _HOP % _WINDOW / _WINDOW * 2 * np.pi
    return graph.op("Unsqueeze", graph.op("Mul", graph.floats(turn), frames), graph.integers(0))
