"""Which parameters a project may have defaults for, and with which values."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import app
from app.core.errors import AccessDenied, InvalidRequest, SpeechError, UnsupportedSampleRate
from app.core.project import Project
from app.nls.defaults import DEFAULTABLE, check_defaults, needs_a_voice

SOURCE = Path(app.__file__).parent
NO_DEFAULT = {
    "text",  # what the request is about
    "audio_address",
    "file_link",
    "appkey",  # whose it is
    "app_key",
    "vocabulary_id",  # the project's own vocabulary is its default
    "customization_id",
    "session_id",  # of one task
    "tw_time_offset",
    "tw_index_offset",
    "Id",  # of the signed calls, which no project is asked for
    "PageNumber",
    "PageSize",
}


def check(defaults: Mapping[str, object], **project: object) -> None:
    check_defaults(
        Project(defaults=defaults, **project),  # type: ignore[arg-type] # given by the tests below
        recognition_formats=("pcm", "wav", "amr"),
        synthesis_formats=("pcm", "wav"),
    )


def parameters_read() -> Iterator[str]:
    """The names that sessions and doors read from a request's parameters."""
    readers = {"boolean", "integer", "number", "string", "silence_ms", "given", "_bounded"}
    for path in [*(SOURCE / "nls").glob("*.py"), *(SOURCE / "api").glob("rest_*.py")]:
        if path.name == "defaults.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in readers and len(node.args) > 1:
                name = node.args[1]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value


def test_every_parameter_may_have_a_default_but_those_of_one_task() -> None:
    read = set(parameters_read())
    # Read by a variable's name, or by another way.
    assert DEFAULTABLE - read <= {"special_word_filter"}
    assert read - NO_DEFAULT <= DEFAULTABLE
    assert not NO_DEFAULT & DEFAULTABLE


def test_good_defaults_pass_as_texts_and_as_values() -> None:
    check({})
    check(
        {
            "format": "wav",
            "sample_rate": "8000",
            "voice": "aixia",
            "volume": 70,
            "speech_rate": "-100",
            "enable_words": "true",
            "enable_voice_detection": "1",
            "max_end_silence": "500",
            "punctuation_mark": "、",
            "speech_noise_threshold": "-0.5",
            "special_word_filter": '{"filter_with_signed": {"word_list": ["hm"]}}',
        }
    )


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("enable_nlp", "true", "enable_nlp cannot have a default; what can: aigc_"),
        ("vocabulary_id", "x", "cannot have a default"),
        ("enable_words", "maybe", "Invalid enable_words"),
        ("enable_voice_detection", "maybe", "Invalid enable_voice_detection"),
        ("max_start_silence", "long", "Invalid max_start_silence"),
        ("punctuation_mark", 1, "Invalid punctuation_mark"),
        ("volume", "loud", "Invalid volume"),
        ("format", "amr", "Invalid format"),  # no synthesis has it
        ("special_word_filter", "{", "Invalid special_word_filter"),
    ],
)
def test_a_default_that_requests_could_not_have_is_refused(
    name: str, value: object, complaint: str
) -> None:
    with pytest.raises(SpeechError, match=complaint):
        check({name: value})


def test_a_rate_must_serve_both_recognition_and_synthesis() -> None:
    with pytest.raises(UnsupportedSampleRate):
        check({"sample_rate": "12000"})


def test_the_default_voice_is_one_of_the_projects() -> None:
    check({"voice": "Aixia"}, voices=frozenset({"aixia"}))
    with pytest.raises(AccessDenied):
        check({"voice": "aiqi"}, voices=frozenset({"aixia"}))


def test_a_project_without_the_usual_voice_needs_one() -> None:
    assert not needs_a_voice(Project())
    assert not needs_a_voice(Project(voices=frozenset({"xiaoyun"})))
    assert needs_a_voice(Project(voices=frozenset({"aixia"})))
    assert not needs_a_voice(Project(voices=frozenset({"aixia"}), defaults={"voice": "aixia"}))


def test_an_unknown_name_is_shown_short() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check({"x" * 1000: "1"})
    assert "x" * 81 not in caught.value.text
