"""nls-protocol.md 9, Envelope: numbers 17 to 30."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from tests.conformance.clock import OWN_LOOP, Clock
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    COMPLETED,
    MESSAGE_ID,
    ONE_TEXT,
    PING,
    PONG,
    STARTS,
    STOPS,
    TASK_ID,
    TEXT,
    RawSocket,
    frame,
    message,
    opened,
    start,
    stop,
    whole_task,
)
from tests.support.sound import joined, silence, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOWING = "FlowingSpeechSynthesizer"
RECOGNITION = ("SpeechTranscriber", "SpeechRecognizer")

EVENTS = {
    "TaskFailed",
    "RecognitionStarted",
    "RecognitionResultChanged",
    "RecognitionCompleted",
    "TranscriptionStarted",
    "SentenceBegin",
    "TranscriptionResultChanged",
    "SentenceEnd",
    "SentenceSemantics",
    "TranscriptionCompleted",
    "SynthesisStarted",
    "MetaInfo",
    "SentenceSynthesis",
    "SynthesisCompleted",
}
"""nls-protocol.md 1.6."""

every_namespace = pytest.mark.parametrize("namespace", STARTS)
started_namespace = pytest.mark.parametrize("namespace", [*RECOGNITION, FLOWING])


@dataclass
class Spoken:
    """A task, and the texts of all its events, as they came."""

    namespace: str
    task_id: str
    texts: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The same, read."""
        return [json.loads(text) for text in self.texts]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spoken(live: Live) -> list[Spoken]:
    """One task of each namespace, with everything that has events of its own, on one connection;
    then one that fails."""
    tasks = [Spoken(namespace, f"{number:x}" * 32) for number, namespace in enumerate(STARTS, 10)]
    async with opened(live) as client:
        for task in tasks:
            await _speak(client, task)
        failing = Spoken("SpeechRecognizer", "f" * 32)
        await client.text(message(failing.namespace, "Nonsense", task_id=failing.task_id))
        await _until(client, failing, "TaskFailed")
        assert await client.closed() == 1000
    return [*tasks, failing]


async def _speak(client: RawSocket, task: Spoken) -> None:
    def sent(name: str, **payload: object) -> str:
        return message(task.namespace, name, payload, task.task_id)

    start_name = STARTS[task.namespace]
    if task.namespace in RECOGNITION:
        options = {"enable_intermediate_result": True, "enable_words": True, "enable_nlp": True}
        await client.text(sent(start_name, **options))
        await _until(client, task, start_name.replace("Start", "") + "Started")
        for _ in range(5):
            await client.audio(tone(300).tobytes())
        await client.audio(joined(silence(1_000), tone(300)).tobytes())
        await client.text(sent(STOPS[task.namespace]))
    else:
        text = "你好。再见。"
        whole = {"text": text} if task.namespace in ONE_TEXT else {}
        await client.text(sent(start_name, enable_subtitle=True, **whole))
        if task.namespace == FLOWING:
            await client.text(*(sent("RunSynthesis", text=each) for each in text))
            await client.text(sent("FlushText"), sent("StopSynthesis"))
    await _until(client, task, COMPLETED[task.namespace])


async def _until(client: RawSocket, task: Spoken, name: str) -> None:
    """All events up to this one; audio is left out (and never empty: RawSocket looks)."""
    while not task.texts or json.loads(task.texts[-1])["header"]["name"] != name:
        got = await client.frame()
        if got.opcode == TEXT:
            task.texts.append(got.payload.decode())


def headers(spoken: Sequence[Spoken]) -> list[tuple[Spoken, dict[str, Any]]]:
    """Of every event, with its task."""
    return [(task, event["header"]) for task in spoken for event in task.events]


async def test_17_the_namespace_is_the_requests(spoken: list[Spoken]) -> None:
    for task, header in headers(spoken):
        failed = header["name"] == "TaskFailed"
        assert header["namespace"] == ("Default" if failed else task.namespace)


async def test_18_the_status_is_an_integer(spoken: list[Spoken]) -> None:
    for _, header in headers(spoken):
        assert type(header["status"]) is int
        assert (header["status"] == 20000000) == (header["name"] != "TaskFailed")


async def test_19_ids(spoken: list[Spoken]) -> None:
    for task, header in headers(spoken):
        assert header["task_id"] == task.task_id
        assert re.fullmatch("[0-9a-f]{32}", header["message_id"])
    ids = [header["message_id"] for _, header in headers(spoken)]
    assert len(ids) == len(set(ids)) > 20


async def test_20_status_text(spoken: list[Spoken]) -> None:
    for _, header in headers(spoken):
        assert header["status_text"] == header["status_message"]
        if header["name"] != "TaskFailed":
            assert header["status_text"] == "Gateway:SUCCESS:Success."
        else:
            assert re.fullmatch(r"Gateway:[A-Z_]+:.+", header["status_text"])


