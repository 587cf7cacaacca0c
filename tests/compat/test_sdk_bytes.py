"""What each official SDK sends, on a raw socket: whole tasks, and every refusal byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.live import Live, live_server
from tests.support.rawsocket import BINARY, PING, PONG, TASK_ID, TEXT, RawSocket, until
from tests.support.sdk_bytes import SDKS, Sdk, connected, refused
from tests.support.sharing import in_one_task
from tests.support.sound import joined, silence, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "right-token-0123"
AUDIO = joined(tone(610), silence(900), tone(250), silence(100)).tobytes()
OTHER_ID = "e" * 32

every_sdk = pytest.mark.parametrize("sdk", [pytest.param(each, id=each.name) for each in SDKS])
(CPP,) = (each for each in SDKS if each.name == "c++")
(PHP,) = (each for each in SDKS if each.name == "php")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """A server that wants a token."""
    folder = tmp_path_factory.mktemp("live")
    async with in_one_task(live_server(folder, apptoken=TOKEN)) as live:
        yield live


def read(event: dict[str, Any], namespace: str) -> None:
    """What any SDK reads of an event, as strictly as the strictest (nls-protocol.md 1.5)."""
    header = event["header"]
    assert type(header["status"]) is int
    assert header["namespace"] in (namespace, "Default")
    for key in ("name", "message_id", "task_id", "status_text"):
        assert type(header[key]) is str
    payload = event.get("payload", {})
    for key in ("index", "time", "begin_time"):
        assert type(payload.get(key, 0)) is int
    assert type(payload.get("result", "")) is str


async def task(client: RawSocket, namespace: str, last: str) -> tuple[list[dict[str, Any]], bytes]:
    """The events up to ``last``, and the audio between them. Pongs are left out."""
    events, audio = list[dict[str, Any]](), b""
    while not events or events[-1]["header"]["name"] != last:
        got = await client.frame()
        if got.opcode == BINARY:
            audio += got.payload
        elif got.opcode == TEXT:
            events.append(json.loads(got.payload))
            read(events[-1], namespace)
            assert events[-1]["header"]["name"] != "TaskFailed", events[-1]
    return events, audio


def results(events: list[dict[str, Any]], name: str) -> list[str]:
    """The texts of the events of this name."""
    return [each["payload"]["result"] for each in events if each["header"]["name"] == name]


async def all_over(live: Live) -> None:
    """No task is left."""
    await until(lambda: not any(worker.active for worker in live.workers))


async def send_audio(client: RawSocket, sdk: Sdk) -> None:
    """In its frames, with a ping in between, which is answered."""
    frames = list(sdk.audio(AUDIO))
    await client.send(b"".join(frames[: len(frames) // 2]))
    await client.send(sdk.frames(PING, b""))
    await client.send(b"".join(frames[len(frames) // 2 :]))


@every_sdk
async def test_it_transcribes(live: Live, sdk: Sdk) -> None:
    namespace = "SpeechTranscriber"
    async with connected(live, sdk, TOKEN) as client:
        for task_id in (TASK_ID, OTHER_ID) if sdk.end == "stay" else (TASK_ID,):

            def sent(name: str, payload: dict[str, Any] | None, task_id: str = task_id) -> bytes:
                return sdk.text(sdk.message(namespace, name, payload, task_id=task_id))

            await client.send(sent("StartTranscription", dict(sdk.asr)))
            started, _ = await task(client, namespace, "TranscriptionStarted")
            assert started[-1]["header"]["task_id"] == task_id
            if sdk.control:
                await client.send(sent(sdk.control, {"max_sentence_silence": 700}))
            await send_audio(client, sdk)
            await client.send(sent("StopTranscription", None))
            events, _ = await task(client, namespace, "TranscriptionCompleted")
            assert results(events, "SentenceEnd") == ["heard 610 ms", "heard 250 ms"]
        await sdk.leave(client)
    await all_over(live)


@every_sdk
async def test_it_recognises(live: Live, sdk: Sdk) -> None:
    namespace = "SpeechRecognizer"
    async with connected(live, sdk, TOKEN) as client:
        start = sdk.message(namespace, "StartRecognition", dict(sdk.asr))
        await client.send(sdk.text(start))
        await task(client, namespace, "RecognitionStarted")
        await send_audio(client, sdk)
        await client.send(sdk.text(sdk.message(namespace, "StopRecognition")))
        events, _ = await task(client, namespace, "RecognitionCompleted")
        assert results(events, "RecognitionCompleted") == ["heard 1760 ms"]
        await sdk.leave(client)
    await all_over(live)


@every_sdk
@pytest.mark.parametrize("namespace", ["SpeechSynthesizer", "SpeechLongSynthesizer"])
async def test_it_synthesises(live: Live, sdk: Sdk, namespace: str) -> None:
    text = "你好，<世界> & 1/2 …" * 20
    async with connected(live, sdk, TOKEN) as client:
        start = sdk.message(namespace, "StartSynthesis", {**sdk.tts, "text": text})
        await client.send(sdk.text(start))
        events, audio = await task(client, namespace, "SynthesisCompleted")
        assert [each["header"]["name"] for each in events] == ["SynthesisCompleted"]
        assert audio.count(b"RIFF") == 1
        assert audio.startswith(b"RIFF")
        await sdk.leave(client)
    await all_over(live)


async def test_php_cuts_its_messages(live: Live) -> None:
    """At 4,096 bytes, be they text or audio."""
    start = PHP.message("SpeechSynthesizer", "StartSynthesis", {**PHP.tts, "text": "你" * 900})
    sent = PHP.text(start)
    assert (sent[0], sent[4_096 + 8]) == (0x01, 0x80)  # the first of two, and the last
    async with connected(live, PHP, TOKEN) as client:
        await client.send(sent)
        _, audio = await task(client, "SpeechSynthesizer", "SynthesisCompleted")
        assert len(audio) == 44 + 900 * 2 * 16_000 // 5
        await client.send(PHP.text(PHP.message("SpeechRecognizer", "StartRecognition")))
        await task(client, "SpeechRecognizer", "RecognitionStarted")
        await client.send(PHP.frames(BINARY, AUDIO))
        await client.send(PHP.text(PHP.message("SpeechRecognizer", "StopRecognition")))
        events, _ = await task(client, "SpeechRecognizer", "RecognitionCompleted")
        assert results(events, "RecognitionCompleted") == ["heard 1760 ms"]


async def test_cpp_speaks_a_text_in_pieces(live: Live) -> None:
    """Each with all of Start's payload around it and without a context (nls-protocol.md 5.1)."""
    namespace = "FlowingSpeechSynthesizer"
    payload = {**CPP.tts, "format": "pcm"}

    def piece(name: str, more: dict[str, Any] | None) -> str:
        message = json.loads(CPP.message(namespace, name, more))
        del message["context"]
        return json.dumps(message, sort_keys=True)

    async with connected(live, CPP, TOKEN) as client:
        await client.send(CPP.text(CPP.message(namespace, "StartSynthesis", payload)))
        await task(client, namespace, "SynthesisStarted")
        for text in ("你好。再", "见", "。"):
            await client.send(CPP.text(piece("RunSynthesis", {**payload, "text": text})))
        await client.send(CPP.text(piece("FlushText", None)))
        await client.send(CPP.text(CPP.message(namespace, "StopSynthesis")))
        events, audio = await task(client, namespace, "SynthesisCompleted")
    names = [each["header"]["name"] for each in events]
    assert names == ["SentenceBegin", "SentenceEnd"] * 2 + ["SynthesisCompleted"]
    assert len(audio) == 6 * 2 * 16_000 // 5


