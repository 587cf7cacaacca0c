"""Whatever a client, the service or the clock does, the connection stays within the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count, cycle
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import AccessDenied, BadAudio, EngineFailed, Overloaded
from app.core.speech import (
    AudioProcessed,
    RecognitionEvent,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.nls.connection import Connection
from app.nls.outputs import Abandon, Close, Feed, Output, Send, SendAudio
from app.nls.task import Limits

KNOWN_EVENTS = {
    "TaskFailed",
    "RecognitionStarted",
    "RecognitionResultChanged",
    "RecognitionCompleted",
    "TranscriptionStarted",
    "SentenceBegin",
    "TranscriptionResultChanged",
    "SentenceEnd",
    "TranscriptionCompleted",
    "SynthesisCompleted",
}
DOCUMENTED_FAILURES = {
    40000001, 40000002, 40000003, 40000004, 40000005, 40000009, 40010001, 40010002, 40010003,
    40010005, 41010100, 41010101, 50000000, 50000001,
}  # fmt: skip
TASK_IDS = ["a" * 32, "B" * 32]

Step = Callable[[Connection, float], list[Output]]


def new_connection(limits: Limits | None = None) -> Connection:
    def authorize(token: str | None, appkey: str | None) -> None:
        if token == "wrong":
            raise AccessDenied

    ids = count(1)
    return Connection(
        authorize=authorize,
        new_id=lambda: f"{next(ids):032x}",
        limits=limits or Limits(max_text_chars=50),
        now=0.0,
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
parameter_names = st.sampled_from(
    [
        "format", "sample_rate", "enable_intermediate_result", "enable_words",
        "enable_voice_detection", "max_start_silence", "max_end_silence", "max_sentence_silence",
        "text", "voice", "speech_rate", "pitch_rate", "volume",
        "token", "session_id", "tw_time_offset", "tw_index_offset",
    ]
)  # fmt: skip
good_values = st.sampled_from(["pcm", "wav", 16000, "8000", True, "true", 0, 1, "hi", 500, None])
payloads = st.one_of(
    st.just({"text": "hi", "enable_intermediate_result": True, "enable_words": True}),
    st.just({"enable_voice_detection": True, "max_start_silence": 3000}),
    st.dictionaries(parameter_names, good_values | json_values, max_size=4),
    json_values,
)
DIRECTIVES = [
    ("SpeechTranscriber", "StartTranscription"),
    ("SpeechTranscriber", "ControlTranscriber"),
    ("SpeechTranscriber", "ControlTranscription"),
    ("SpeechTranscriber", "StopTranscription"),
    ("SpeechRecognizer", "StartRecognition"),
    ("SpeechRecognizer", "StopRecognition"),
    ("SpeechSynthesizer", "StartSynthesis"),
    ("SpeechSynthesizer", "StopSynthesis"),
    ("FlowingSpeechSynthesizer", "RunSynthesis"),
]
NAMESPACES = {namespace for namespace, _ in DIRECTIVES[:-1]}


@st.composite
def messages(draw: st.DrawFn) -> str:
    """Mostly well-formed messages, with now and then anything in any place."""
    namespace, name = draw(st.sampled_from(DIRECTIVES))
    header: dict[str, Any] = {
        "message_id": "0" * 32,
        "task_id": TASK_IDS[draw(st.integers(0, 9)) == 0],
        "namespace": namespace,
        "name": name,
        "appkey": "k",
    }
    if draw(st.integers(0, 9)) == 0:
        header[draw(st.sampled_from([*header, "token"]))] = draw(json_values)
    return json.dumps({"header": header, "payload": draw(payloads)})


texts = st.text(max_size=30)
times = st.integers(0, 100_000)
words = st.builds(Word, texts, times, times)
word_lists = st.lists(words, max_size=3).map(tuple)
events: st.SearchStrategy[RecognitionEvent | AudioProcessed] = st.one_of(
    st.builds(AudioProcessed, times),
    st.builds(SentenceBegan, times),
    st.builds(SentenceChanged, texts, times, word_lists),
    st.builds(
        SentenceEnded,
        times,
        times,
        texts,
        word_lists,
        st.none() | st.floats(0, 1),
        st.none() | texts,
        st.none() | texts | st.just("happy"),
        st.lists(texts, max_size=3).map(tuple),
    ),
)


def say(data: str) -> Step:
    return lambda c, now: c.text(data, now)


def envelope(namespace: str, name: str, payload: object = None) -> str:
    header = {
        "message_id": "0" * 32,
        "task_id": TASK_IDS[0],
        "namespace": namespace,
        "name": name,
        "appkey": "k",
    }
    return json.dumps({"header": header, "payload": payload})


wild_steps: st.SearchStrategy[Step] = st.one_of(
    messages().map(say),
    st.text().map(say),
    json_values.map(json.dumps).map(say),
    st.sampled_from([Overloaded(), BadAudio(), EngineFailed()]).map(
        lambda error: lambda c, now: c.failed(error, now)
    ),
    st.sampled_from([Connection.drain, Connection.finish_early, Connection.cut_off]),
)
tame_steps: st.SearchStrategy[Step] = st.one_of(
    st.binary(max_size=9).map(lambda data: lambda c, now: c.binary(data, now)),
    st.just(lambda c, now: c.opened(now)),
    st.just(lambda c, now: c.finished(now)),
    st.just(lambda c, now: c.tick(now)),
    events.map(lambda event: lambda c, now: c.event(event, now)),
    st.sampled_from([1, 70_000]).map(lambda n: lambda c, now: c.audio(bytes(n), now)),
)


@st.composite
def tasks(draw: st.DrawFn) -> list[Step]:
    """A task as it should be, with anything harmless in between; most sequences begin so."""
    namespace, name = draw(st.sampled_from([d for d in DIRECTIVES if d[1] in STARTS]))
    between = st.lists(tame_steps, max_size=6)
    stop = say(envelope(namespace, name.replace("Start", "Stop")))
    return [
        say(envelope(namespace, name, {"text": "hi", **draw(st.sampled_from(OPTIONS))})),
        lambda c, now: c.opened(now),
        *draw(between),
        *([] if name == "StartSynthesis" else [stop]),
        *draw(between),
        lambda c, now: c.finished(now),
    ]


STARTS = {"StartTranscription", "StartRecognition", "StartSynthesis"}
OPTIONS: list[dict[str, object]] = [
    {},
    {"enable_intermediate_result": True, "enable_words": True},
    {"enable_voice_detection": True, "max_start_silence": 3000},
]
sequences = st.builds(
    lambda before, after: [step for task in before for step in task] + after,
    st.lists(tasks(), max_size=3),
    st.lists(tame_steps | wild_steps, max_size=8),
)


def check_event(send: Send) -> str:
    assert len(send.text.encode()) <= 65_536
    event = json.loads(send.text)
    header = event["header"]
    assert header["name"] in KNOWN_EVENTS
    assert type(header["status"]) is int
    assert header["status_text"] == header["status_message"]
    assert header["status_text"].isprintable()
    assert event.get("payload", {}) is not None
    if header["name"] == "TaskFailed":
        assert header["status"] in DOCUMENTED_FAILURES
    else:
        assert header["status"] == 20000000
        assert header["namespace"] in NAMESPACES
        assert header["task_id"] in TASK_IDS
    return str(header["name"])


@settings(max_examples=300, deadline=None)
@given(sequences, st.lists(st.floats(0, 12), min_size=1))
def test_any_sequence_yields_protocol_outputs_and_nothing_after_close(
    sequence: list[Step], pauses: list[float]
) -> None:
    connection, now, closed = new_connection(), 0.0, False
    for step, pause in zip(sequence, cycle(pauses), strict=False):
        now += pause
        outputs = step(connection, now)
        assert not (closed and outputs)
        failed = False
        for output in outputs:
            assert not closed
            assert not failed or isinstance(output, Close)
            match output:
                case Send():
                    failed = check_event(output) == "TaskFailed"
                case SendAudio(data) | Feed(data):
                    assert 0 < len(data) <= 65_536
                case Close():
                    closed, failed = True, False
        assert not failed
        assert closed == connection.closed
        assert not (closed and connection.active)
        assert not (closed and connection.deadline() is not None)


def start(namespace: str, payload: dict[str, object]) -> str:
    name = {"SpeechTranscriber": "StartTranscription", "SpeechRecognizer": "StartRecognition"}
    return envelope(namespace, name[namespace], payload)


@settings(max_examples=100, deadline=None)
@given(st.lists(events, max_size=20), st.integers(0, 20))
def test_a_transcription_keeps_the_order_of_its_events(
    given_events: list[RecognitionEvent | AudioProcessed], stop_at: int
) -> None:
    """Even for an engine that keeps none: Started, (Begin, Changed*, End)*, Completed."""
    connection = new_connection()
    payload: dict[str, object] = {"enable_intermediate_result": True, "enable_words": True}
    connection.text(start("SpeechTranscriber", payload), 0.0)
    outputs = connection.opened(0.0)
    legal = sentences_only(given_events)
    for number, event in enumerate(legal):
        if number == stop_at:
            connection.text(envelope("SpeechTranscriber", "StopTranscription"), 0.0)
        outputs += connection.event(event, 0.0)
    outputs += connection.finished(0.0)
    sent = [json.loads(output.text) for output in outputs if isinstance(output, Send)]
    names = [event["header"]["name"] for event in sent]
    assert names[0] == "TranscriptionStarted"
    assert names[-1] == "TranscriptionCompleted"
    index, begin, is_open = 0, 0, False
    for message in sent[1:-1]:
        result, name = message["payload"], message["header"]["name"]
        if name == "SentenceBegin":
            assert not is_open
            index, begin, is_open = index + 1, result["time"], True
        else:
            assert is_open
            assert result["time"] >= begin
        if name == "SentenceEnd":
            assert result["begin_time"] == begin
            is_open = False
        assert result["index"] == index


def sentences_only(
    given_events: list[RecognitionEvent | AudioProcessed],
) -> list[RecognitionEvent | AudioProcessed]:
    """Drop a second Began in a sentence; the rest may be out of order."""
    kept: list[RecognitionEvent | AudioProcessed] = []
    is_open = False
    for event in given_events:
        if isinstance(event, SentenceBegan) and is_open:
            continue
        if isinstance(event, SentenceBegan):
            is_open = True
        if isinstance(event, SentenceEnded):
            is_open = False
        kept.append(event)
    return kept


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=7), max_size=20), st.booleans())
def test_audio_passes_whole_in_any_cut(frames: list[bytes], opened: bool) -> None:
    connection = new_connection()
    connection.text(start("SpeechRecognizer", {}), 0.0)
    if opened:
        connection.opened(0.0)
    outputs = [output for frame in frames for output in connection.binary(frame, 0.0)]
    fed = b"".join(output.data for output in outputs if isinstance(output, Feed))
    assert fed == b"".join(frames)


@settings(max_examples=50, deadline=None)
@given(st.lists(events, max_size=10))
def test_a_recognition_completes_exactly_once(
    given_events: list[RecognitionEvent | AudioProcessed],
) -> None:
    for voice_detection in (False, True):
        connection = new_connection()
        payload: dict[str, object] = {
            "enable_voice_detection": voice_detection,
            "max_start_silence": 3000,
        }
        connection.text(start("SpeechRecognizer", payload), 0.0)
        outputs = connection.opened(0.0)
        for event in given_events:
            outputs += connection.event(event, 0.0)
        outputs += connection.text(envelope("SpeechRecognizer", "StopRecognition"), 0.0)
        outputs += connection.finished(0.0)
        sent = [json.loads(output.text) for output in outputs if isinstance(output, Send)]
        names = [event["header"]["name"] for event in sent]
        assert names == ["RecognitionStarted", "RecognitionCompleted"]
        assert isinstance(sent[-1]["payload"]["result"], str)
        assert sum(isinstance(output, Abandon) for output in outputs) <= int(voice_detection)
