"""Whatever a client, the service or the clock does, the connection stays within the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count, cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import (
    AccessDenied,
    AppkeyMismatch,
    BadAudio,
    DailyQuotaUsed,
    EngineFailed,
    InvalidSsml,
    Overloaded,
    UnknownAppkey,
)
from app.core.project import DEFAULT_PROJECT, Project
from app.core.speech import (
    AudioProcessed,
    RecognitionEvent,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    SpeechBegan,
    SpeechEnded,
    SpeechEvent,
    Subtitle,
    Word,
)
from app.nls.connection import Connection
from app.nls.namespaces import NAMESPACES
from app.nls.outputs import (
    Abandon,
    Close,
    Feed,
    FinishText,
    FlushText,
    OpenTextStream,
    Output,
    Say,
    Send,
    SendAudio,
)
from app.nls.task import Limits
from tests.support.fuzz_messages import TASK_IDS, check_event, json_values, messages

REFUSED = {"unknown": UnknownAppkey, "other": AppkeyMismatch, "spent": DailyQuotaUsed}
PROJECTS: dict[str | None, Project] = {
    "p": Project(
        defaults={"enable_subtitle": True, "enable_voice_detection": True, "sample_rate": "x"},
        voices=frozenset({"xiaoyun"}),
        max_rate=8000,
    )
}

Step = Callable[[Connection, float], list[Output]]


def new_connection(limits: Limits | None = None) -> Connection:
    def authorize(token: str | None, appkey: str | None) -> Project:
        if token == "wrong":
            raise AccessDenied
        if appkey in REFUSED:
            raise REFUSED[appkey]
        return PROJECTS.get(appkey, DEFAULT_PROJECT)

    ids = count(1)
    return Connection(
        authorize=authorize,
        new_id=lambda: f"{next(ids):032x}",
        limits=limits or Limits(max_text_chars=50, max_long_text_chars=60, max_piece_chars=50),
        now=0.0,
    )


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


spoken: st.SearchStrategy[SpeechEvent] = st.one_of(
    st.builds(SpeechBegan, times, times, texts),
    st.builds(
        SpeechEnded,
        times,
        times,
        times,
        st.lists(st.builds(Subtitle, texts, times, times, times, times), max_size=3).map(tuple),
    ),
)


def ping(connection: Connection, now: float) -> list[Output]:
    connection.ping(now)
    return []


wild_steps: st.SearchStrategy[Step] = st.one_of(
    messages().map(say),
    st.text().map(say),
    json_values.map(json.dumps).map(say),
    st.sampled_from([Overloaded(), BadAudio(), EngineFailed(), InvalidSsml()]).map(
        lambda error: lambda c, now: c.failed(error, now)
    ),
    st.sampled_from([Connection.drain, Connection.finish_early, Connection.cut_off]),
)
tame_steps: st.SearchStrategy[Step] = st.one_of(
    st.binary(max_size=9).map(lambda data: lambda c, now: c.binary(data, now)),
    st.just(lambda c, now: c.opened(now)),
    st.just(lambda c, now: c.finished(now)),
    st.just(lambda c, now: c.tick(now)),
    st.just(ping),
    spoken.map(lambda event: lambda c, now: c.speech(event, now)),
    events.map(lambda event: lambda c, now: c.event(event, now)),
    st.sampled_from([1, 70_000]).map(lambda n: lambda c, now: c.audio(bytes(n), now)),
)


@st.composite
def tasks(draw: st.DrawFn, namespace: str) -> list[Step]:
    """A task as it should be, with anything harmless in between; most sequences begin so."""
    start = NAMESPACES[namespace].START
    between = st.lists(tame_steps, max_size=4)
    return [
        say(envelope(namespace, start, {"text": "hi", **draw(st.sampled_from(OPTIONS))})),
        lambda c, now: c.opened(now),
        *draw(between),
        *draw(SAID.get(namespace, nothing)),
        *draw(between),
        *([] if start == "StartSynthesis" and namespace not in SAID else [stop_of(namespace)]),
        *draw(between),
        lambda c, now: c.finished(now),
    ]


def stop_of(namespace: str) -> Step:
    return say(envelope(namespace, NAMESPACES[namespace].START.replace("Start", "Stop")))


def some_of(namespace: str, *directives: tuple[str, object]) -> st.SearchStrategy[list[Step]]:
    said = [say(envelope(namespace, name, payload)) for name, payload in directives]
    return st.lists(st.sampled_from(said), max_size=4)


nothing: st.SearchStrategy[list[Step]] = st.just([])
SAID = {
    "FlowingSpeechSynthesizer": some_of(
        "FlowingSpeechSynthesizer",
        ("RunSynthesis", {"text": "你好。"}),
        ("RunSynthesis", {"text": ""}),
        ("RunSynthesis", {"text": "字" * 30}),
        ("FlushText", None),
    ),
    "SpeechTranscriber": some_of(
        "SpeechTranscriber", ("ControlTranscriber", {"max_sentence_silence": 300})
    ),
}
OPTIONS: list[dict[str, object]] = [
    {},
    {"enable_intermediate_result": True, "enable_words": True},
    {"enable_voice_detection": True, "max_start_silence": 3000},
    {"enable_subtitle": True, "text": None},
    {"enable_subtitle": True, "enable_ssml": True},
]


def sequences(namespace: str) -> st.SearchStrategy[list[Step]]:
    return st.builds(
        lambda before, after: [step for task in before for step in task] + after,
        st.lists(tasks(namespace), max_size=2),
        st.lists(tame_steps | wild_steps, max_size=8),
    )


SEQUENCES = {namespace: sequences(namespace) for namespace in NAMESPACES}


@pytest.mark.parametrize("namespace", NAMESPACES)
@settings(max_examples=2000, deadline=None)
@given(data=st.data(), pauses=st.lists(st.floats(0, 12), min_size=1, max_size=5))
def test_any_sequence_yields_protocol_outputs_and_nothing_after_close(
    namespace: str, data: st.DataObject, pauses: list[float]
) -> None:
    sequence = data.draw(SEQUENCES[namespace])
    connection, now, closed, takes_text = new_connection(), 0.0, False, False
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
                    failed = check_event(output.text) == "TaskFailed"
                case SendAudio(audio) | Feed(audio):
                    assert 0 < len(audio) <= 65_536
                case OpenTextStream():
                    takes_text = True
                case Say(text):
                    assert takes_text
                    assert text
                case FlushText():
                    assert takes_text
                case FinishText():
                    assert takes_text
                    takes_text = False
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


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30), st.booleans(), st.booleans())
def test_a_flowing_text_keeps_the_order_of_its_events(
    steps: list[int], subtitles: bool, opened_late: bool
) -> None:
    """Started, (Begin, Synthesis*, End)*, Completed; and all text in order, whenever it comes."""
    namespace, now = "FlowingSpeechSynthesizer", 0.0
    connection = new_connection()
    payload = {"enable_subtitle": subtitles}
    outputs = connection.text(envelope(namespace, "StartSynthesis", payload), now)
    if not opened_late:
        outputs += connection.opened(now)
    given_text, sentence = "", 0
    for step in steps:
        match step:
            case 0 | 1:
                given_text += str(step)
                message = envelope(namespace, "RunSynthesis", {"text": str(step)})
                outputs += connection.text(message, now)
            case 2:
                outputs += connection.text(envelope(namespace, "FlushText"), now)
            case 3:
                outputs += connection.audio(b"xx", now)
            case _ if not opened_late:
                sentence += 1
                outputs += connection.speech(SpeechBegan(sentence, 0, "0"), now)
                marks = (Subtitle("0", 0, 1, 0, 1),) * step
                outputs += connection.speech(SpeechEnded(sentence, 0, 1, marks), now)
    outputs += connection.text(envelope(namespace, "StopSynthesis"), now)
    if opened_late:
        outputs += connection.opened(now)
    outputs += connection.finished(now)
    assert "".join(output.text for output in outputs if isinstance(output, Say)) == given_text
    assert sum(isinstance(output, FlushText) for output in outputs) == steps.count(2)
    assert sum(isinstance(output, FinishText) for output in outputs) == 1
    sent = [json.loads(output.text) for output in outputs if isinstance(output, Send)]
    names = [event["header"]["name"] for event in sent]
    one = ["SentenceBegin", *(["SentenceSynthesis"] if subtitles else []), "SentenceEnd"]
    assert names == ["SynthesisStarted", *one * sentence, "SynthesisCompleted"]
    begun = [event["payload"]["index"] for event in sent if event["header"]["name"] == one[0]]
    assert begun == list(range(1, sentence + 1))
    assert sent[-1]["payload"]["measureLength"] == len(given_text)
