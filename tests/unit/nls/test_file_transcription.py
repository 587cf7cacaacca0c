"""The Task of SubmitTask, the codes, and the shapes of the answers (nls-protocol.md 6.5, 8.2)."""

from __future__ import annotations

import json

import msgspec
import pytest

from app.core import errors
from app.core.errors import InvalidRequest, SpeechError, UnfitUrl
from app.core.project import DEFAULT_PROJECT, Project
from app.core.speech import Word
from app.nls.file_transcription import (
    EMPTY_APPKEY,
    Answers,
    TranscribedSentence,
    Transcription,
    TranscriptionOrder,
    appkey_of,
    order_of,
    read_task,
    status_of,
)
from app.nls.ignored import IGNORED
from app.nls.status import ProtocolError

URL = "https://host.example/a.wav"


def order(project: Project = DEFAULT_PROJECT, /, **task: object) -> TranscriptionOrder:
    return order_of(
        {"file_link": URL, **task},
        task_id="t",
        appkey="k",
        project=project,
        max_audio_ms=1_000,
    )


def test_defaults() -> None:
    found = order()
    request, options = found.request, found.request.options
    assert (found.url, found.channels, found.words) == (URL, "mixed", False)
    assert (found.marks, found.max_chars) == ("", None)
    assert (request.task_id, request.appkey, request.max_audio_ms) == ("t", "k", 1_000)
    assert not (request.near_field_gate or request.progress or request.disfluency)
    assert not (options.live or options.partials or options.words)
    assert options.punctuation
    assert not options.inverse_text_normalization
    assert (options.max_sentence_silence_ms, options.max_sentence_ms) == (800, 60_000)


def test_every_option() -> None:
    project = Project(model="m", language="zh", vocabularies={"v": (("北京", 3.0),)})
    found = order(
        project,
        enable_words=True,
        enable_inverse_text_normalization="true",
        enable_disfluency=True,
        enable_punctuation_prediction=False,
        max_end_silence=450,
        max_single_segment_time=14_000,
        vocabulary_id="v",
        first_channel_only=True,
        special_word_filter='{"filter_with_signed": {"word_list": ["坏"]}}',
        punctuation_mark="，",
        sentence_max_length=10,
    )
    request, options = found.request, found.request.options
    assert (found.channels, found.words, found.marks, found.max_chars) == ("first", True, "，", 10)
    assert request.disfluency and request.word_filter is not None
    assert options.words and options.inverse_text_normalization and not options.punctuation
    assert (options.max_sentence_silence_ms, options.max_sentence_ms) == (450, 14_000)
    assert (options.hotwords, options.model, options.language) == ((("北京", 3.0),), "m", "zh")
    # Whoever runs it reads it from the database.
    assert msgspec.json.decode(msgspec.json.encode(found), type=TranscriptionOrder) == found


def test_the_projects_settings() -> None:
    defaults = {"format": "wav", "enable_words": True, "max_sentence_silence": 300}
    found = order(Project(max_rate=8_000, defaults=defaults))
    assert found.channels == "each"
    assert found.words
    assert found.request.format == order().request.format
    assert found.request.max_rate == 8_000
    assert found.request.options.max_sentence_silence_ms == 300
    assert order(Project(defaults=defaults), max_end_silence=900).request.options == (
        order(enable_words=True, max_end_silence=900).request.options
    )
    assert not order(Project(defaults=defaults), enable_words=False).words


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_end_silence", 1, 200),
        ("max_end_silence", "7000", 6_000),
        ("max_single_segment_time", 1, 5_000),
        ("max_single_segment_time", 1_000_000, 60_000),
        ("max_single_segment_time", None, 60_000),
    ],
)
def test_numbers_are_clamped(name: str, value: object, expected: int) -> None:
    options = order(**{name: value}).request.options
    found = {
        "max_end_silence": options.max_sentence_silence_ms,
        "max_single_segment_time": options.max_sentence_ms,
    }
    assert found[name] == expected


@pytest.mark.parametrize(
    "option",
    [
        "auto_split", "callback_url", "class_vocabulary_id", "enable_callback",
        "enable_sample_rate_adaptive", "enable_semantic_sentence_detection",
        "enable_timestamp_alignment", "speaker_num", "supervise_type", "valid_times", "version",
    ],
)  # fmt: skip
def test_ignored_options_of_a_task(option: str) -> None:
    assert IGNORED["SubmitTask"][option]
    values: list[object] = [None, True, "true", "?", -1, 1e300, [], {"a": [None]}]
    for value in values:
        assert order(**{option: value}) == order()


def test_every_ignored_option_of_a_task_has_a_test() -> None:
    (mark,) = test_ignored_options_of_a_task.pytestmark  # type: ignore[attr-defined]  # of pytest
    assert set(mark.args[1]) == set(IGNORED["SubmitTask"])


@pytest.mark.parametrize(
    "task",
    [
        {"file_link": ""},
        {"file_link": None},
        {"file_link": "http://host/" + "a" * 8_192},
    ],
)
def test_without_a_url(task: dict[str, object]) -> None:
    with pytest.raises(UnfitUrl):
        order(**task)


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ({"file_link": 1}, 41050013),
        ({"enable_words": "perhaps"}, 41050013),
        ({"max_end_silence": "x"}, 41050013),
        ({"sample_rate": 7}, 41050008),
    ],
)
def test_values_that_make_no_sense(task: dict[str, object], code: int) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        order(**task)
    assert status_of(refusal.value).code == code