async def test_21_no_null(spoken: list[Spoken]) -> None:
    """Nor an empty binary frame, which RawSocket does not take."""
    assert {task.namespace for task in spoken} == set(STARTS)
    for text in (text for task in spoken for text in task.texts):
        assert "null" not in text.replace('"phoneme":"null"', "")
        event = json.loads(text)
        assert set(event) <= {"header", "payload"}
        if "payload" in event:
            assert isinstance(event["payload"], dict)


async def test_22_names(spoken: list[Spoken]) -> None:
    names = {header["name"] for _, header in headers(spoken)}
    assert names <= EVENTS
    # What this server has no answer for is not among them: there is no model for it.
    assert names == EVENTS - {"SentenceSemantics"}


@pytest.mark.parametrize("namespace", STOPS)
@pytest.mark.parametrize(
    "rest",
    [{}, {"payload": {}}, {"context": {"sdk": {"name": "any"}}}, {"payload": {}, "context": {}}],
    ids=["header only", "payload", "context", "both"],
)
async def test_23_shapes_of_stop(live: Live, namespace: str, rest: dict[str, object]) -> None:
    async with opened(live) as client:
        await client.text(start(namespace))
        await client.event()
        await client.text(json.dumps({**json.loads(stop(namespace)), **rest}))
        await client.until(COMPLETED[namespace])


PARAMETERS = {
    "SpeechRecognizer": """format sample_rate enable_intermediate_result vocabulary_id disfluency
        enable_punctuation_prediction enable_inverse_text_normalization customization_id
        enable_voice_detection max_start_silence max_end_silence speech_noise_threshold
        audio_address""",
    "SpeechTranscriber": """format sample_rate enable_intermediate_result vocabulary_id disfluency
        enable_punctuation_prediction enable_inverse_text_normalization customization_id
        max_sentence_silence enable_words enable_ignore_sentence_timeout speech_noise_threshold
        enable_semantic_sentence_detection special_word_filter enable_multi_thresh_mod enable_nlp
        nlp_model session_id tw_time_offset tw_index_offset""",
    "SpeechSynthesizer": """voice format sample_rate volume speech_rate pitch_rate enable_subtitle
        enable_phoneme_timestamp method""",
    "SpeechLongSynthesizer": """voice format sample_rate volume speech_rate pitch_rate
        enable_subtitle enable_phoneme_timestamp method""",
    FLOWING: """voice format sample_rate volume speech_rate pitch_rate enable_subtitle
        enable_phoneme_timestamp enable_ssml platform enable_aigc_tag aigc_propagator
        aigc_propagate_id text""",
}
"""nls-protocol.md 2.1, 3.1, 4.1, 5.1."""


@every_namespace
async def test_24_unknown_keys_and_nulls(live: Live, namespace: str) -> None:
    """The task is what it is without them."""
    nothing = dict.fromkeys(PARAMETERS[namespace].split())
    unknown = {"x": 1, "_": {"a": [None]}, "enable_everything": "yes", "": "", "appkey": 7}
    async with opened(live) as client:
        told = _Told(client, {**nothing, **unknown})
        await whole_task(told, namespace)
        assert told.starts == 1


class _Told(RawSocket):
    """A connection whose Start carries more than the test that uses it says."""

    def __init__(self, client: RawSocket, payload: dict[str, object]) -> None:
        super().__init__(client._reader, client._writer)
        self._payload = payload
        self.starts = 0

    async def text(self, *messages: str) -> None:
        """See :class:`RawSocket`."""
        await super().text(*map(self._told, messages))

    def _told(self, text: str) -> str:
        said = json.loads(text)
        if said["header"]["name"] not in STARTS.values():
            return text
        self.starts += 1
        return json.dumps({**said, "payload": {**self._payload, **said.get("payload", {})}})


@every_namespace
@pytest.mark.parametrize(
    ("header", "status", "text"),
    [
        ({"appkey": None}, 40000003, "Gateway:PARAMETER_INVALID:appkey not set"),
        ({"appkey": ""}, 40000003, "Gateway:PARAMETER_INVALID:appkey not set"),
        ({"message_id": None}, 40000002, "Gateway:MESSAGE_INVALID:Invalid message id ''!"),
        ({"message_id": "12"}, 40000002, "Gateway:MESSAGE_INVALID:Invalid message id '12'!"),
        (
            {"message_id": "g" * 32},
            40000002,
            f"Gateway:MESSAGE_INVALID:Invalid message id '{'g' * 32}'!",
        ),
    ],
)
async def test_25_appkey_and_message_id(
    live: Live, namespace: str, header: dict[str, object], status: int, text: str
) -> None:
    async with opened(live) as client:
        await client.text(message(namespace, STARTS[namespace], {"text": "ab"}, **header))
        failed = await client.failure()
    assert (failed["status"], failed["status_text"]) == (status, text)
    assert failed["task_id"] == TASK_ID


