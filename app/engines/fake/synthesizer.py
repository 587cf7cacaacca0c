"""The fake synthesiser: a sine whose pitch tells the first character of the text, and whose length
tells how many there are, so that mixed-up, short or wrong-rate audio shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

import numpy as np

from app.audio.pcm import Int16
from app.core.errors import UnknownVoice
from app.core.speech import Mark, Utterance, Voice
from app.engines.base import Piece, SynthesizerCapabilities
from app.engines.fake.options import FakeOptions

SAMPLE_RATE: Final = 24_000
CHARACTER_MS: Final = 200
PIECE_MS: Final = 400
AMPLITUDE: Final = 0.3

_CHARACTER: Final = SAMPLE_RATE * CHARACTER_MS // 1000
_PIECE: Final = SAMPLE_RATE * PIECE_MS // 1000
_CHARACTERS_PER_PIECE: Final = PIECE_MS // CHARACTER_MS

_VOICES: Final = (
    Voice(name="中文女", language="zh-CN", gender="female"),
    Voice(name="中文男", language="zh-CN", gender="male"),
    Voice(name="日语男", language="ja-JP", gender="male"),
    Voice(name="粤语女", language="zh-HK", gender="female"),
    Voice(name="英文女", language="en-US", gender="female"),
    Voice(name="英文男", language="en-US", gender="male"),
    Voice(name="韩语女", language="ko-KR", gender="female"),
)


def frequency(text: str) -> int:
    """The pitch (Hz) at which ``text`` is spoken."""
    return 200 + ord(text[0]) % 50 * 20


@lru_cache(maxsize=50)
def _sine(frequency_hz: int) -> Int16:
    """One piece of the tone. All frequencies are multiples of 20 Hz, so every piece has whole
    periods: the same one repeated is a tone without a break."""
    phase = 2 * np.pi * frequency_hz / SAMPLE_RATE * np.arange(_PIECE)
    tone: Int16 = np.rint(AMPLITUDE * 32767 * np.sin(phase)).astype(np.int16)
    tone.flags.writeable = False  # it is shared
    return tone


class FakeSynthesizer:
    """An :class:`app.engines.base.Synthesizer` of known cost.

    Every name is a voice, except ``nobody``. ``sleep`` takes seconds; it is what a piece costs.
    """

    def __init__(self, options: FakeOptions, sleep: Callable[[float], None] = time.sleep) -> None:
        self._delay_s = options.tts_delay_ms / 1000
        self._sleep = sleep
        self._capabilities = SynthesizerCapabilities(
            sample_rate=SAMPLE_RATE,
            languages=("zh-CN", "zh-HK", "en-US", "ja-JP", "ko-KR"),
            voices=_VOICES,
            any_voice=True,
            # It "reads" every character as it is: the text must reach it unchanged.
            normalizes_text=True,
            marks=True,
            max_parallel=64,
            ms_per_character=0.5 + options.tts_delay_ms / 2,  # a piece has two characters
            notice="for tests: a tone instead of speech",
        )

    @property
    def capabilities(self) -> SynthesizerCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        """The tone of ``utterance.text``, 200 ms a character, in pieces of 400 ms or less."""
        if utterance.voice == "nobody":
            raise UnknownVoice
        return self._pieces(utterance.text)

    def _pieces(self, text: str) -> Iterator[Piece]:
        for first in range(0, len(text), _CHARACTERS_PER_PIECE):
            if self._delay_s:
                self._sleep(self._delay_s)
            after = min(first + _CHARACTERS_PER_PIECE, len(text))
            yield Piece(
                samples=_sine(frequency(text))[: (after - first) * _CHARACTER],
                marks=tuple(Mark(i, i * CHARACTER_MS) for i in range(first, after)),
            )