@pytest.mark.parametrize("text", ["", "x", "[]", "1", '{"a":', "[" * 100_000, '{"a":"\\ud800"}'])
def test_what_is_no_task(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_task(text)


def test_both_spellings_of_the_appkey() -> None:
    assert appkey_of({"appkey": "a"}) == appkey_of({"app_key": "a", "appkey": ""}) == "a"
    with pytest.raises(ProtocolError) as refusal:
        appkey_of({})
    assert status_of(refusal.value) is EMPTY_APPKEY
    for bad in (1, "a\x00b"):
        with pytest.raises(InvalidRequest):
            appkey_of({"appkey": bad})


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.DailyQuotaUsed(), 41050001, "USER_BIZDURATION_QUOTA_EXCEED"),
        (errors.FetchFailed(), 41050002, "FILE_DOWNLOAD_FAILED"),
        (errors.UnsupportedFormat(), 41050003, "FILE_CHECK_FAILED"),
        (errors.AudioTooLong(), 41050004, "FILE_TOO_LARGE"),
        (errors.BadAudio(), 41050006, "FILE_PARSE_FAILED"),
        (errors.UnsupportedSampleRate(), 41050008, "UNSUPPORTED_SAMPLE_RATE"),
        (errors.NotOffered(), 41050009, "UNSUPPORTED_ASR_GROUP"),
        (errors.UnfitUrl(), 41050011, "REQUEST_INVALID_FILE_URL_VALUE"),
        (errors.InvalidRequest(), 41050013, "REQUEST_PARAMETER_INVALID"),
        (errors.UnknownAppkey(), 41050015, "REQUEST_APPKEY_UNREGISTERED"),
        (errors.AppkeyMismatch(), 41050021, "RAM_CHECK_FAILED"),
        (errors.FileNotFound(), 41050024, "FILE_404_NOT_FOUND"),
        (errors.FileForbidden(), 41050025, "FILE_403_FORBIDDEN"),
        (errors.FileHostFailed(), 41050026, "FILE_SERVER_ERROR"),
        (errors.EngineLost(), 51050002, "RECOGNIZE_FAILED"),
        (errors.DeadlineExceeded(), 51050005, "FILE_TRANS_TIMEOUT"),
        (errors.StreamsFull(), 51050000, "INTERNAL_ERROR"),
    ],
)
def test_codes(error: SpeechError, code: int, text: str) -> None:
    status = status_of(error)
    assert (status.code, status.reason, status.http_status) == (code, text, 200)
    told = Answers("R", "T").failed(code, error.text, 1_609_914_000)
    assert told == {
        "TaskId": "T",
        "RequestId": "R",
        "StatusText": text,
        "StatusCode": code,
        "BizDuration": 0,
        "SolveTime": 1_609_914_000_000,
        "Message": error.text,
    }


def shown(found: Transcription) -> dict[str, object]:
    answer: dict[str, object] = json.loads(
        msgspec.json.encode(Answers("R", "T").success(found, 1_609_914_000))
    )
    return answer


def test_the_result_of_the_documentation() -> None:
    words = (Word("北京", 340, 900), Word("的", 900, 1060), Word("天气", 1060, 1900))
    sentence = TranscribedSentence(0, 340, 2365, "北京的天气。", 50.0, words)
    assert shown(Transcription(2956, (sentence,))) == {
        "TaskId": "T",
        "RequestId": "R",
        "StatusText": "SUCCESS",
        "StatusCode": 21050000,
        "BizDuration": 2956,
        "SolveTime": 1609914000000,
        "Result": {
            "Sentences": [
                {
                    "EndTime": 2365,
                    "SilenceDuration": 0,
                    "BeginTime": 340,
                    "Text": "北京的天气。",
                    "ChannelId": 0,
                    "SpeechRate": 177,
                    "EmotionValue": 5.0,
                }
            ],
            "Words": [
                {"ChannelId": 0, "Word": "北京", "BeginTime": 340, "EndTime": 900},
                {"ChannelId": 0, "Word": "的", "BeginTime": 900, "EndTime": 1060},
                {"ChannelId": 0, "Word": "天气", "BeginTime": 1060, "EndTime": 1900},
            ],
        },
    }


def test_silence_is_that_of_the_channel() -> None:
    said = [(0, 2_500, 3_000), (1, 3_100, 3_200), (0, 5_999, 6_000), (1, 8_200, 8_300)]
    answer = shown(
        Transcription(9_000, tuple(TranscribedSentence(*each, "a b.", 3.0) for each in said))
    )
    result = answer["Result"]
    assert isinstance(result, dict) and "Words" not in result
    assert [each["SilenceDuration"] for each in result["Sentences"]] == [2, 3, 2, 5]
    assert [each["EmotionValue"] for each in result["Sentences"]] == [1.0] * 4
    assert result["Sentences"][0]["SpeechRate"] == 3 * 120  # two words and a mark in half a second


def test_nobody_speaks() -> None:
    answer = shown(Transcription(2_956, ()))
    assert (answer["StatusText"], answer["StatusCode"]) == (
        "SUCCESS_WITH_NO_VALID_FRAGMENT",
        21050003,
    )
    assert answer["BizDuration"] == 2_956
    assert "Result" not in answer


def test_the_states_before_the_end() -> None:
    answers = Answers("R", "T")
    ids = {"TaskId": "T", "RequestId": "R"}
    assert answers.submitted() == {**ids, "StatusText": "SUCCESS", "StatusCode": 21050000}
    assert answers.queueing() == {**ids, "StatusText": "QUEUEING", "StatusCode": 21050002}
    assert answers.running() == {
        **ids, "StatusText": "RUNNING", "StatusCode": 21050001, "BizDuration": 0
    }  # fmt: skip
