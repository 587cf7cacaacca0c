from __future__ import annotations

import math

import pytest

from app.core.errors import (
    AccessDenied,
    InvalidRequest,
    InvalidText,
    UnsupportedFormat,
    UnsupportedSampleRate,
)
from app.core.project import DEFAULT_PROJECT, Project
from app.core.speech import (
    RecognitionOptions,
    RecognitionRequest,
    SynthesisRequest,
    SyntheticMark,
    WordFilter,
)
from app.nls.parameters import (
    SYNTHESIS_RATES,
    Values,
    boolean,
    integer,
    number,
    recognition_request,
    silence_ms,
    stream_request,
    string,
    synthesis_request,
    with_defaults,
)

FORMATS = ("pcm", "wav")


def recognition(values: Values, project: Project = DEFAULT_PROJECT) -> RecognitionRequest:
    return recognition_request(
        values, task_id="t", appkey="k", formats=FORMATS, max_audio_ms=None, project=project
    )


def synthesis(
    values: Values, max_text_chars: int = 10, project: Project = DEFAULT_PROJECT
) -> SynthesisRequest:
    return synthesis_request(
        {"text": "hi", **values},
        task_id="t",
        appkey="k",
        formats=FORMATS,
        max_text_chars=max_text_chars,
        project=project,
    )


def stream(values: Values) -> SynthesisRequest:
    return stream_request(values, task_id="t", appkey="k", formats=FORMATS)


@pytest.mark.parametrize(
    ("value", "number"),
    [(7, 7), ("7", 7), (" -7 ", -7), ("+7", 7), (7.0, 7), ("7.4", 7), (None, 3), ("", 3)],
)
def test_integer_is_lenient(value: object, number: int) -> None:
    assert integer({"x": value}, "x", 3) == number


@pytest.mark.parametrize(
    "value", [True, "seven", "1e3", "0x10", "1_000", "٣", [], {}, math.inf, math.nan, 1e300]
)
def test_integer_refuses_what_is_none(value: object) -> None:
    with pytest.raises(InvalidRequest, match="Invalid x: expected a whole number"):
        integer({"x": value}, "x", 3)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (True, True),
        (False, False),
        (1, True),
        (0, False),
        ("True", True),
        ("0", False),
        (None, True),
    ],
)
def test_boolean_is_lenient(value: object, found: bool) -> None:
    assert boolean({"x": value}, "x", True) is found


@pytest.mark.parametrize("value", [2, "yes", 1.0, [], {"a": 1}])
def test_boolean_refuses_what_is_none(value: object) -> None:
    with pytest.raises(InvalidRequest, match="Invalid x: expected true or false"):
        boolean({"x": value}, "x", False)


def test_string_refuses_other_types() -> None:
    assert string({"x": " a "}, "x", "b") == "a"
    assert string({}, "x", "b") == "b"
    with pytest.raises(InvalidRequest, match="Invalid x"):
        string({"x": 1}, "x", "b")


@pytest.mark.parametrize(
    ("value", "silence"), [(None, None), (800, 800), ("3000", 3000), (1, 200), (99_999, 6000)]
)
def test_silence_is_clamped(value: object, silence: int | None) -> None:
    assert silence_ms({"x": value}, "x") == silence


def test_recognition_defaults() -> None:
    assert recognition({}) == RecognitionRequest(
        options=RecognitionOptions(partials=False), task_id="t", appkey="k"
    )


def test_recognition_from_a_query_string() -> None:
    request = recognition(
        {
            "appkey": "k",
            "format": ".WAV",
            "sample_rate": "48000",
            "enable_punctuation_prediction": "true",
            "enable_inverse_text_normalization": "TRUE",
            "vocabulary_id": "",
        }
    )
    assert (request.format, request.sample_rate) == ("wav", 48_000)
    assert request.options.punctuation
    assert request.options.inverse_text_normalization


@pytest.mark.parametrize("rate", [7_999, 48_001, 0, -16_000])
def test_recognition_rate_out_of_range(rate: int) -> None:
    with pytest.raises(UnsupportedSampleRate, match="8000 to 48000"):
        recognition({"sample_rate": rate})


def test_unknown_format_is_named_with_the_accepted_ones() -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        recognition({"format": "xyz\n" + "z" * 1000})
    assert caught.value.text.startswith("Invalid format 'xyzz")
    assert caught.value.text.endswith("Accepted: pcm, wav.")
    assert len(caught.value.text) < 120


def test_synthesis_defaults() -> None:
    assert synthesis({}) == SynthesisRequest(text="hi", voice="xiaoyun", task_id="t", appkey="k")


def test_synthesis_parameters() -> None:
    request = synthesis({"speech_rate": "500", "pitch_rate": -500, "volume": 25.0, "voice": "v"})
    assert (request.speed, request.pitch, request.volume) == pytest.approx((2.0, 0.5, 0.5))
    assert request.voice == "v"


@pytest.mark.parametrize("rate", SYNTHESIS_RATES)
def test_synthesis_rates(rate: int) -> None:
    assert synthesis({"sample_rate": str(rate)}).sample_rate == rate


def test_synthesis_rate_not_offered() -> None:
    with pytest.raises(UnsupportedSampleRate, match="22050"):
        synthesis({"sample_rate": 12_345})


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_no_text(text: object) -> None:
    with pytest.raises(InvalidText, match="No text specified!"):
        synthesis({"text": text})


