"""espeak-ng behind its binding: voices, scripts, marks, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.core.speech import Utterance

espeakng_loader = pytest.importorskip("espeakng_loader")

from app.engines.embedded.espeak import espeak  # noqa: E402  (only where it is installed)
from app.engines.embedded.synthesizer import EspeakSynthesizer, _parts  # noqa: E402
from app.engines.embedded.voices import BY_NAME, PRESETS  # noqa: E402


def test_every_variant_exists() -> None:
    # espeak-ng takes an unknown variant without a word and speaks with its default timbre.
    variants = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    assert all((variants / preset.variant).is_file() for preset in PRESETS)


def test_every_language_exists() -> None:
    for preset in PRESETS:
        assert espeak().speak("1", preset.name_for("1")).words


def test_an_unknown_language_is_an_error_and_the_next_voice_works() -> None:
    with pytest.raises(RuntimeError):
        espeak().speak("1", "zh")
    assert espeak().speak("1", "cmn").samples.size


@pytest.mark.parametrize(
    ("voice", "text", "reads"),
    [
        ("英文女", "Hello!", "en-us+f2"),
        ("英文女", "你好 hello", "cmn+f2"),
        ("英文男", "안녕하세요", "ko+m3"),
        ("english-gb-male", "こんにちは世界", "ja+m3"),
        ("中文女", "用Python写代码", "cmn+f2"),
        ("中文女", "Hello!", "cmn+f2"),
        ("中文女", "鲜の每日", "cmn+f2"),
        ("中文男", "こんにちは", "ja+m3"),
        ("粤语女", "你好", "yue+f2"),
        ("日语男", "你好", "cmn+m3"),
        ("日语男", "今日は", "ja+m3"),
        ("韩语女", "한국 漢字", "ko+f2"),
    ],
)
def test_the_language_follows_the_script(voice: str, text: str, reads: str) -> None:
    assert BY_NAME[voice].name_for(text) == reads


def test_chinese_text_with_an_english_voice_is_read_not_spelled() -> None:
    # As "Chinese letter", twice, it would take 1.4 s.
    english = EspeakSynthesizer()
    samples = np.concatenate(
        [p.samples for p in english.synthesize(Utterance(text="你好", voice="英文女"))]
    )
    assert samples.size < english.capabilities.sample_rate * 1.2


def test_marks_count_the_characters_of_the_given_text() -> None:
    text = "\x00\x07 Hello\x00 big\nworld"
    marks = [
        mark
        for piece in EspeakSynthesizer().synthesize(Utterance(text=text, voice="英文女"))
        for mark in piece.marks
    ]
    assert [text[mark.index :][:3] for mark in marks] == ["Hel", "big", "wor"]
    assert marks[0].start_ms < 50


def test_marks_of_a_long_text_go_on_over_its_parts() -> None:
    text = "word " * 300
    marks = [
        mark
        for piece in EspeakSynthesizer().synthesize(Utterance(text=text, voice="英文女"))
        for mark in piece.marks
    ]
    assert [mark.index for mark in marks] == list(range(0, 1_500, 5))
    assert [mark.start_ms for mark in marks] == sorted({mark.start_ms for mark in marks})


@pytest.mark.parametrize("text", ["...", "，。！", " ", ""])
def test_nothing_to_say_is_no_audio(text: str) -> None:
    assert list(EspeakSynthesizer().synthesize(Utterance(text=text, voice="中文女"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "好" * 1_000,
        "a b " * 200,
        "今天，" * 200,
        "3.14" * 100,
        "x" * 199 + ". " + "y" * 99,
    ],
)
def test_parts_are_the_text_and_not_too_long(text: str) -> None:
    parts = list(_parts(text))
    assert "".join(part for _, part in parts) == text
    assert all(text.startswith(part, start) for start, part in parts)
    assert all(len(part) <= 200 for _, part in parts)


def test_parts_end_where_one_may_pause() -> None:
    parts = [part for _, part in _parts("今天，" * 200)]
    assert all(part.endswith("，") for part in parts)
    assert "3.14" not in {part[-2:] + part[:2] for _, part in _parts("3.14" * 100)}


def test_threads_do_not_disturb_each_other() -> None:
    # Two objects share the library: without its lock this aborts the process within seconds.
    first, second = EspeakSynthesizer(), EspeakSynthesizer()
    jobs = [
        (synthesizer, "好" * (2 + 5 * n), voice)
        for n in range(4)
        for synthesizer, voice in ((first, "中文女"), (second, "粤语女"))
    ]

    def length(job: tuple[EspeakSynthesizer, str, str]) -> int:
        synthesizer, text, voice = job
        utterance = Utterance(text=text, voice=voice)
        return sum(piece.samples.size for piece in synthesizer.synthesize(utterance))

    alone = [length(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(length, jobs)) == pytest.approx(alone, rel=0.03)