# Refusals of a handshake


def undated(head: bytes) -> bytes:
    """Without what changes."""
    return re.sub(rb"(?m)^Date: [^\r]+", b"Date: *", head)


def http(status: bytes, body: bytes) -> bytes:
    """A refusal, whole."""
    return (
        b"HTTP/1.1 %s\r\nDate: *\r\nConnection: close\r\nContent-Length: %d\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n%s" % (status, len(body), body)
    )


@every_sdk
@pytest.mark.parametrize(
    ("path", "token", "expected"),
    [
        (
            "/ws/v1",
            "bad-token-token-1",
            http(b"403 Forbidden", b"Meta:ACCESS_DENIED:The token 'bad-****en-1' is invalid!"),
        ),
        (
            "/ws/v2",
            TOKEN,
            http(b"404 Not Found", b"Gateway:NAMESPACE_NOT_FOUND:RESTful url path illegal"),
        ),
    ],
    ids=["token", "path"],
)
async def test_a_refused_handshake(
    live: Live, sdk: Sdk, path: str, token: str, expected: bytes
) -> None:
    answer = await refused(live, sdk.head(f"{live.host}:{live.port}", path, token))
    assert undated(answer.head) + answer.body == expected


@every_sdk
async def test_a_handshake_without_a_token(tmp_path: Path, sdk: Sdk) -> None:
    text = b"Meta:ACCESS_DENIED:Missing authorization header; send the token as X-NLS-Token."
    async with live_server(tmp_path, apptoken=TOKEN, ws_token_in_message=False) as live:
        answer = await refused(live, sdk.head(f"{live.host}:{live.port}", "/ws/v1", None))
    assert undated(answer.head) + answer.body == http(b"403 Forbidden", text)


