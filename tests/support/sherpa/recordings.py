"""Recordings of voices, as an owner puts them into VOICES_DIR."""

from __future__ import annotations

import wave
from pathlib import Path

from app.audio.pcm import to_int16
from tests.support.sherpa.tones import LETTERS, RATE, spoken

_SHORTEST: int = 4
"""Letters: more than a second."""


def write_recording(folder: Path, name: str, text: str) -> None:
    """NAME.wav, which speaks the text's letters and then 你 until it is long enough, and
    NAME.txt."""
    folder.mkdir(exist_ok=True)
    letters = "".join(letter for letter in text if letter in LETTERS)
    with wave.open(str(folder / f"{name}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(to_int16(spoken(letters.ljust(_SHORTEST, LETTERS[0]))).tobytes())
    (folder / f"{name}.txt").write_text(text, "utf-8")
