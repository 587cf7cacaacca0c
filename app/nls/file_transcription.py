"""Recording-file transcription: the Task of SubmitTask, the answers of both calls and their codes,
without I/O (nls-protocol.md 6.5, 8.2).

The texts of the codes are those of the cloud's documentation (help.aliyun.com, document 90727).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from app.core import errors
from app.core.errors import InvalidRequest, SpeechError
from app.core.project import Project
from app.core.speech import RecognitionRequest, Word
from app.nls import recordings
from app.nls.parameters import (
    DEFAULT_SILENCE_MS,
    Values,
    boolean,
    given,
    integer,
    recognition_request,
    silence_ms,
    string,
    with_defaults,
)
from app.nls.status import ProtocolError, Status

MAX_URL_CHARS: Final = 8_192

MIN_SEGMENT_MS: Final = 5_000
MAX_SEGMENT_MS: Final = 60_000
"""Of ``max_single_segment_time``; the second is its default."""

_FORMAT: Final = "m4a"
"""What a file is taken for that does not tell what it is: one of a container's, so that it is
refused. Raw samples would be heard as noise, and are nothing that the cloud takes here."""

# Its own codes; what is refused goes out with HTTP 200, too (nls-protocol.md 8.1).
SUCCESS: Final = Status(21050000, "SUCCESS", 200)
RUNNING: Final = Status(21050001, "RUNNING", 200)
QUEUEING: Final = Status(21050002, "QUEUEING", 200)
NO_VALID_FRAGMENT: Final = Status(21050003, "SUCCESS_WITH_NO_VALID_FRAGMENT", 200)
QUOTA_USED: Final = Status(41050001, "USER_BIZDURATION_QUOTA_EXCEED", 200)
DOWNLOAD_FAILED: Final = Status(41050002, "FILE_DOWNLOAD_FAILED", 200)
CHECK_FAILED: Final = Status(41050003, "FILE_CHECK_FAILED", 200)
TOO_LARGE: Final = Status(41050004, "FILE_TOO_LARGE", 200)
PARSE_FAILED: Final = Status(41050006, "FILE_PARSE_FAILED", 200)
UNSUPPORTED_SAMPLE_RATE: Final = Status(41050008, "UNSUPPORTED_SAMPLE_RATE", 200)
UNSUPPORTED_ASR_GROUP: Final = Status(41050009, "UNSUPPORTED_ASR_GROUP", 200)
TASK_EXPIRED: Final = Status(41050010, "FILE_TRANS_TASK_EXPIRED", 200)
INVALID_FILE_URL: Final = Status(41050011, "REQUEST_INVALID_FILE_URL_VALUE", 200)
PARAMETER_INVALID: Final = Status(41050013, "REQUEST_PARAMETER_INVALID", 200)
EMPTY_APPKEY: Final = Status(41050014, "REQUEST_EMPTY_APPKEY_VALUE", 200)
APPKEY_UNREGISTERED: Final = Status(41050015, "REQUEST_APPKEY_UNREGISTERED", 200)
RAM_CHECK_FAILED: Final = Status(41050021, "RAM_CHECK_FAILED", 200)
FILE_NOT_FOUND: Final = Status(41050024, "FILE_404_NOT_FOUND", 200)
FILE_FORBIDDEN: Final = Status(41050025, "FILE_403_FORBIDDEN", 200)
FILE_SERVER_ERROR: Final = Status(41050026, "FILE_SERVER_ERROR", 200)
INTERNAL_ERROR: Final = Status(51050000, "INTERNAL_ERROR", 200)
RECOGNIZE_FAILED: Final = Status(51050002, "RECOGNIZE_FAILED", 200)
INTERRUPTED: Final = Status(51050003, "RECOGNIZE_INTERRUPT", 200)
TIMEOUT: Final = Status(51050005, "FILE_TRANS_TIMEOUT", 200)

_BY_ERROR: Final[Mapping[type[SpeechError], Status]] = MappingProxyType(
    {
        errors.SpeechError: INTERNAL_ERROR,
        errors.InvalidRequest: PARAMETER_INVALID,
        errors.NotOffered: UNSUPPORTED_ASR_GROUP,
        errors.UnsupportedFormat: CHECK_FAILED,
        errors.UnsupportedSampleRate: UNSUPPORTED_SAMPLE_RATE,
        errors.UnfitUrl: INVALID_FILE_URL,
        errors.FetchFailed: DOWNLOAD_FAILED,
        errors.FileNotFound: FILE_NOT_FOUND,
        errors.FileForbidden: FILE_FORBIDDEN,
        errors.FileHostFailed: FILE_SERVER_ERROR,
        errors.BadAudio: PARSE_FAILED,
        errors.AudioTooLong: TOO_LARGE,
        errors.AccessDenied: RAM_CHECK_FAILED,
        errors.UnknownAppkey: APPKEY_UNREGISTERED,
        errors.AppkeyMismatch: RAM_CHECK_FAILED,
        errors.DailyQuotaUsed: QUOTA_USED,
        errors.DeadlineExceeded: TIMEOUT,
        errors.EngineFailed: RECOGNIZE_FAILED,
    }
)


def status_of(error: SpeechError) -> Status:
    """The code of an error; a subclass without a row of its own has that of its base."""
    if isinstance(error, ProtocolError):
        return error.status
    return next(_BY_ERROR[cls] for cls in type(error).__mro__ if cls in _BY_ERROR)


# What is asked for


class TranscriptionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a job has to do: it is complete, so that whoever runs it needs neither the project nor
    the Task. ``words``: whether they are shown. ``marks``, ``max_chars``: how sentences are cut
    (:func:`app.text.captions.captions`)."""

    url: str
    request: RecognitionRequest
    channels: recordings.Channels = "mixed"
    words: bool = False
    marks: str = ""
    max_chars: int | None = None