@pytest.mark.parametrize("good", [MESSAGE_ID.upper(), "0f3a6c1e-9b7d-4c52-a8e1-d5f60b2c3d4e"])
async def test_25_ids_that_are_taken(live: Live, good: str) -> None:
    """Upper case and dashes are a courtesy; the task's id comes back as it was."""
    async with opened(live) as client:
        await client.text(
            message("SpeechTranscriber", "StartTranscription", task_id=good, message_id=good)
        )
        assert (await client.expect("TranscriptionStarted"))["header"]["task_id"] == good


FAILURES = {
    "no JSON": "hello",
    "no header": "{}",
    "namespace": message("SpeechMindReader", "StartTranscription"),
    "directive": message("SpeechTranscriber", "StartRecognition"),
    "parameter": start(sample_rate="high"),
    "state": stop(),
}


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("active", [False, True], ids=["idle", "active"])
async def test_26_a_failure_closes_the_connection(live: Live, case: str, active: bool) -> None:
    """``failure`` holds the server to it: the event, a close frame with 1000, the end of TCP."""
    async with opened(live) as client:
        if active:
            await client.text(start("SpeechRecognizer"))
            await client.expect("RecognitionStarted")
        await client.text(FAILURES[case])
        assert (await client.failure())["status"] >= 40000000


@OWN_LOOP
async def test_27_tasks_follow_each_other(tmp_path: Path, clock: Clock) -> None:
    """Three of each namespace, and all of them mixed, with more than ten seconds in between."""
    ids = (f"{number:032x}" for number in itertools.count(1))
    async with live_server(tmp_path) as live, opened(live) as client:
        for namespace in [*(each for each in STARTS for _ in range(3)), *STARTS]:
            await whole_task(client, namespace, task_id=next(ids))
            await clock.advance(10.5)
            await _answers(client)


async def _answers(client: RawSocket) -> None:
    """The connection is open, and nothing else came on it."""
    await client.send(frame(PING, b"there?"))
    got = await client.frame()
    assert (got.opcode, got.payload) == (PONG, b"there?")


@every_namespace
@pytest.mark.parametrize("other", [TASK_ID, "e" * 32], ids=["same id", "other id"])
async def test_28_a_second_start(live: Live, namespace: str, other: str) -> None:
    async with opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.text(message(namespace, STARTS[namespace], {"text": "ab"}, other))
        header = await client.failure()
    assert header["status"] == 40010005
    assert header["task_id"] == TASK_ID


@OWN_LOOP
@started_namespace
async def test_29_ten_seconds_of_silence(tmp_path: Path, clock: Clock, namespace: str) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(namespace))
        await client.event()
        await clock.advance(9.5)
        await _answers(client)
        if namespace == FLOWING:
            await clock.advance(9.5)  # the ping just now was a sign of life
        header = await _fails_within(client, clock, 1)
    assert header["status"] == 40000004
    assert header["status_text"] == (
        "Gateway:IDLE_TIMEOUT:Websocket session is idle for too long time, "
        f"the last directive is '{STARTS[namespace]}'!"
    )


async def _fails_within(client: RawSocket, clock: Clock, seconds: float) -> dict[str, Any]:
    """The failure comes while the clock moves on by so much, and not by the time that the client
    would then wait for it."""
    with structlog.testing.capture_logs() as logs:
        await clock.advance(seconds)
    assert [entry["code"] for entry in logs if "code" in entry] == [40000004]
    return await client.failure()


@OWN_LOOP
async def test_29_the_last_directive(tmp_path: Path, clock: Clock) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        for _ in range(3):  # audio is a sign of life
            await clock.advance(6)
            await client.audio(silence(20).tobytes())
            await _answers(client)
        await client.text(message("SpeechTranscriber", "ControlTranscriber", {}))
        await _answers(client)
        header = await _fails_within(client, clock, 10.5)
    assert header["status"] == 40000004
    assert "the last directive is 'ControlTranscriber'!" in header["status_text"]


REPLY_DELAY_S = 0.005


@started_namespace
async def test_30_started_is_not_too_fast(live: Live, namespace: str) -> None:
    """Twenty in a row: Go begins to wait for the answer only some time after it has sent."""
    async with opened(live) as client:
        for number in range(20):
            task_id = f"{number + 1:032x}"
            before = time.monotonic()
            await client.text(message(namespace, STARTS[namespace], {}, task_id))
            async with asyncio.timeout(10):
                event = await client.event()
            assert time.monotonic() - before >= REPLY_DELAY_S
            assert event["header"]["name"].endswith("Started")
            before = time.monotonic()
            await client.text(message(namespace, STOPS[namespace], task_id=task_id))
            await client.expect(COMPLETED[namespace])
            assert time.monotonic() - before >= REPLY_DELAY_S
