"""Scripts and settings of the fake engine: what is accepted, and how a refusal reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.core.errors import EngineNotUsable
from app.engines.fake import FAMILY
from app.engines.fake.options import FakeOptions
from app.engines.fake.script import ScriptedSentence, ScriptedWord, load_script

SENTENCES = [
    {"text": "Hi, you.", "words": [{"text": "Hi", "start_ms": 0, "end_ms": 90}]},
    {"text": "你好。"},
]
EXPECTED = (
    ScriptedSentence("Hi, you.", (ScriptedWord("Hi", 0, 90),)),
    ScriptedSentence("你好。"),
)


@pytest.mark.parametrize("layout", ["array", "lines"])
def test_both_layouts_are_read(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "script"
    path.write_text(
        json.dumps(SENTENCES, indent=1)
        if layout == "array"
        else "\n".join(json.dumps(sentence) for sentence in SENTENCES) + "\n",
        encoding="utf-8",
    )
    assert load_script(str(path)) == EXPECTED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no sentence"),
        ("[]", "no sentence"),
        ("{", "not a script"),
        ('{"txt": "a"}', "not a script"),
        ('{"text": "a", "words": [{"text": "b", "start_ms": 0, "end_ms": 1}]}', "not in the rest"),
        ('{"text": "a", "words": [{"text": "a", "start_ms": 5, "end_ms": 1}]}', "go backwards"),
    ],
)
def test_a_bad_script_says_what_is_wrong(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(EngineNotUsable, match=says):
        load_script(str(path))


def test_a_missing_script_is_an_error(tmp_path: Path) -> None:
    settings = {"FAKE_ASR_SCRIPT": str(tmp_path / "none")}
    with pytest.raises(EngineNotUsable, match="FAKE_ASR_SCRIPT"):
        FAMILY.recognizer("cpu", settings, lambda doing: None)


def test_a_repeated_word_is_found_at_its_own_place() -> None:
    sentence = ScriptedSentence(
        "no, no!", (ScriptedWord("no", 0, 100), ScriptedWord("no", 200, 300))
    )
    assert [sentence.text_after(ms) for ms in (99, 100, 299, 300)] == ["", "no", "no", "no, no"]


def test_settings_have_defaults() -> None:
    assert FakeOptions.parse({}) == FakeOptions()
    assert FakeOptions.parse({"FAKE_ASR_BATCH": None, "FAKE_ASR_DELAY_MS": ""}) == FakeOptions()


def test_settings_are_read() -> None:
    settings = {
        "FAKE_ASR_DELAY_MS": 100,
        "FAKE_ASR_ITEM_MS": "0.5",
        "FAKE_ASR_BATCH": 16,
        "FAKE_TTS_DELAY_MS": 3,
    }
    assert FakeOptions.parse(settings) == FakeOptions(
        asr_delay_ms=100, asr_item_ms=0.5, asr_batch=16, tts_delay_ms=3
    )


@pytest.mark.parametrize("value", [-1, "many", "nan", "inf"])
def test_a_bad_setting_is_named(value: object) -> None:
    with pytest.raises(EngineNotUsable, match="FAKE_TTS_DELAY_MS"):
        FAMILY.synthesizer("cpu", {"FAKE_TTS_DELAY_MS": value}, lambda doing: None)
