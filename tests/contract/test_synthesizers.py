"""What every synthesiser promises in ``app/engines/base.py``, whichever engine it is."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pytest

from app.audio.pcm import Int16
from app.core.errors import InvalidText, UnknownVoice
from app.core.speech import Mark, Utterance
from app.engines.base import Piece, Synthesizer

TEXTS = {
    "zh": "你好，世界。",
    "yu": "你好，香港人。",
    "en": "Hello, world.",
    "ja": "こんにちは。",
    "ko": "안녕하세요.",
}
PRESET_NAMES = ("中文女", "中文男", "日语男", "粤语女", "英文女", "英文男", "韩语女")


def speak(synthesizer: Synthesizer, text: str, voice: str = "") -> tuple[Int16, list[Mark]]:
    """All audio and marks of a text; every piece is checked."""
    name = voice or synthesizer.capabilities.voices[0].name
    pieces = list(synthesizer.synthesize(Utterance(text=text, voice=name)))
    for piece in pieces:
        assert piece.samples.dtype == np.int16
        assert piece.samples.ndim == 1
        assert piece.samples.size
    samples = [piece.samples for piece in pieces] or [np.zeros(0, np.int16)]
    return np.concatenate(samples), [mark for piece in pieces for mark in piece.marks]


def loudness(samples: Int16) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) if samples.size else 0.0


def test_capabilities_are_constant_and_sane(synthesizer: Synthesizer) -> None:
    capabilities = synthesizer.capabilities
    assert capabilities == synthesizer.capabilities
    assert 8_000 <= capabilities.sample_rate <= 48_000
    assert capabilities.max_parallel >= 1
    names = [voice.name for voice in capabilities.voices]
    assert len(names) == len(set(names))
    assert {voice.language for voice in capabilities.voices} <= set(capabilities.languages)


def voice_like(synthesizer: Synthesizer, name: str) -> str:
    """That voice, or any where there is no such preset."""
    voices = synthesizer.capabilities.voices
    return next((voice.name for voice in voices if voice.name == name), voices[0].name)


@pytest.fixture
def short_text(knows_everything: bool) -> str:
    """What all voices can say, whatever their languages."""
    return "OK 1" if knows_everything else "hello 你"


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_presets_speak(synthesizer: Synthesizer, knows_everything: bool, name: str) -> None:
    voices = [v for v in synthesizer.capabilities.voices if v.name == name]
    if not voices and not knows_everything:
        pytest.skip("its model has no such voice")
    (voice,) = voices
    text = TEXTS["yu" if voice.language == "zh-HK" else voice.language[:2]]
    samples, _ = speak(synthesizer, text, name)
    assert loudness(samples) > 300
    assert samples.size > synthesizer.capabilities.sample_rate * 0.3
    # Nothing clips: the loudest sample is not at the limit of int16.
    assert np.abs(samples.astype(np.int32)).max() < 32_700


def test_every_listed_voice_speaks(synthesizer: Synthesizer, short_text: str) -> None:
    for voice in synthesizer.capabilities.voices:
        samples, _ = speak(synthesizer, short_text, voice.name)
        assert loudness(samples) > 300, voice.name


def test_an_unknown_voice_is_an_error(synthesizer: Synthesizer) -> None:
    with pytest.raises(UnknownVoice):
        list(synthesizer.synthesize(Utterance(text="hello", voice="nobody")))


@pytest.mark.parametrize("voice", ["../../etc/passwd", "en+f2\0x", "a" * 10_000, ""])
def test_a_hostile_voice_is_an_error_or_a_voice(synthesizer: Synthesizer, voice: str) -> None:
    utterance = Utterance(text="hello", voice=voice)
    if synthesizer.capabilities.any_voice:
        assert list(synthesizer.synthesize(utterance))
    else:
        with pytest.raises(UnknownVoice):
            list(synthesizer.synthesize(utterance))


def test_longer_text_is_longer(synthesizer: Synthesizer) -> None:
    short, _ = speak(synthesizer, "你好。")
    long, _ = speak(synthesizer, "你好，今天的天气非常好，我们去公园吧。")
    assert long.size > 1.5 * short.size


@pytest.mark.parametrize("text", ["Hello, my dear world. Again!", "你好，世界。今天12点！"])
def test_marks_ascend_inside_text_and_audio(synthesizer: Synthesizer, text: str) -> None:
    samples, marks = speak(synthesizer, text)
    if not synthesizer.capabilities.marks:
        assert not marks
        return
    indices = [mark.index for mark in marks]
    times = [mark.start_ms for mark in marks]
    assert len(marks) >= 3
    assert indices == sorted(set(indices))
    assert times == sorted(times)
    assert indices[0] >= 0
    assert indices[-1] < len(text)
    assert times[0] >= 0
    assert times[-1] * synthesizer.capabilities.sample_rate < samples.size * 1000


def test_marks_come_with_the_audio_that_they_are_in(synthesizer: Synthesizer) -> None:
    rate = synthesizer.capabilities.sample_rate
    voice = synthesizer.capabilities.voices[0].name
    text = "你好，世界。" * 60  # longer than what an engine takes at once
    end_ms = 0.0
    samples = 0
    for piece in synthesizer.synthesize(Utterance(text=text, voice=voice)):
        start_ms, samples = end_ms, samples + piece.samples.size
        end_ms = samples * 1000 / rate
        assert all(start_ms - 1 <= mark.start_ms <= end_ms for mark in piece.marks)


HOSTILE = {
    "empty": "",
    "spaces": " \t\n\u3000 ",
    "punctuation": "...！？。，—“”()[]",
    "control": "a\x00b\x1b[31mc\r\n\x7f\u2028d",
    "surrogate": "half \ud83d a pair",
    "emoji": "😀👩‍👩‍👧‍👦🇨🇳 ok",
    "combining": "e\u0301" * 200 + "\u200b\u200d\ufeff",
    "direction": "\u202eabc\u202c",
    "phonemes": "[[" + "h@l'oU" * 60 + "]]",
    "markup": '<speak><break time="9999s"/>&amp;<voice name="x">hi</voice>',
    "format": "%s%n%d {0} ${x} \\u0000",
    "long word": "a" * 2_000,
    "long text": "今天天气很好。" * 150,
    "digits": "9" * 500,
    "scripts": "你好 hello こんにちは 안녕 Привет مرحبا नमस्ते",
    "private": "\ue000\uffff\U0010ffff",
}


@pytest.mark.parametrize("voice", ["中文女", "英文男", "日语男"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_safe(
    synthesizer: Synthesizer, knows_everything: bool, short_text: str, kind: str, voice: str
) -> None:
    name = voice if knows_everything else voice_like(synthesizer, voice)
    try:
        samples, marks = speak(synthesizer, HOSTILE[kind], name)
    except InvalidText:
        # It says so where it knows no word of a text that has some.
        assert not knows_everything
        assert any(map(str.isalnum, HOSTILE[kind]))
        samples, marks = np.zeros(0, np.int16), []
    assert all(0 <= mark.index < len(HOSTILE[kind]) for mark in marks)
    assert samples.size < 600 * synthesizer.capabilities.sample_rate
    assert loudness(speak(synthesizer, short_text, name)[0]) > 300


def test_closing_the_iterator_lets_the_next_one_start(synthesizer: Synthesizer) -> None:
    voice = synthesizer.capabilities.voices[0].name
    text = "今天天气很好。" * 60
    for _ in range(2 * synthesizer.capabilities.max_parallel):
        speaking = synthesizer.synthesize(Utterance(text=text, voice=voice))
        assert next(speaking).samples.size
        cast(Generator[Piece, None, None], speaking).close()
    assert loudness(speak(synthesizer, "你好。")[0]) > 300


def test_closing_before_the_first_piece(synthesizer: Synthesizer) -> None:
    voice = synthesizer.capabilities.voices[0].name
    speaking = synthesizer.synthesize(Utterance(text="你好。", voice=voice))
    cast(Generator[Piece, None, None], speaking).close()
    assert loudness(speak(synthesizer, "你好。")[0]) > 300


def test_parallel_calls_give_their_own_audio(synthesizer: Synthesizer) -> None:
    texts = [
        "好" * (1 + 3 * n) + "。" for n in range(min(synthesizer.capabilities.max_parallel, 8))
    ]
    alone = [speak(synthesizer, text)[0].size for text in texts]
    with ThreadPoolExecutor(len(texts)) as pool:
        for _ in range(3):
            sizes = [
                samples.size for samples, _ in pool.map(lambda t: speak(synthesizer, t), texts)
            ]
            # An engine need not say the same thing twice in exactly the same way.
            assert sizes == pytest.approx(alone, rel=0.03)


def test_utterances_may_be_taken_in_turns(synthesizer: Synthesizer) -> None:
    voice = synthesizer.capabilities.voices[0].name
    texts = ("今天天气很好。", "好。")
    alone = [speak(synthesizer, text)[0].size for text in texts]
    if synthesizer.capabilities.max_parallel < 2:
        pytest.skip("one at a time")
    speaking = [synthesizer.synthesize(Utterance(text=text, voice=voice)) for text in texts]
    sizes = [next(iterator).samples.size for iterator in speaking]
    for index, iterator in enumerate(speaking):
        sizes[index] += sum(piece.samples.size for piece in iterator)
    assert sizes == pytest.approx(alone, rel=0.03)
