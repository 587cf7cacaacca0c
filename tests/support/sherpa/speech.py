"""What the tiny synthesisers have in common: phones that are tones, a lexicon, and the sound.

What they speak the tiny recognisers hear. They use no noise: the same text gives the same sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import sherpa_onnx

from tests.support.sherpa.graphs import INT64, LETTER_COUNT, Graph, Value, made, write_tokens
from tests.support.sherpa.tones import GAP_MS, LETTERS, TONE_MS, frequency

_SOUNDS: Final = "abcdefgh"
"""The phone of each letter."""
PHONES: Final = ("_", *_SOUNDS, ",", ".", "!", "?", " ")
"""In the order of their numbers. Only those of letters sound."""
_WORDS: Final = {"hello": "a b", "world": "c d"}
_FLANK: Final = 12.0
"""One part in so many of a letter's time is its rise, and one its fall."""


def write_lexicon(folder: Path, *, with_tones: bool = False) -> None:
    """tokens.txt and lexicon.txt; Melo's lexicon has a tone for each phone."""
    write_tokens(made(folder) / "tokens.txt", PHONES)
    entries = {**dict(zip(LETTERS, _SOUNDS, strict=True)), **_WORDS}
    lines = []
    for word, phones in entries.items():
        marks = " 1" * len(phones.split()) if with_tones else ""
        lines.append(f"{word} {phones}{marks}\n")
    (folder / "lexicon.txt").write_text("".join(lines), "utf-8")


def waveform(
    graph: Graph, phones: Value, stretch: Value, *, rate: int, level: Value | None = None
) -> Value:
    """Numbers of phones (1, L) → sound (1, samples): a tone and a gap for each letter.

    ``stretch`` (1,) makes them longer, ``level`` (1,) louder.
    """
    heard = graph.op("Gather", graph.floats(_frequencies()), phones)
    sounding = graph.op("Greater", heard, graph.floats(0.0))
    flat, chosen = (graph.op("Reshape", one, graph.integers(-1)) for one in (heard, sounding))
    pitches = graph.op("Compress", flat, chosen, axis=0)
    per_letter = rate * (TONE_MS + GAP_MS) / 1000
    samples = graph.op("Cast", graph.op("Mul", stretch, graph.floats(per_letter)), to=INT64)
    times = graph.as_float(graph.count(samples))
    angles = graph.op("Mul", times, graph.floats(2 * np.pi / rate))
    column = graph.op("Unsqueeze", pitches, graph.integers(1))
    waves = graph.op("Sin", graph.op("Mul", column, angles))
    shape = _envelope(graph, graph.op("Div", times, graph.as_float(samples)))
    sound = graph.op("Mul", graph.op("Mul", waves, shape), graph.floats(0.3))
    if level is not None:
        sound = graph.op("Mul", sound, level)
    return graph.op("Reshape", sound, graph.integers(1, -1))


def synthesizer(model: sherpa_onnx.OfflineTtsModelConfig) -> sherpa_onnx.OfflineTts:
    """The synthesiser of a configuration, on one thread."""
    model.num_threads = 1
    config = sherpa_onnx.OfflineTtsConfig(model=model)
    assert config.validate()
    return sherpa_onnx.OfflineTts(config)


def _frequencies() -> list[float]:
    """Hz by phone, 0 for what does not sound."""
    found = [0.0] * len(PHONES)
    for letter in range(LETTER_COUNT):
        found[PHONES.index(_SOUNDS[letter])] = frequency(letter)
    return found


def _envelope(graph: Graph, part: Value) -> Value:
    """Loudness by the part of a letter's time that has passed, 0 to 1."""
    tone = graph.floats(TONE_MS / (TONE_MS + GAP_MS))
    flanks = (part, graph.op("Sub", tone, part))
    zero, one, steep = graph.floats(0.0), graph.floats(1.0), graph.floats(_FLANK)
    rise, fall = (graph.op("Clip", graph.op("Mul", at, steep), zero, one) for at in flanks)
    return graph.op("Mul", rise, fall)
