"""The fake synthesiser's audio follows from its text."""

from __future__ import annotations

import numpy as np
import pytest

from app.core.errors import UnknownVoice
from app.core.speech import Mark, Utterance
from app.engines.fake.options import FakeOptions
from app.engines.fake.synthesizer import FakeSynthesizer


def speak(text: str, voice: str = "中文女") -> list[tuple[int, tuple[Mark, ...]]]:
    pieces = FakeSynthesizer(FakeOptions()).synthesize(Utterance(text=text, voice=voice))
    return [(piece.samples.size, piece.marks) for piece in pieces]


def test_length_pieces_and_marks() -> None:
    assert speak("你好吗") == [
        (9_600, (Mark(0, 0), Mark(1, 200))),
        (4_800, (Mark(2, 400),)),
    ]
    assert speak("") == []


@pytest.mark.parametrize("text", ["a", "A tone", "你好，世界", "2026 年"])
def test_the_pitch_tells_the_first_character(text: str) -> None:
    pieces = FakeSynthesizer(FakeOptions()).synthesize(Utterance(text=text * 4, voice="any name"))
    samples = np.concatenate([piece.samples for piece in pieces]).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples))
    loudest = np.argmax(spectrum) * 24_000 / samples.size
    assert loudest == pytest.approx(200 + ord(text[0]) % 50 * 20, abs=0.1)
    # A pure tone: one break between the pieces would spread it.
    assert spectrum.max() ** 2 == pytest.approx((spectrum**2).sum(), rel=1e-3)
    assert np.abs(samples).max() == pytest.approx(0.3 * 32_767, rel=0.02)


def test_only_nobody_is_unknown() -> None:
    assert speak("a", "whoever")
    with pytest.raises(UnknownVoice):
        speak("a", "nobody")


def test_the_delay_is_paid_for_each_piece_before_it_comes() -> None:
    slept: list[float] = []
    synthesizer = FakeSynthesizer(FakeOptions(tts_delay_ms=30), sleep=slept.append)
    speaking = synthesizer.synthesize(Utterance(text="12345", voice="x"))
    counts = []
    for _ in speaking:
        counts.append(len(slept))
    assert counts == [1, 2, 3]
    assert slept == [0.03] * 3


def test_its_audio_cannot_be_changed_by_one_caller_for_the_others() -> None:
    (piece,) = FakeSynthesizer(FakeOptions()).synthesize(Utterance(text="ab", voice="x"))
    with pytest.raises(ValueError, match="read-only"):
        piece.samples[:] = 0