def read_task(text: str) -> Values:
    """The parameter Task.

    Raises:
        InvalidRequest: it is no JSON object.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise InvalidRequest("Invalid Task: expected a JSON object!") from None


def appkey_of(task: Values) -> str:
    """The appkey; C++ calls it ``app_key``.

    Raises:
        ProtocolError: there is none.
        InvalidRequest: it is no string, or not printable.
    """
    appkey = string(task, "appkey", "") or string(task, "app_key", "")
    if not appkey:
        raise ProtocolError(EMPTY_APPKEY, "appkey not set")
    if not appkey.isprintable():  # it goes into the database, and not every one takes NUL
        raise InvalidRequest("Invalid appkey: expected printable characters!")
    return appkey


def order_of(
    task: Values, *, task_id: str, appkey: str, project: Project, max_audio_ms: int
) -> TranscriptionOrder:
    """The order of a Task, in which the project's defaults hold where it says nothing.
    ``max_audio_ms``: of the recording. What has no effect is in ``ignored.py``.

    Raises:
        UnfitUrl: there is no ``file_link``, or it is too long.
        InvalidRequest: a value that makes no sense, or an appkey that is too long.
    """
    url = string(task, "file_link", "")
    if not url or len(url) > MAX_URL_CHARS:
        raise errors.UnfitUrl("Invalid file_link: expected the URL of a recording!")
    values = {**with_defaults(task, project), "format": _FORMAT}
    asked = recognition_request(
        values,
        task_id=task_id,
        appkey=appkey,
        formats=(_FORMAT,),
        max_audio_ms=max_audio_ms,
        project=project,
    )
    words = boolean(values, "enable_words", False)
    marks = recordings.punctuation_marks(values)
    max_chars = recordings.sentence_max_length(values)
    options = msgspec.structs.replace(
        asked.options,
        partials=False,
        live=False,
        # A sentence is cut between words.
        words=words or bool(marks) or max_chars is not None,
        punctuation=boolean(values, "enable_punctuation_prediction", True),
        max_sentence_silence_ms=_sentence_silence_ms(values),
        max_sentence_ms=_segment_ms(values),
    )
    return TranscriptionOrder(
        url=url,
        request=msgspec.structs.replace(
            asked,
            options=options,
            disfluency=boolean(values, "enable_disfluency", asked.disfluency),
            # A file is what somebody chose to send, however quiet; the gate is for microphones.
            near_field_gate=False,
            progress=False,
        ),
        channels=recordings.channels(values, asked.sample_rate),
        words=words,
        marks=marks,
        max_chars=max_chars,
    )


def _sentence_silence_ms(values: Values) -> int:
    asked = silence_ms(values, "max_end_silence") or silence_ms(values, "max_sentence_silence")
    return asked or DEFAULT_SILENCE_MS


def _segment_ms(values: Values) -> int:
    if not given(values, "max_single_segment_time"):
        return MAX_SEGMENT_MS
    asked = integer(values, "max_single_segment_time", MAX_SEGMENT_MS)
    return min(max(asked, MIN_SEGMENT_MS), MAX_SEGMENT_MS)


# What is answered


class TranscribedSentence(msgspec.Struct, frozen=True, array_like=True):
    """What was said in a channel (from 0); times in ms. ``level_db``: how loud, in dB above one
    step of 16 bit. ``words``: only where they are shown."""

    channel: int
    start_ms: int
    end_ms: int
    text: str
    level_db: float
    words: tuple[Word, ...] = ()


class Transcription(msgspec.Struct, frozen=True):
    """What a job has found: ``audio_ms`` is the length of the recording, ``sentences`` are in the
    order in which they begin."""

    audio_ms: int
    sentences: tuple[TranscribedSentence, ...]


class _Sentence(msgspec.Struct, rename="pascal"):
    channel_id: int
    begin_time: int
    end_time: int
    text: str
    emotion_value: float
    speech_rate: int
    silence_duration: int


class _Word(msgspec.Struct, rename="pascal"):
    channel_id: int
    word: str
    begin_time: int
    end_time: int


class _Result(msgspec.Struct, rename="pascal", omit_defaults=True):
    sentences: list[_Sentence]
    words: list[_Word] | None = None


_SPOKEN: Final = re.compile(r"[A-Za-zÀ-ɏ0-9']+|\S")
"""What counts for the rate of speech: a Chinese character, a mark, or a word of letters."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one call. ``request_id``: the call's; ``task_id``: "" for a task that was not
    accepted."""

    request_id: str
    task_id: str

    def submitted(self) -> dict[str, object]:
        """The task was accepted."""
        return self._with(SUCCESS)

    def refused(self, error: SpeechError) -> dict[str, object]:
        """It was not, or there is none. ``Message`` is ours."""
        return {**self._with(status_of(error)), "Message": error.text}

    def queueing(self) -> dict[str, object]:
        """It waits."""
        return self._with(QUEUEING)

    def running(self) -> dict[str, object]:
        """It is worked on."""
        return {**self._with(RUNNING), "BizDuration": 0}

    def failed(self, code: int, text: str, ended_at: int) -> dict[str, object]:
        """It has ended without a result; ``code``: of :func:`status_of`. ``ended_at``: seconds
        since 1970."""
        status = _BY_CODE.get(code, INTERNAL_ERROR)
        return {**self._with(status), **_ended(0, ended_at), "Message": text}

    def success(self, found: Transcription, ended_at: int) -> dict[str, object]:
        """Its result. It takes a while where that is large: call it in a thread."""
        status = SUCCESS if found.sentences else NO_VALID_FRAGMENT
        answer = {**self._with(status), **_ended(found.audio_ms, ended_at)}
        if found.sentences:
            answer["Result"] = msgspec.Raw(msgspec.json.encode(_result(found)))
        return answer

    def _with(self, status: Status) -> dict[str, object]:
        return {
            "TaskId": self.task_id,
            "RequestId": self.request_id,
            "StatusText": status.reason,
            "StatusCode": status.code,
        }


_BY_CODE: Final = {
    status.code: status for status in (*_BY_ERROR.values(), INTERRUPTED, EMPTY_APPKEY)
}


def _ended(audio_ms: int, at: int) -> dict[str, object]:
    return {"BizDuration": audio_ms, "SolveTime": at * 1000}


def _result(found: Transcription) -> _Result:
    sentences, ends = [], dict[int, int]()
    for each in found.sentences:
        silence_ms = each.start_ms - ends.get(each.channel, 0)
        ends[each.channel] = each.end_ms
        sentences.append(
            _Sentence(
                channel_id=each.channel,
                begin_time=each.start_ms,
                end_time=each.end_ms,
                text=each.text,
                # As the cloud defines it: the level in dB, by ten, 1 to 10.
                emotion_value=round(min(max(each.level_db / 10, 1.0), 10.0), 1),
                speech_rate=_speech_rate(each),
                silence_duration=max(silence_ms, 0) // 1000,
            )
        )
    words = [
        _Word(each.channel, word.text, word.start_ms, word.end_ms)
        for each in found.sentences
        for word in each.words
    ]
    return _Result(sentences, words or None)


def _speech_rate(sentence: TranscribedSentence) -> int:
    """In a minute."""
    length_ms = max(sentence.end_ms - sentence.start_ms, 1)
    return len(_SPOKEN.findall(sentence.text)) * 60_000 // length_ms
