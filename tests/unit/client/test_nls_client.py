"""The NLS client against a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.client.errors import (
    AccessRefused,
    AnswerTimeout,
    CertificateRefused,
    ClientError,
    ConnectionLost,
    NlsTaskFailed,
    ProtocolViolation,
    RequestRefused,
    ServerUnreachable,
)
from app.client.messages import sentence
from app.client.nls import NlsClient, sending
from app.client.rest import RestClient
from app.client.wire import MAX_MESSAGE_BYTES, Timeouts

SHORT = Timeouts(started_s=0.05, idle_s=0.05)
"""For servers that never answer: how long does not matter."""

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: s3cret"

ID = re.compile(r"[0-9a-f]{32}")


async def transcription(talk: Any) -> None:
    """One sentence, then Completed."""
    await talk.directive()
    await talk.event("TranscriptionStarted", {"session_id": "s"})
    await talk.directive()
    await talk.event("SentenceBegin", {"index": 1, "time": 100})
    await talk.event(
        "SentenceEnd",
        {
            "index": 1,
            "begin_time": 100,
            "time": len(talk.audio),
            "result": "hello",
            "words": [{"text": "hello", "startTime": 100, "endTime": 200}],
        },
    )
    await talk.event("TranscriptionCompleted")


async def wait_closed(talk: Any) -> None:
    with contextlib.suppress(Exception):
        async for _ in talk.socket:
            pass


async def test_transcriber_speaks_the_protocol(nls: Any) -> None:
    seen: list[dict[str, Any]] = []
    tokens: list[str | None] = []

    async def script(talk: Any) -> None:
        tokens.append(talk.socket.request.headers.get("X-NLS-Token"))
        seen.append(await talk.directive())
        await talk.event("TranscriptionStarted", {"session_id": "abc"})
        seen.append(await talk.directive())
        seen.append(await talk.directive())
        await talk.event("TranscriptionCompleted")

    client = NlsClient(await nls(script), token="secret", appkey="key")
    async with client.transcriber(sample_rate=8_000, max_sentence_silence=None) as task:
        assert task.started.payload == {"session_id": "abc"}
        await task.control(max_sentence_silence=500)
        assert [event.name for event in await task.finish()] == ["TranscriptionCompleted"]

    assert tokens == ["secret"]
    names = [message["header"]["name"] for message in seen]
    assert names == ["StartTranscription", "ControlTranscriber", "StopTranscription"]
    assert {message["header"]["task_id"] for message in seen} == {task.task_id}
    assert len({message["header"]["message_id"] for message in seen}) == 3
    for message in seen:
        assert message["header"]["namespace"] == "SpeechTranscriber"
        assert message["header"]["appkey"] == "key"
        assert ID.fullmatch(message["header"]["message_id"])
    assert ID.fullmatch(task.task_id)
    expected = {"format": "pcm", "sample_rate": 8_000, "max_sentence_silence": None}
    assert seen[0]["payload"] == expected
    assert seen[1]["payload"] == {"max_sentence_silence": 500}
    assert "payload" not in seen[2]


async def test_transcribe_sends_all_audio_and_returns_all_events(nls: Any) -> None:
    client = NlsClient(await nls(transcription))
    events = await client.transcribe(bytes(10_001))
    names = [event.name for event in events]
    assert names == [
        "TranscriptionStarted",
        "SentenceBegin",
        "SentenceEnd",
        "TranscriptionCompleted",
    ]
    found = sentence(events[2])
    assert (found.begin_time, found.time, found.result) == (100, 10_001, "hello")
    assert found.words[0].end_time == 200


async def test_recognizer_completed_by_the_server_needs_no_stop(nls: Any) -> None:
    later: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def script(talk: Any) -> None:
        start = await talk.directive()
        assert start["header"]["name"] == "StartRecognition"
        await talk.event("RecognitionStarted")
        await talk.event("RecognitionCompleted", {"result": "hi"})
        later.set_result(len([message async for message in talk.socket]))

    async with NlsClient(await nls(script)).recognizer(enable_voice_detection=True) as task:
        events = [event async for event in task.events()]
        await task.stop()
    assert [event.payload["result"] for event in events] == ["hi"]
    assert await later == 0


async def test_synthesizer_yields_audio_in_order(nls: Any) -> None:
    async def script(talk: Any) -> None:
        start = await talk.directive()
        assert start["payload"] == {
            "text": "你好",
            "voice": "aixia",
            "format": "wav",
            "sample_rate": 24_000,
            "speech_rate": 100,
        }
        await talk.socket.send(b"one")
        await talk.event("MetaInfo", {"subtitles": []})
        await talk.socket.send(b"two")
        await talk.event("SynthesisCompleted")

    url = await nls(script)
    options: dict[str, Any] = {"voice": "aixia", "format": "wav", "sample_rate": 24_000}
    async with NlsClient(url).synthesizer("你好", speech_rate=100, **options) as task:
        frames = [frame async for frame in task.frames()]
    shown = [frame if isinstance(frame, bytes) else frame.name for frame in frames]
    assert shown == [b"one", "MetaInfo", b"two", "SynthesisCompleted"]
    assert await NlsClient(url).synthesize("你好", speech_rate=100, **options) == b"onetwo"


async def test_long_text_has_its_own_namespace(nls: Any) -> None:
    async def script(talk: Any) -> None:
        start = await talk.directive()
        assert start["header"]["namespace"] == "SpeechLongSynthesizer"
        assert "voice" not in start["payload"]
        await talk.event("SynthesisCompleted")

    assert await NlsClient(await nls(script)).synthesize("x" * 5_000, long_text=True) == b""


async def test_several_tasks_share_a_connection(nls: Any) -> None:
    connections = []

    async def script(talk: Any) -> None:
        connections.append(talk)
        for _ in range(2):
            await transcription(talk)
        await talk.directive()
        await talk.socket.send(b"audio")
        await talk.event("SynthesisCompleted")
        await wait_closed(talk)

    async with NlsClient(await nls(script)).connect() as connection:
        for _ in range(2):
            async with connection.transcriber() as task:
                await task.send(b"ab")
                assert (await task.finish())[-1].name == "TranscriptionCompleted"
        async with connection.synthesizer("x") as speaking:
            assert [audio async for audio in speaking.audio()] == [b"audio"]
    assert len(connections) == 1


async def test_a_second_task_at_the_same_time_is_refused(nls: Any) -> None:
    async with (
        NlsClient(await nls(transcription)).connect() as connection,
        connection.transcriber() as task,
    ):
        with pytest.raises(ClientError, match="running task"):
            async with connection.recognizer():
                pass
        assert (await task.finish())[-1].name == "TranscriptionCompleted"


async def test_leaving_a_task_early_closes_the_connection(nls: Any) -> None:
    gone = asyncio.Event()

    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event("TranscriptionStarted")
        await wait_closed(talk)
        gone.set()

    async with NlsClient(await nls(script)).connect() as connection:
        async with connection.transcriber():
            pass
        await gone.wait()
        with pytest.raises(ConnectionLost):
            async with connection.transcriber():
                pass


async def test_task_failed_at_the_start(nls: Any) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.fail(40_000_005, "Gateway:TOO_MANY_REQUESTS:Too many requests!")

    with pytest.raises(NlsTaskFailed) as caught:
        async with NlsClient(await nls(script)).transcriber():
            pass
    assert caught.value.code == 40_000_005
    assert caught.value.text == "Gateway:TOO_MANY_REQUESTS:Too many requests!"


async def fail_after_start(talk: Any) -> None:
    await talk.directive()
    await talk.event("TranscriptionStarted")
    await talk.event("SentenceBegin", {"index": 1, "time": 0})
    await talk.fail(40_000_004, "idle")


async def test_send_tells_why_the_server_closed(nls: Any) -> None:
    with pytest.raises(NlsTaskFailed, match="40000004"):
        async with NlsClient(await nls(fail_after_start)).transcriber() as task:
            while True:
                await task.send(bytes(320))
                await asyncio.sleep(0)


async def test_send_leaves_the_cause_to_the_one_that_reads(nls: Any) -> None:
    causes: list[type[ClientError]] = []
    with pytest.raises(NlsTaskFailed):
        async with NlsClient(await nls(fail_after_start)).transcriber() as task:
            async for _ in task.events():
                while not causes:
                    try:
                        await task.send(bytes(320))
                    except ClientError as error:
                        causes.append(type(error))
                    await asyncio.sleep(0)
    assert causes == [ConnectionLost]


async def test_the_reader_learns_of_a_failure_while_another_sends(nls: Any) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(320)
            await asyncio.sleep(0)

    names = []
    with pytest.raises(NlsTaskFailed):
        async with (
            NlsClient(await nls(fail_after_start)).transcriber() as task,
            sending(task, endless()),
        ):
            async for event in task.events():
                names.append(event.name)
    assert names == ["SentenceBegin"]


async def test_an_error_of_the_audio_source_is_raised(nls: Any) -> None:
    def broken() -> Any:
        yield bytes(320)
        raise OSError("the disk is gone")

    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event("TranscriptionStarted")
        await wait_closed(talk)

    client = NlsClient(await nls(script))
    with pytest.raises(OSError, match="the disk is gone"):
        await client.transcribe(broken())


async def test_a_connection_that_ends_early(nls: Any) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event("TranscriptionStarted")
        await talk.socket.close(1012, "restart")

    with pytest.raises(ConnectionLost) as caught:
        async with NlsClient(await nls(script)).transcriber() as task:
            await anext(task.events())
    assert caught.value.code == 1012


async def test_a_connection_that_breaks(nls: Any) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event("TranscriptionStarted")
        talk.socket.transport.abort()

    with pytest.raises(ConnectionLost) as caught:
        async with NlsClient(await nls(script)).transcriber() as task:
            await anext(task.events())
    assert caught.value.code == 1006


@pytest.mark.parametrize("answer", [False, True])
async def test_a_server_that_does_not_answer(nls: Any, answer: bool) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        if answer:
            await talk.event("TranscriptionStarted")
        await wait_closed(talk)

    with pytest.raises(AnswerTimeout):
        async with NlsClient(await nls(script), timeouts=SHORT).transcriber() as task:
            await task.finish()


async def test_stop_limits_a_wait_that_has_begun(nls: Any) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event("TranscriptionStarted")
        await wait_closed(talk)

    async with NlsClient(await nls(script), timeouts=SHORT).transcriber() as task:
        reader = asyncio.ensure_future(task.events().__anext__())
        await asyncio.sleep(0)
        await task.stop()
        with pytest.raises(AnswerTimeout):
            await reader


async def test_a_silent_synthesis_times_out(nls: Any) -> None:
    with pytest.raises(AnswerTimeout):
        await NlsClient(await nls(wait_closed), timeouts=SHORT).synthesize("x")


async def test_messages_can_be_fragmented(nls: Any) -> None:
    messages: list[list[Any]] = []

    async def script(talk: Any) -> None:
        messages.append([part async for part in talk.socket.recv_streaming(decode=False)])
        talk.header = json.loads(b"".join(messages[0]))["header"]
        await talk.event("TranscriptionStarted")
        messages.append([part async for part in talk.socket.recv_streaming()])
        await talk.directive()
        await talk.event("TranscriptionCompleted")

    client = NlsClient(await nls(script), fragment_bytes=16)
    async with client.transcriber(note="汉字" * 20) as task:
        await task.send(bytes(range(40)))
        await task.finish()
    assert json.loads(b"".join(messages[0]))["payload"]["note"] == "汉字" * 20
    assert b"".join(messages[1]) == bytes(range(40))
    for message in messages:
        assert max(len(part) for part in message) == 16


@pytest.mark.parametrize(
    "header",
    [
        {"task_id": "f" * 32},
        {"namespace": "SpeechRecognizer"},
        {"status": 20_000_001},
        {"status": "20000000"},
        {"status": 20_000_000.5},
        {"name": "RecognitionStarted"},
    ],
)
async def test_a_wrong_header_is_a_violation(nls: Any, header: dict[str, object]) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event(**{"name": "TranscriptionStarted", **header})
        await wait_closed(talk)

    with pytest.raises(ProtocolViolation):
        async with NlsClient(await nls(script)).transcriber():
            pass


@pytest.mark.parametrize("message", [b"audio", "not json", "[]", '{"header":{"name":"x"}}'])
async def test_a_wrong_message_is_a_violation(nls: Any, message: str | bytes) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event("TranscriptionStarted")
        await talk.socket.send(message)
        await wait_closed(talk)

    with pytest.raises(ProtocolViolation):
        async with NlsClient(await nls(script)).transcriber() as task:
            await anext(task.events())


async def test_a_null_payload_is_a_violation(nls: Any) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.event("TranscriptionStarted", None)
        await wait_closed(talk)

    with pytest.raises(ProtocolViolation):
        async with NlsClient(await nls(script)).transcriber():
            pass


async def test_an_oversized_message_ends_the_connection(nls: Any) -> None:
    async def script(talk: Any) -> None:
        await talk.directive()
        await talk.socket.send(bytes(MAX_MESSAGE_BYTES + 1))
        await wait_closed(talk)

    with pytest.raises(ConnectionLost):
        await NlsClient(await nls(script)).synthesize("x")


@pytest.mark.parametrize(
    ("status", "expected"), [(403, AccessRefused), (401, AccessRefused), (404, RequestRefused)]
)
async def test_a_refused_handshake(nls: Any, status: int, expected: type[ClientError]) -> None:
    url = await nls(wait_closed, refuse=(status, "Meta:ACCESS_DENIED:The token 'x' is invalid!"))
    with pytest.raises(expected, match="The token 'x' is invalid!"):
        async with NlsClient(url).connect():
            pass


async def test_nobody_listens(unused_port: int) -> None:
    with pytest.raises(
        ServerUnreachable, match=f"nothing listens at http://127.0.0.1:{unused_port}$"
    ):
        async with NlsClient(f"ws://127.0.0.1:{unused_port}").connect():
            pass


async def test_a_handshake_that_is_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = NlsClient(f"ws://127.0.0.1:{port}", timeouts=Timeouts(connect_s=0.05))
        with pytest.raises(ServerUnreachable, match="no answer from"):
            async with client.connect():
                pass


async def test_wss_begins_with_a_tls_handshake() -> None:
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first.set_result(await reader.readexactly(2))
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ServerUnreachable):
            async with NlsClient(f"wss://127.0.0.1:{port}/ws/v1").connect():
                pass
    assert await first == b"\x16\x03"  # a TLS handshake record


@pytest.mark.parametrize("token", ["geheim-ü", "密码", "line\r\nbreak", " edge "])
async def test_a_token_that_is_no_header_travels_in_the_query(nls: Any, token: str) -> None:
    seen: list[tuple[str, str | None]] = []

    async def script(talk: Any) -> None:
        request = talk.socket.request
        seen.append((request.path, request.headers.get("X-NLS-Token")))

    async with NlsClient(await nls(script), token=token).connect() as connection:
        with pytest.raises(ConnectionLost):
            async with connection.transcriber():
                pass
    ((path, header),) = seen
    assert path.isascii()
    assert parse_qs(urlsplit(path).query) == {"token": [token]}
    assert header is None


@pytest.mark.parametrize("query", ["", "?token=s3cret"])
@pytest.mark.parametrize("answer", [b"", b"nonsense", b"HTTP/1.1 200 s3cret", SWITCHING])
async def test_no_error_shows_the_token(answer: bytes, query: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer and answer + b"\r\nUpgrade: s3cret\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = NlsClient(f"ws://127.0.0.1:{port}/ws/v1{query}", token="s3cret-ü")
        with pytest.raises(ClientError) as caught:
            async with client.connect():
                pass
    assert "s3cret" not in str(caught.value)
    assert "%C3%BC" not in str(caught.value)


async def test_a_certificate_that_is_not_trusted_has_its_own_error(tls_port: int) -> None:
    url = f"https://127.0.0.1:{tls_port}"
    with pytest.raises(CertificateRefused, match="not trusted: self-signed certificate") as caught:
        async with NlsClient(url).connect():
            pass
    async with RestClient(url) as rest:
        with pytest.raises(CertificateRefused) as same:
            await rest.health()
    assert str(same.value) == str(caught.value)
