from __future__ import annotations

import math

import pytest

from app.core.errors import (
    InvalidRequest,
    InvalidText,
    UnsupportedFormat,
    UnsupportedSampleRate,
)
from app.core.speech import RecognitionOptions, RecognitionRequest, SynthesisRequest
from app.nls.parameters import (
    SYNTHESIS_RATES,
    Values,
    boolean,
    integer,
    rate_factor,
    recognition_request,
    silence_ms,
    string,
    synthesis_request,
    volume_factor,
)

FORMATS = ("pcm", "wav")


def recognition(values: Values) -> RecognitionRequest:
    return recognition_request(values, task_id="t", appkey="k", formats=FORMATS, max_audio_ms=None)


def synthesis(values: Values, max_text_chars: int = 10) -> SynthesisRequest:
    return synthesis_request(
        {"text": "hi", **values},
        task_id="t",
        appkey="k",
        formats=FORMATS,
        max_text_chars=max_text_chars,
    )


@pytest.mark.parametrize(
    ("value", "factor"),
    [(-500, 0.5), (-250, 1 / 1.5), (0, 1), (250, 1 / 0.75), (500, 2), (-9999, 0.5), (9999, 2)],
)
def test_rate_factor(value: int, factor: float) -> None:
    assert rate_factor(value) == pytest.approx(factor)


@pytest.mark.parametrize(("value", "factor"), [(0, 0), (50, 1), (100, 2), (-1, 0), (101, 2)])
def test_volume_factor(value: int, factor: float) -> None:
    assert volume_factor(value) == factor


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