def test_text_of_another_type() -> None:
    with pytest.raises(InvalidText, match="expected a string"):
        synthesis({"text": 5})


def test_long_text_is_refused_whole() -> None:
    assert synthesis({"text": "字" * 10}).text == "字" * 10
    with pytest.raises(InvalidText, match="11 characters; at most 10"):
        synthesis({"text": "字" * 11})


@pytest.mark.parametrize(
    ("value", "found"), [(0.5, 0.5), (-1, -1), ("0.25", 0.25), (None, None), (" ", None), (9, 9)]
)
def test_number_is_lenient(value: object, found: float | None) -> None:
    assert number({"x": value}, "x") == found


@pytest.mark.parametrize("value", [True, "much", [], math.nan, math.inf])
def test_number_refuses_what_is_none(value: object) -> None:
    with pytest.raises(InvalidRequest, match="Invalid x: expected a number"):
        number({"x": value}, "x")


@pytest.mark.parametrize(
    ("value", "threshold"), [(None, None), ("-0.5", -0.5), (-7, -1.0), (10**400, 1.0), (0, 0.0)]
)
def test_a_noise_threshold_is_clamped(value: object, threshold: float | None) -> None:
    found = recognition({"speech_noise_threshold": value}).options.noise_threshold
    assert found == threshold
    assert type(found) is type(threshold)


def test_recognition_options_of_the_protocol() -> None:
    request = recognition(
        {
            "disfluency": "true",
            "special_word_filter": {"filter_with_signed": {"word_list": ["x"]}},
        }
    )
    assert request.disfluency
    assert request.word_filter == WordFilter(masked=("x",))


BEIJING = (("北京", 5.0),)
YUNNAN = (("云南", 3.0),)
WITH_WORDS = Project(hotwords=YUNNAN, vocabularies={"v1": BEIJING, "none": ()})


@pytest.mark.parametrize(
    ("values", "hotwords"),
    [
        ({}, YUNNAN),
        ({"vocabulary_id": ""}, YUNNAN),
        ({"vocabulary_id": "v1"}, BEIJING),
        ({"vocabulary_id": "unknown"}, YUNNAN),
        ({"vocabulary_id": "none"}, ()),
        ({"customization_id": "v1"}, BEIJING),
        ({"customization_id": "unknown"}, YUNNAN),
        ({"vocabulary_id": "none", "customization_id": "v1"}, ()),
        ({"vocabulary_id": "unknown", "customization_id": "v1"}, BEIJING),
    ],
)
def test_hotwords_are_the_requests_or_the_projects(
    values: Values, hotwords: tuple[tuple[str, float], ...]
) -> None:
    assert recognition(values, WITH_WORDS).options.hotwords == hotwords


def test_what_a_project_means_for_a_recognition() -> None:
    project = Project(model="telephone", language="yue", max_rate=8_000)
    request = recognition({}, project)
    assert (request.options.model, request.options.language) == ("telephone", "yue")
    assert (request.sample_rate, request.max_rate) == (8_000, 8_000)
    assert recognition({"sample_rate": 16_000}, project).sample_rate == 16_000


@pytest.mark.parametrize("value", [None, "", "  "])
def test_defaults_stand_in_for_what_is_not_given(value: object) -> None:
    project = Project(defaults={"voice": "aixia", "volume": 10})
    assert with_defaults({"voice": value}, project) == {"voice": "aixia", "volume": 10}
    assert with_defaults({"voice": "x", "volume": 0}, project) == {"voice": "x", "volume": 0}


def test_a_project_may_use_its_voices_only() -> None:
    project = Project(voices=frozenset({"aixia"}))
    request = synthesis({"voice": "AiXia"}, project=project)
    assert (request.voice, request.allowed_voices) == ("AiXia", project.voices)
    with pytest.raises(AccessDenied, match="No privilege to this voice"):
        synthesis({}, project=project)


@pytest.mark.parametrize(
    ("given", "whole", "pieces"),
    [(None, None, False), ("", None, False), (True, True, True), ("false", False, False)],
)
def test_ssml(given: object, whole: bool | None, pieces: bool) -> None:
    assert synthesis({"enable_ssml": given}).ssml is whole
    assert stream({"enable_ssml": given}).ssml is pieces


def test_a_stream_has_the_parameters_and_no_text() -> None:
    values = {"voice": "v", "format": "WAV", "speech_rate": 500, "enable_subtitle": 1}
    request = stream({**values, "text": 5})
    assert request.text == ""
    assert request.subtitles
    assert (request.voice, request.format, request.speed) == ("v", "wav", 2.0)


def test_manner_and_mark() -> None:
    request = synthesis(
        {
            "prompt": " 慢 ",
            "enable_aigc_tag": "1",
            "aigc_propagator": "电台",
            "aigc_propagate_id": "7",
        }
    )
    assert request.prompt == "慢"
    assert request.mark == SyntheticMark(propagator="电台", propagate_id="7")
    assert synthesis({"aigc_propagator": "电台"}).mark is None


@pytest.mark.parametrize(
    ("name", "limit"), [("prompt", 1000), ("aigc_propagator", 256), ("aigc_propagate_id", 256)]
)
def test_texts_beside_the_text_are_bounded(name: str, limit: int) -> None:
    values = {"enable_aigc_tag": True, name: "x" * limit}
    assert synthesis(values)
    with pytest.raises(InvalidRequest, match=f"Invalid {name}: at most {limit}"):
        synthesis({**values, name: "x" * (limit + 1)})
