"""What the golden transcripts do not show: timers, limits, log properties, driver mistakes."""

from __future__ import annotations

import json
from itertools import count

import pytest

from app.core.errors import EngineFailed, Overloaded, StreamsFull
from app.core.project import DEFAULT_PROJECT, Project
from app.core.speech import (
    AudioProcessed,
    SentenceBegan,
    SentenceEnded,
    SpeechBegan,
    SpeechEnded,
    Word,
)
from app.nls.connection import Connection
from app.nls.namespaces import NAMESPACES
from app.nls.outputs import Abandon, Close, Feed, OpenRecognition, OpenSynthesis, Output, Send
from app.nls.task import Limits

STARTS = {
    "SpeechTranscriber": "StartTranscription",
    "SpeechRecognizer": "StartRecognition",
    "SpeechSynthesizer": "StartSynthesis",
    "SpeechLongSynthesizer": "StartSynthesis",
    "FlowingSpeechSynthesizer": "StartSynthesis",
}


class Client:
    """A connection with a client that sends well-formed messages."""

    def __init__(self, limits: Limits | None = None, *, draining: bool = False) -> None:
        ids = count(1)
        self.seen: list[tuple[str | None, str | None]] = []
        self.connection = Connection(
            authorize=self._authorize,
            new_id=lambda: f"{next(ids):032x}",
            limits=limits or Limits(),
            now=100.0,
            draining=draining,
        )

    def _authorize(self, token: str | None, appkey: str | None) -> Project:
        self.seen.append((token, appkey))
        return DEFAULT_PROJECT

    def say(
        self, namespace: str, name: str, now: float, payload: object = None, **header: str
    ) -> list[Output]:
        fields = {"message_id": "0" * 32, "task_id": "a" * 32, "appkey": "k"} | header
        message = {"header": {**fields, "namespace": namespace, "name": name}, "payload": payload}
        return self.connection.text(json.dumps(message), now)

    def start(self, namespace: str, now: float, **header: str) -> list[Output]:
        return self.say(namespace, STARTS[namespace], now, {"text": "hi"}, **header)


def names(outputs: list[Output]) -> list[str]:
    return [json.loads(o.text)["header"]["name"] for o in outputs if isinstance(o, Send)]


def status(outputs: list[Output]) -> int:
    sent = [json.loads(o.text) for o in outputs if isinstance(o, Send)]
    return int(sent[-1]["header"]["status"])


def test_the_table_names_each_namespace_by_its_class() -> None:
    assert {name: kind.START for name, kind in NAMESPACES.items()} == STARTS


def test_recognition_deadlines() -> None:
    client = Client(Limits(idle_timeout_s=10, idle_between_tasks_s=60))
    connection = client.connection
    assert connection.deadline() == 160
    client.start("SpeechTranscriber", 110)
    assert connection.deadline() is None, "waiting for the service is not the client's fault"
    connection.opened(120)
    assert connection.deadline() == 130
    connection.binary(b"", 125)
    assert connection.deadline() == 135
    connection.event(SentenceBegan(0), 126)
    assert connection.deadline() == 135, "results are no sign of life of the client"
    connection.touch(128)
    assert connection.deadline() == 138
    client.say("SpeechTranscriber", "StopTranscription", 130)
    assert connection.deadline() is None, "after Stop it is our turn"
    connection.finished(150)
    assert connection.deadline() == 210


def test_synthesis_has_no_idle_time() -> None:
    client = Client()
    client.start("SpeechSynthesizer", 110)
    client.connection.opened(110)
    assert client.connection.deadline() is None
    assert client.connection.tick(10_000) == []


def test_flowing_deadlines() -> None:
    client = Client(Limits(idle_timeout_s=10, idle_with_pings_s=23))
    connection = client.connection
    client.say("FlowingSpeechSynthesizer", "StartSynthesis", 110)
    connection.ping(111)
    assert connection.deadline() is None, "waiting for the service is not the client's fault"
    connection.opened(120)
    assert connection.deadline() == 130
    connection.ping(126)
    assert connection.deadline() == 136
    connection.ping(134)
    assert connection.deadline() == 143, "pings alone do not do for ever"
    client.say("FlowingSpeechSynthesizer", "RunSynthesis", 140, {"text": "a."})
    assert connection.deadline() == 150
    connection.speech(SpeechBegan(1, 0, "a."), 145)
    assert connection.deadline() is None, "it hears a sentence"
    connection.speech(SpeechEnded(1, 0, 9), 160)
    assert connection.deadline() == 170
    client.say("FlowingSpeechSynthesizer", "StopSynthesis", 165)
    assert connection.deadline() is None, "after Stop it is our turn"
    connection.finished(180)
    connection.ping(190)
    assert connection.deadline() == 240, "between tasks pings are no sign of life"


