"""Synthesis with espeak-ng: intelligible and robotic, several hundred times faster than speech."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from app.audio.pcm import Int16
from app.core.errors import UnknownVoice
from app.core.speech import Mark, Utterance
from app.engines.base import Piece, SynthesizerCapabilities
from app.engines.embedded.espeak import Speech, espeak
from app.engines.embedded.voices import BY_NAME, PRESETS, EspeakVoice

NOTICE: Final = "for trying out: intelligible, robotic"

_PIECE_MS: Final = 400

_MAX_PART: Final = 200
"""Characters given to the library in one call, which cannot be cancelled: up to a minute of audio
in some 50 ms. Sentences are hardly ever longer."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class EspeakSynthesizer:
    """An :class:`app.engines.base.Synthesizer`.

    Raises:
        EngineNotUsable: libespeak-ng cannot be loaded.
    """

    def __init__(self) -> None:
        self._espeak = espeak()
        self._capabilities = SynthesizerCapabilities(
            sample_rate=self._espeak.sample_rate,
            languages=tuple(dict.fromkeys(preset.voice.language for preset in PRESETS)),
            voices=tuple(preset.voice for preset in PRESETS),
            marks=True,
            ms_per_character=0.5,
            notice=NOTICE,
        )

    @property
    def capabilities(self) -> SynthesizerCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        """Speak, a part of at most 200 characters at a time. A text with nothing to say has no
        piece. The marks are of the characters at which a word begins (in Chinese, nearly all)."""
        preset = BY_NAME.get(utterance.voice)
        if preset is None:
            raise UnknownVoice
        # One for one, so that the marks keep counting the text's own characters.
        return self._speak(_CONTROL.sub(" ", utterance.text), preset)

    def _speak(self, text: str, preset: EspeakVoice) -> Iterator[Piece]:
        voice = preset.name_for(text)
        start_ms = 0
        samples_before = 0
        for first, part in _parts(text):
            speech = self._espeak.speak(part, voice)
            if not speech.words:
                continue  # punctuation and spaces: nothing but the pause at its end
            marks = _marks(speech, first, start_ms, self._duration_ms(speech.samples.size))
            yield from self._pieces(speech.samples, marks, start_ms)
            samples_before += speech.samples.size
            start_ms = self._duration_ms(samples_before)

    def _pieces(self, samples: Int16, marks: list[Mark], start_ms: int) -> Iterator[Piece]:
        size = self._espeak.sample_rate * _PIECE_MS // 1000
        for index, first in enumerate(range(0, samples.size, size)):
            from_ms = start_ms + index * _PIECE_MS
            last = first + size >= samples.size
            until_ms = None if last else from_ms + _PIECE_MS
            yield Piece(
                samples=samples[first : first + size],
                marks=tuple(
                    mark
                    for mark in marks
                    if from_ms <= mark.start_ms and (until_ms is None or mark.start_ms < until_ms)
                ),
            )

    def _duration_ms(self, samples: int) -> int:
        return samples * 1000 // self._espeak.sample_rate


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """(start, part): the text in parts of at most ``_MAX_PART`` characters, cut after a space or
    punctuation where there is one in the second half."""
    start = 0
    while len(text) - start > _MAX_PART:
        end = start + _MAX_PART
        cut = next((i for i in range(end, end - _MAX_PART // 2, -1) if _may_cut(text, i)), end)
        yield start, text[start:cut]
        start = cut
    yield start, text[start:]


def _may_cut(text: str, place: int) -> bool:
    before, after = text[place - 1], text[place]
    # Not after the point of 3.14 or inside a URL.
    return before.isspace() or before in "。！？；，、" or (before in ".!?;," and after.isspace())


def _marks(speech: Speech, first: int, start_ms: int, duration_ms: int) -> list[Mark]:
    """One mark per place in the text, ascending. The library reports a place again for every
    word of an expanded number, and may place the last one at the very end of the audio."""
    marks: list[Mark] = []
    place = -1
    for word in speech.words:
        if word.position > place and word.start_ms < duration_ms:
            place = word.position
            marks.append(Mark(first + place, start_ms + word.start_ms))
    return marks
