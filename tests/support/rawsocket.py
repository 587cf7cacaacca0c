"""A WebSocket client made of bytes: it can break every rule, and checks that the server keeps them.

Every frame that comes in is held to nls-protocol.md 1.8 and 1.9 (one unfragmented frame of at most
65,536 bytes, no server ping), every text to what a client may be shown.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from app.client.nls import NlsClient
from app.core import errors
from tests.support.live import Live
from tests.support.sound import joined, silence, tone

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

TASK_ID: Final = "6b1f0c2d3e4f5a6b7c8d9e0f1a2b3c4d"
MESSAGE_ID: Final = "0f3a6c1e9b7d4c52a8e1d5f60b2c3d4e"

STARTS: Final = {
    "SpeechTranscriber": "StartTranscription",
    "SpeechRecognizer": "StartRecognition",
    "SpeechSynthesizer": "StartSynthesis",
    "SpeechLongSynthesizer": "StartSynthesis",
    "FlowingSpeechSynthesizer": "StartSynthesis",
}
ONE_TEXT: Final = ("SpeechSynthesizer", "SpeechLongSynthesizer")
"""Namespaces whose text comes with Start; there is no Stop."""
STOPS: Final = {
    "SpeechTranscriber": "StopTranscription",
    "SpeechRecognizer": "StopRecognition",
    "FlowingSpeechSynthesizer": "StopSynthesis",
}
COMPLETED: Final = {
    "SpeechTranscriber": "TranscriptionCompleted",
    "SpeechRecognizer": "RecognitionCompleted",
    "SpeechSynthesizer": "SynthesisCompleted",
    "SpeechLongSynthesizer": "SynthesisCompleted",
    "FlowingSpeechSynthesizer": "SynthesisCompleted",
}

ANSWER_TIMEOUT_S: Final = 20.0
"""Nothing in a test takes so long: it is for the one that would otherwise hang."""

_CLASS_NAMES: Final = "|".join(
    [cls.__name__ for cls in vars(errors).values() if isinstance(cls, type)]
    + ["ProtocolError", "[A-Za-z]+Exception", "[A-Z][a-z]+Error"]
)
_INTERNAL: Final = re.compile(
    rf"Traceback|\bFile \"|\.py\b|\b(?:{_CLASS_NAMES})\b|\bapp\.[a-z]+\.|msgspec|uvicorn|starlette"
    r"|(?:^|[\s'\"(])/(?!stream/v1/)\w",
)
"""What no client may be shown: tracebacks, modules, class names, and paths but our own URLs'."""