def test_the_limits_of_a_text_are_those_of_its_namespace() -> None:
    limits = Limits(max_text_chars=3, max_long_text_chars=5, max_piece_chars=4)
    for namespace, accepted in (("SpeechSynthesizer", 3), ("SpeechLongSynthesizer", 5)):
        for chars, opens in ((accepted, True), (accepted + 1, False)):
            payload = {"text": "x" * chars}
            output = Client(limits).say(namespace, "StartSynthesis", 110, payload)[0]
            assert isinstance(output, OpenSynthesis) is opens


def test_idle_text_names_the_last_directive() -> None:
    client = Client()
    client.start("SpeechTranscriber", 110)
    client.connection.opened(110)
    client.say("SpeechTranscriber", "ControlTranscription", 111, {})
    assert client.connection.tick(120.9) == []
    outputs = client.connection.tick(121)
    assert isinstance(outputs[0], Abandon)
    assert isinstance(outputs[1], Send)
    assert "the last directive is 'ControlTranscription'!" in outputs[1].text
    assert status(outputs) == 40000004


def test_log_properties() -> None:
    client = Client()
    connection = client.connection
    assert (connection.task_id, connection.namespace, connection.active) == ("", "", False)
    client.start("SpeechRecognizer", 110)
    assert (connection.task_id, connection.namespace) == ("a" * 32, "SpeechRecognizer")
    assert connection.active
    outputs = connection.failed(StreamsFull(), 111)
    assert isinstance(outputs[-1], Close)
    assert outputs[-1].reason == "streams"
    assert outputs[-1].status is not None
    assert outputs[-1].status.reason == "TOO_MANY_REQUESTS"
    assert (connection.task_id, connection.active, connection.closed) == ("a" * 32, False, True)


def test_a_start_while_the_server_ends_is_refused_for_that_reason() -> None:
    outputs = Client(draining=True).start("SpeechTranscriber", 110)
    assert status(outputs) == 40000005
    assert isinstance(outputs[-1], Close)
    assert (outputs[-1].code, outputs[-1].reason) == (1001, "draining")


def test_other_failures_have_no_reason() -> None:
    client = Client()
    client.start("SpeechTranscriber", 110)
    outputs = client.connection.failed(EngineFailed(), 111)
    assert isinstance(outputs[-1], Close)
    assert outputs[-1].reason == ""


def test_a_refused_start_is_logged_with_its_id_and_abandons_nothing() -> None:
    client = Client()
    outputs = client.say("SpeechSynthesizer", "StartSynthesis", 110, {})
    assert not any(isinstance(output, Abandon) for output in outputs)
    assert client.connection.task_id == "a" * 32
    assert not client.connection.active


def test_authorize_sees_token_and_appkey_of_each_start() -> None:
    client = Client()
    client.start("SpeechTranscriber", 110, token="t1")
    client.say("SpeechTranscriber", "StopTranscription", 111, token="t2")
    client.connection.finished(112)
    client.start("SpeechRecognizer", 113)
    assert client.seen == [("t1", "k"), (None, "k")]


@pytest.mark.parametrize("namespace", STARTS)
def test_reports_without_a_task_are_harmless(namespace: str) -> None:
    client = Client()
    connection = client.connection

    def report_all() -> list[Output]:
        return [
            *connection.opened(111),
            *connection.event(SentenceEnded(0, 1, "x"), 111),
            *connection.event(AudioProcessed(99_999), 111),
            *connection.audio(b"x", 111),
            *connection.speech(SpeechBegan(1, 0, "x"), 111),
            *connection.speech(SpeechEnded(1, 0, 1), 111),
            *connection.finished(111),
            *connection.failed(Overloaded(), 111),
        ]

    assert report_all() == []
    client.start(namespace, 112)
    connection.finished(113)
    assert report_all() == []
    client.start(namespace, 114)
    connection.text("no json", 115)
    assert connection.closed
    assert report_all() == []


