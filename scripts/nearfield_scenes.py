"""What the near-field gate does in scenes that are made from the examples: the table in
docs/nearfield_filter.md.

Usage: python scripts/nearfield_scenes.py

Near speech is ``examples/three_sentences.wav`` at the level that its scene has; the background is
noise and far voices (the same examples in a room's echo, turned backwards), loudest where several
speak at once. Made sound is no substitute for a recording of the real place; it shows how
thresholds compare.
"""

from __future__ import annotations

import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.audio.gate import BLOCK_SAMPLES, SAMPLE_RATE
from app.audio.levels import Verdict, measure
from app.audio.threshold import suggest

Float64 = NDArray[np.float64]

EXAMPLES: Final = Path(__file__).resolve().parents[1] / "examples"
THRESHOLDS: Final = (0.005, 0.01, 0.02, 0.05)
HOLD_MS: Final = 800
ECHO_S: Final = 0.5
SPOKEN: Final = 0.1
"""Share of the median RMS from which on a block of the clean speech counts as spoken."""


@dataclass(frozen=True, slots=True)
class Scene:
    """``speech``: median RMS of the near speaker; ``noise``: RMS of steady noise; ``voices``: how
    many speak far away, ``far``: their RMS together. Full scale is 1."""

    name: str
    speech: float
    noise: float
    voices: int
    far: float


SCENES: Final = (
    Scene("quiet room, phone in the hand", 0.05, 0.0005, 0, 0.0),
    Scene("office, a colleague across the room", 0.05, 0.001, 1, 0.004),
    Scene("call centre, headset", 0.1, 0.001, 8, 0.006),
    Scene("shop or hall, phone in the hand", 0.05, 0.003, 12, 0.012),
    Scene("device on a table, echo cancelled", 0.02, 0.0005, 1, 0.002),
)


def example(name: str) -> Float64:
    """One of the spoken examples, full scale 1."""
    with wave.open(str(EXAMPLES / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768


def block_rms(samples: Float64) -> Float64:
    """Of each whole block."""
    whole = samples[: samples.size // BLOCK_SAMPLES * BLOCK_SAMPLES]
    rms: Float64 = np.sqrt(np.mean(whole.reshape(-1, BLOCK_SAMPLES) ** 2, axis=1))
    return rms


def near_speech(scene: Scene) -> tuple[Float64, NDArray[np.bool_]]:
    """The speaker alone, and in which blocks there is speech."""
    clean = example("three_sentences")
    rms = block_rms(clean)
    median = float(np.median(rms[rms > 0.01]))
    return clean * scene.speech / median, rms >= SPOKEN * median


def background(scene: Scene, size: int, random: np.random.Generator) -> Float64:
    """Everything else."""
    sound = random.normal(0, scene.noise, size)
    if scene.voices:
        echo = random.normal(0, 1, int(ECHO_S * SAMPLE_RATE))
        echo *= np.exp(-7 * np.arange(echo.size) / echo.size)
        talk = np.concatenate([example("music"), example("hello")])[::-1]
        far = np.zeros(size)
        for _ in range(scene.voices):
            far += np.resize(np.roll(talk, int(random.integers(talk.size))), size)
        far = np.convolve(far, echo)[:size]
        sound += far * scene.far / np.sqrt(np.mean(far**2))
    return sound


def main() -> None:
    """Print a row for each scene: for each threshold, the share of spoken blocks that pass, and
    the share of the background that passes with nobody near; and what ``levels`` suggests."""
    random = np.random.default_rng(4)
    print("| scene | speech, background | " + " | ".join(map(str, THRESHOLDS)) + " | suggested |")
    print("|---|---|" + "---|" * (len(THRESHOLDS) + 1))
    for scene in SCENES:
        speech, spoken = near_speech(scene)
        around = background(scene, speech.size, random)
        mixed, alone = _samples(speech + around), _samples(around)
        cells = []
        for threshold in THRESHOLDS:
            found = measure([mixed], threshold, HOLD_MS)
            passed = np.array([each is not Verdict.GATED for each in found.verdicts])
            heard = passed[: spoken.size][spoken].mean()
            far = measure([alone], threshold, HOLD_MS)
            leaked = len(far.passed) / len(far.verdicts)
            cells.append(f"{heard:.0%}, {leaked:.0%}")
        level = float(np.percentile(block_rms(around), 95))
        best = suggest(measure([mixed], 0.01, HOLD_MS)).threshold
        row = [scene.name, f"{scene.speech:g}, {level:.2g}", *cells, f"{best or '–'}"]
        print("| " + " | ".join(row) + " |")


def _samples(sound: Float64) -> NDArray[np.int16]:
    return np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)


if __name__ == "__main__":
    main()