class Refused(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the server."""

    opcode: int
    payload: bytes


class RawSocket:
    """An open WebSocket. Nothing runs in the background: what is not asked for is not read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def local_port(self) -> int:
        """Of this end."""
        return int(self._writer.get_extra_info("sockname")[1])

    # Out

    async def send(self, data: bytes) -> None:
        """Bytes as they are: frames, parts of frames, or none at all."""
        self._writer.write(data)
        await self._writer.drain()

    async def text(self, *messages: str) -> None:
        """Text frames, in one write."""
        await self.send(b"".join(frame(TEXT, message.encode()) for message in messages))

    async def audio(self, *pieces: bytes) -> None:
        """Binary frames, in one write."""
        await self.send(b"".join(frame(BINARY, piece) for piece in pieces))

    def abort(self, *, reset: bool) -> None:
        """End the TCP connection without a close frame: with RST, or else with FIN where nothing
        unread is left."""
        if reset:
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    # In

    async def frame(self) -> Frame:
        """The next frame, checked. Raises IncompleteReadError at the end of the connection."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            first, second = await self._reader.readexactly(2)
            assert first & 0x80, "the server fragments its messages"
            assert not first & 0x70, "the server uses an extension"
            assert not second & 0x80, "the server masks its frames"
            size = second
            if second == 126:
                (size,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif second == 127:
                (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
            assert size <= 65_536
            payload = await self._reader.readexactly(size)
        opcode = first & 0x0F
        assert opcode in (TEXT, BINARY, PONG, CLOSE), f"a frame of type {opcode}"
        if opcode == BINARY:
            assert payload, "an empty audio frame"
        if opcode == TEXT:
            check_shown(payload.decode())
        return Frame(opcode, payload)

    async def event(self) -> dict[str, Any]:
        """The next frame, which must be an event."""
        got = await self.frame()
        assert got.opcode == TEXT, got
        event: dict[str, Any] = json.loads(got.payload)
        return event

    async def expect(self, name: str) -> dict[str, Any]:
        """The next frame, which must be this event."""
        event = await self.event()
        assert event["header"]["name"] == name, event
        return event

    async def until(self, name: str) -> list[dict[str, Any]]:
        """All events up to and with this one."""
        events = [await self.event()]
        while events[-1]["header"]["name"] != name:
            assert events[-1]["header"]["name"] != "TaskFailed", events[-1]
            events.append(await self.event())
        return events

    async def failure(self) -> dict[str, Any]:
        """TaskFailed, which may come after other events, then close 1000 and the end of TCP: its
        header."""
        event = await self.event()
        while event["header"]["name"] != "TaskFailed":
            event = await self.event()
        assert await self.closed() == 1000
        header: dict[str, Any] = event["header"]
        return header

    async def closed(self) -> int:
        """The code of the close frame, which must come next; answered, and followed by the end of
        the connection."""
        got = await self.frame()
        assert got.opcode == CLOSE, got
        (code,) = struct.unpack("!H", got.payload[:2])
        check_shown(got.payload[2:].decode())
        self._writer.write(frame(CLOSE, got.payload[:2]))
        await self.end()
        return int(code)

    async def end(self) -> None:
        """The server ends the TCP connection, and sends nothing more."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            try:
                rest = await self._reader.read()
            except ConnectionError:
                rest = b""
        assert rest == b""
        self._writer.close()


def check_shown(text: str) -> None:
    """Fail on a text that tells a client about our inside."""
    found = _INTERNAL.search(text)
    assert found is None, f"{found[0]!r} is shown to a client: {text[:300]}"


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame. Its mask is zero, which leaves the payload as it is."""
    return head(opcode, len(payload), fin=fin, rsv=rsv) + payload


def head(opcode: int, size: int, *, fin: bool = True, rsv: int = 0) -> bytes:
    """The frame's bytes before its payload, with ``size`` in the shortest form."""
    first = fin << 7 | rsv << 4 | opcode
    if size < 126:
        sized = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        sized = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        sized = struct.pack("!BBQ", first, 0x80 | 127, size)
    return sized + bytes(4)


def fragments(payload: bytes, size: int, *, between: bytes = b"") -> bytes:
    """A text message in fragments of ``size`` bytes, with other bytes between them."""
    parts = [payload[start : start + size] for start in range(0, len(payload), size)]
    return between.join(
        frame(TEXT if number == 0 else 0, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


def message(
    namespace: object,
    name: object,
    payload: object = None,
    task_id: object = TASK_ID,
    **header: object,
) -> str:
    """A client's message, with anything in any place. ``header``: further fields, or others than
    the usual; None leaves one out."""
    fields: dict[str, object] = {
        "message_id": MESSAGE_ID,
        "task_id": task_id,
        "namespace": namespace,
        "name": name,
        "appkey": "k",
        **header,
    }
    fields = {key: value for key, value in fields.items() if value is not None}
    return json.dumps({"header": fields, **({} if payload is None else {"payload": payload})})


def start(namespace: str = "SpeechTranscriber", **payload: object) -> str:
    """A start directive; a text that comes with it is ``ab`` unless told otherwise."""
    if namespace in ONE_TEXT:
        payload = {"text": "ab", **payload}
    return message(namespace, STARTS[namespace], payload)


def stop(namespace: str = "SpeechTranscriber") -> str:
    """A stop directive: header only, as Java sends it (nls-protocol.md 1.3)."""
    return message(namespace, STOPS[namespace])


class Address(Protocol):
    """Of a server."""

    @property
    def host(self) -> str:
        """Name or number."""
        ...

    @property
    def port(self) -> int:
        """Of TCP."""
        ...


async def handshake(
    live: Address,
    path: str = "/ws/v1",
    headers: Sequence[str] = (),
    receive_buffer: int | None = None,
) -> RawSocket:
    """Open a WebSocket. ``receive_buffer``: bytes that the kernel keeps for a client that does not
    read.

    Raises:
        Refused: the server does not want it; its connection is closed.
    """
    raw = socket.socket()
    raw.setblocking(False)
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(raw, (live.host, live.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {live.host}:{live.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(answer.split()[1])
        if status != 101:
            body = (await reader.read()).decode()
            writer.close()
            check_shown(body)
            raise Refused(status, body)
    return RawSocket(reader, writer)


@asynccontextmanager
async def opened(
    live: Address,
    path: str = "/ws/v1",
    headers: Sequence[str] = (),
    receive_buffer: int | None = None,
) -> AsyncIterator[RawSocket]:
    """:func:`handshake`; the connection is broken off at the end, if it is still there."""
    client = await handshake(live, path, headers, receive_buffer)
    try:
        yield client
    finally:
        client.abort(reset=False)


async def whole_task(client: RawSocket, namespace: str, **header: Any) -> None:
    """A task from Start to Completed, with its exact result. ``header``: as in :func:`message`."""
    payload = {"text": "ab"} if namespace in ONE_TEXT else None
    await client.text(message(namespace, STARTS[namespace], payload, **header))
    if namespace in ONE_TEXT:
        await _whole_speech(client, COMPLETED[namespace])
        return
    await client.expect(STARTS[namespace].replace("Start", "") + "Started")
    if namespace == "FlowingSpeechSynthesizer":
        for text in "ab":
            await client.text(message(namespace, "RunSynthesis", {"text": text}, **header))
        await client.text(message(namespace, STOPS[namespace], **header))
        await client.expect("SentenceBegin")
        await _whole_speech(client, "SentenceEnd")
        await client.expect(COMPLETED[namespace])
        return
    await client.audio(tone(300).tobytes())
    await client.text(message(namespace, STOPS[namespace], **header))
    results = [
        event["payload"]["result"]
        for event in await client.until(COMPLETED[namespace])
        if "result" in event.get("payload", {})
    ]
    assert results == ["heard 300 ms"]


async def _whole_speech(client: RawSocket, then: str) -> None:
    """The audio of ``ab``, and the event behind it."""
    size, got = 0, await client.frame()
    while got.opcode == BINARY:
        size, got = size + len(got.payload), await client.frame()
    last = json.loads(got.payload)
    assert last["header"]["name"] == then, last
    assert size == 2 * 16_000 * 400 // 1000


@asynccontextmanager
async def bystander(live: Live, token: str | None = None) -> AsyncIterator[None]:
    """A session of somebody else: in the middle of a sentence while the block runs, and with its
    exact result afterwards."""
    async with NlsClient(live.ws, token).transcriber() as task:
        await task.send(joined(silence(200), tone(500)).tobytes())
        yield
        await task.send(joined(tone(510), silence(100)).tobytes())
        ends = [event for event in await task.finish() if event.name == "SentenceEnd"]
    payload = ends[0].payload
    assert len(ends) == 1
    assert (payload["begin_time"], payload["time"]) == (200, 1210)
    assert payload["result"] == "heard 1010 ms"


@asynccontextmanager
async def nothing_left(live: Live) -> AsyncIterator[None]:
    """At the end of the block, everything that was begun in it ends: tasks of the event loop, and
    tasks of the workers. The block's own clients must be gone or will be."""
    tasks = asyncio.all_tasks()
    active = [worker.active for worker in live.workers]
    yield
    await until(lambda: [worker.active for worker in live.workers] == active)
    await until(lambda: not asyncio.all_tasks() - tasks)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other tasks make true; fail if that never happens."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)