@pytest.mark.parametrize("namespace", STARTS)
def test_reports_of_the_other_kind_are_harmless(namespace: str) -> None:
    client = Client()
    client.start(namespace, 110)
    outputs = client.connection.audio(b"", 111)
    if STARTS[namespace] == "StartSynthesis":
        outputs += client.connection.event(SentenceEnded(0, 1, "x"), 111)
    else:
        outputs += client.connection.audio(b"xx", 111)
    assert outputs == []


def test_a_late_stop_after_completed_is_ignored_but_another_id_is_not() -> None:
    client = Client()
    client.start("SpeechTranscriber", 110)
    client.say("SpeechTranscriber", "StopTranscription", 111)
    client.connection.finished(112)
    assert client.say("SpeechTranscriber", "StopTranscription", 113) == []
    outputs = client.say("SpeechTranscriber", "StopTranscription", 114, task_id="b" * 32)
    assert status(outputs) == 40010005


def test_a_result_too_large_for_a_frame_fails_the_task() -> None:
    client = Client()
    client.start("SpeechTranscriber", 110)
    client.connection.opened(110)
    client.connection.event(SentenceBegan(0), 111)
    outputs = client.connection.event(SentenceEnded(0, 9, "字" * 22_000), 111)
    assert isinstance(outputs[0], Abandon)
    assert names(outputs) == ["TaskFailed"]
    assert status(outputs) == 50000000


def test_word_times_stay_inside_java_integers() -> None:
    client = Client()
    client.say(
        "SpeechTranscriber",
        "StartTranscription",
        110,
        {"tw_time_offset": 2**62, "tw_index_offset": -5, "enable_words": 1},
    )
    client.connection.opened(110)
    words = (Word("a", 0, 86_400_000),)
    outputs = client.connection.event(SentenceEnded(0, 86_400_000, "a", words), 111)
    end = json.loads(outputs[-1].text)["payload"] if isinstance(outputs[-1], Send) else {}
    assert end["index"] == 1
    assert end["words"][0]["endTime"] == end["time"] < 2**31


@pytest.mark.parametrize("given", [5, "", "x" * 129, None])
def test_an_unusable_session_id_is_replaced(given: object) -> None:
    client = Client()
    client.say("SpeechTranscriber", "StartTranscription", 110, {"session_id": given})
    outputs = client.connection.opened(110)
    assert isinstance(outputs[0], Send)
    assert len(json.loads(outputs[0].text)["payload"]["session_id"]) == 32


@pytest.mark.parametrize(
    ("payload", "silence"),
    [
        ({}, 60_000),
        ({"max_end_silence": 300}, 60_000),
        ({"enable_voice_detection": True}, 800),
        ({"enable_voice_detection": True, "max_end_silence": 50}, 200),
        ({"enable_voice_detection": True, "max_end_silence": 3000}, 3000),
    ],
)
def test_recognizer_silence(payload: dict[str, object], silence: int) -> None:
    outputs = Client().say("SpeechRecognizer", "StartRecognition", 110, payload)
    assert isinstance(outputs[0], OpenRecognition)
    assert outputs[0].request.options.max_sentence_silence_ms == silence
    assert outputs[0].request.max_audio_ms == 60_000


@pytest.mark.parametrize("limit", [0, -1, None])
def test_no_start_silence_unless_given(limit: object) -> None:
    client = Client()
    payload = {"enable_voice_detection": True, "max_start_silence": limit}
    client.say("SpeechRecognizer", "StartRecognition", 110, payload)
    client.connection.opened(110)
    assert client.connection.event(AudioProcessed(59_000), 150) == []


def test_formats_are_those_of_the_limits() -> None:
    limits = Limits(recognition_formats=("opus",), synthesis_formats=("mp3",))
    payload = {"format": "opus", "text": "hi"}
    assert isinstance(
        Client(limits).say("SpeechRecognizer", "StartRecognition", 110, payload)[0],
        OpenRecognition,
    )
    outputs = Client(limits).say("SpeechSynthesizer", "StartSynthesis", 110, payload)
    assert status(outputs) == 40010003
    payload["format"] = "mp3"
    assert isinstance(
        Client(limits).say("SpeechSynthesizer", "StartSynthesis", 110, payload)[0], OpenSynthesis
    )


def test_audio_of_any_size_is_fed_in_one_piece() -> None:
    client = Client()
    client.start("SpeechTranscriber", 110)
    assert client.connection.binary(bytes(1_000_001), 111) == [Feed(bytes(1_000_001))]