@every_sdk
async def test_one_connection_too_many(tmp_path: Path, sdk: Sdk) -> None:
    async with (
        live_server(tmp_path, apis=1, max_connections=1) as live,
        connected(live, SDKS[0]),
    ):
        answer = await refused(live, sdk.head(f"{live.host}:{live.port}", "/ws/v1", TOKEN))
    assert undated(answer.head) + answer.body == http(b"503 Service Unavailable", answer.body)
    said = json.loads(answer.body)
    assert said["status"] == 40000005
    assert said["message"].startswith("Gateway:TOO_MANY_REQUESTS:")


# Refusals of a message


def failure(status: int, text: str, task_id: str = TASK_ID) -> str:
    """TaskFailed, as it is written but for its message id."""
    header = {
        "namespace": "Default",
        "name": "TaskFailed",
        "status": status,
        "message_id": "*",
        "task_id": task_id,
        "status_text": text,
        "status_message": text,
    }
    info = {"error_code": status, "error_message": text}
    whole = {"header": header, "payload": {"error_info": info}}
    return json.dumps(whole, separators=(",", ":"))


def start(sdk: Sdk, namespace: str = "SpeechTranscriber", **changed: Any) -> str:
    """A Start of the SDK's with other parameters."""
    name = {"SpeechTranscriber": "StartTranscription", "SpeechRecognizer": "StartRecognition"}
    usual = sdk.tts if namespace == "SpeechSynthesizer" else sdk.asr
    return sdk.message(namespace, name.get(namespace, "StartSynthesis"), {**usual, **changed})


def refusals(sdk: Sdk) -> dict[str, tuple[list[str], str]]:
    """Messages, the last of which is refused, and the refusal."""
    st = "SpeechTranscriber"
    return {
        "message id": (
            [sdk.message(st, "StartTranscription", dict(sdk.asr), message_id="1")],
            failure(40000002, "Gateway:MESSAGE_INVALID:Invalid message id '1'!"),
        ),
        "task id": (
            [sdk.message(st, "StartTranscription", dict(sdk.asr), task_id="1")],
            failure(40000002, "Gateway:MESSAGE_INVALID:Invalid task id '1'!", ""),
        ),
        "appkey": (
            [sdk.message(st, "StartTranscription", dict(sdk.asr), appkey=None)],
            failure(40000003, "Gateway:PARAMETER_INVALID:appkey not set"),
        ),
        "namespace": (
            [sdk.message("DialogAssistant", "StartRecognition", dict(sdk.asr))],
            failure(40010001, "Gateway:NAMESPACE_NOT_FOUND:Unknown namespace 'DialogAssistant'!"),
        ),
        "directive": (
            [sdk.message(st, "StopWakeWordVerification")],
            failure(
                40010002,
                "Gateway:DIRECTIVE_UNSUPPORTED:Directive 'StopWakeWordVerification' is not "
                "supported in namespace 'SpeechTranscriber'!",
            ),
        ),
        "second start": (
            [start(sdk), start(sdk)],
            failure(
                40010005,
                "Gateway:TASK_STATE_ERROR:Got start directive while a task is running!",
            ),
        ),
        "stop of another": (
            [start(sdk), sdk.message(st, "StopTranscription", task_id=OTHER_ID)],
            failure(
                40000002,
                f"Gateway:MESSAGE_INVALID:Task id '{OTHER_ID}' is not the running task's!",
            ),
        ),
        "stop before start": (
            [sdk.message(st, "StopTranscription")],
            failure(
                40010005,
                "Gateway:TASK_STATE_ERROR:Got directive 'StopTranscription' while no task is "
                "running!",
            ),
        ),
        "no text": (
            [start(sdk, "SpeechSynthesizer", text="")],
            failure(40010003, "Gateway:DIRECTIVE_INVALID:No text specified!"),
        ),
    }


@every_sdk
@pytest.mark.parametrize("case", refusals(CPP))
async def test_a_refused_message(live: Live, sdk: Sdk, case: str) -> None:
    """RawSocket holds the frame's own bytes to nls-protocol.md 1.8; the rest is compared here."""
    messages, expected = refusals(sdk)[case]
    async with connected(live, sdk, TOKEN) as client:
        await client.send(sdk.text(*messages[:-1]))
        if messages[:-1]:
            await task(client, "SpeechTranscriber", "TranscriptionStarted")
        await client.send(sdk.text(messages[-1]))
        got = await client.frame()
        assert got.opcode == TEXT
        shown = re.sub('"message_id":"[0-9a-f]{32}"', '"message_id":"*"', got.payload.decode())
        assert shown == expected
        assert await client.closed() == 1000
    await all_over(live)


@every_sdk
async def test_pings(live: Live, sdk: Sdk) -> None:
    """Answered with the same payload; the server sends none of its own."""
    async with connected(live, sdk, TOKEN) as client:
        for payload in (b"", b"any", b"\0" * 125):
            await client.send(sdk.frames(PING, payload))
            got = await client.frame()
            assert (got.opcode, got.payload) == (PONG, payload)
