"""What the official SDKs put on the wire, byte for byte where they differ, for tests without them.

Handshakes, envelopes, masks, frames and ends are those of nls-protocol.md 1.2 to 1.10; the order of
headers and fields, and the SDKs' own names, are those of their sources. WeChat's handshake is made
by WeChat, whose bytes are nowhere published: here it is a browser's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.support.rawsocket import (
    ANSWER_TIMEOUT_S,
    BINARY,
    CLOSE,
    TASK_ID,
    TEXT,
    Address,
    RawSocket,
    head,
)

APPKEY: Final = "demo-appkey"
RANDOM_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""Stands for the key that a client makes up."""
CONSTANT_KEY: Final = "x3JJHMbDL1EzLkh9GBhXDw=="
"""The one that Python adds to its own, and C++ always sends."""
CONSTANT_MASK: Final = b"\x12\x34\x56\x78"

Json = dict[str, Any]

ASR: Final[Json] = {
    "format": "pcm",
    "sample_rate": 16_000,
    "enable_intermediate_result": True,
    "enable_punctuation_prediction": True,
    "enable_inverse_text_normalization": True,
}
TTS: Final[Json] = {
    "voice": "xiaoyun",
    "format": "wav",
    "sample_rate": 16_000,
    "volume": 50,
    "speech_rate": 0,
    "pitch_rate": 0,
}


@dataclass(frozen=True, slots=True)
class Sdk:
    """One client.

    ``head``: the request of its handshake, to a host and port, with a token (None: none).
    ``envelope``: the text of a message, of its header and its payload (None: none).
    ``keys``: the order of the header's fields. ``checks``: the key that the server's accept is
    checked against, "" for an SDK that does not look. ``mask``: of every frame; None: a new one
    each time. ``frame_bytes``: of the audio in one frame. ``fragment_bytes``: longer messages are
    cut at this. ``control``: its name for that directive, "" where it has none. ``end``: how it
    leaves after Completed; ``stay``: it does not, the next task uses the connection.
    """

    name: str
    head: Callable[[str, str, str | None], bytes]
    envelope: Callable[[Json, Json | None], str]
    keys: tuple[str, ...]
    checks: str = RANDOM_KEY
    mask: bytes | None = None
    frame_bytes: int = 640
    fragment_bytes: int | None = None
    control: str = ""
    end: Literal["close", "reset", "stay"] = "close"
    asr: Mapping[str, Any] = field(default_factory=lambda: ASR)
    tts: Mapping[str, Any] = field(default_factory=lambda: TTS)

    def message(
        self,
        namespace: str,
        name: str,
        payload: Json | None = None,
        *,
        task_id: str = TASK_ID,
        **other: str | None,
    ) -> str:
        """A message; ``other``: fields of the header that are not as usual, None to leave out."""
        usual: dict[str, str | None] = {
            "message_id": os.urandom(16).hex(),
            "task_id": task_id,
            "namespace": namespace,
            "name": name,
            "appkey": APPKEY,
            **other,
        }
        header = {key: usual[key] for key in self.keys if usual[key] is not None}
        return self.envelope(header, payload)

    def frames(self, opcode: int, payload: bytes) -> bytes:
        """A message as it goes out, masked, and in fragments where it is too long for one."""
        size = self.fragment_bytes or max(len(payload), 1)
        parts = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
        return b"".join(
            masked(
                opcode if number == 0 else 0,
                part,
                os.urandom(4) if self.mask is None else self.mask,
                fin=number == len(parts) - 1,
            )
            for number, part in enumerate(parts)
        )

    def text(self, *messages: str) -> bytes:
        """Text messages."""
        return b"".join(self.frames(TEXT, message.encode()) for message in messages)

    def audio(self, pcm: bytes) -> Iterator[bytes]:
        """Binary messages, as the SDK's demo cuts them."""
        for start in range(0, len(pcm), self.frame_bytes):
            yield self.frames(BINARY, pcm[start : start + self.frame_bytes])

    async def leave(self, client: RawSocket) -> None:
        """What it does when its task is over."""
        if self.end == "close":
            await client.send(self.frames(CLOSE, b"\x03\xe8"))
            assert await client.closed() == 1000
        elif self.end == "reset":
            client.abort(reset=True)


def masked(opcode: int, payload: bytes, mask: bytes, *, fin: bool = True) -> bytes:
    """A client's frame."""
    covered = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head(opcode, len(payload), fin=fin)[:-4] + mask + covered


# Handshakes


def _request(path: str, *lines: str, token: str | None, before: int | None = None) -> bytes:
    """A request with the token's header at its place: the last, or ``before`` the last lines."""
    headers = list(lines)
    if token is not None:
        headers.insert(len(headers) - (before or 0), f"X-NLS-Token: {token}")
    return ("\r\n".join([f"GET {path} HTTP/1.1", *headers]) + "\r\n\r\n").encode()


def _python(host: str, path: str, token: str | None) -> bytes:
    """Its constant headers come on top of those of its WebSocket client."""
    return _request(
        path,
        "Upgrade: websocket",
        f"Host: {host}",
        f"Origin: http://{host}",
        f"Sec-WebSocket-Key: {RANDOM_KEY}",
        "Sec-WebSocket-Version: 13",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {CONSTANT_KEY}",
        "Sec-WebSocket-Version: 13",
        token=token,
    )


def _go(host: str, path: str, token: str | None) -> bytes:
    return _request(
        path,
        f"Host: {host}",
        "User-Agent: Go-http-client/1.1",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {RANDOM_KEY}",
        "Sec-WebSocket-Version: 13",
        "Upgrade: websocket",
        token=token,
    )


def _java(host: str, path: str, token: str | None) -> bytes:
    """Netty's names are in lower case."""
    return _request(
        path,
        "upgrade: websocket",
        "connection: upgrade",
        f"sec-websocket-key: {RANDOM_KEY}",
        f"host: {host}",
        f"origin: http://{host}",
        "sec-websocket-version: 13",
        token=token,
        before=6,
    )


def _cpp(host: str, path: str, token: str | None) -> bytes:
    return _request(
        path,
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {CONSTANT_KEY}",
        "Sec-WebSocket-Version: 13",
        token=token,
    )


def _php(host: str, path: str, token: str | None) -> bytes:
    return _request(
        path,
        f"Host: {host}",
        "User-Agent: websocket-client-php",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {RANDOM_KEY}",
        "Sec-WebSocket-Version: 13",
        token=token,
    )


def _node(host: str, path: str, token: str | None) -> bytes:
    return _request(
        path,
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {RANDOM_KEY}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Host: {host}",
        token=token,
        before=1,
    )


def _wechat(host: str, path: str, token: str | None) -> bytes:
    """It offers compression, as browsers do."""
    return _request(
        path,
        f"Host: {host}",
        "Connection: Upgrade",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "Upgrade: websocket",
        "Origin: https://servicewechat.com",
        "Sec-WebSocket-Version: 13",
        "Accept-Encoding: gzip, deflate, br",
        f"Sec-WebSocket-Key: {RANDOM_KEY}",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        token=token,
    )


# Envelopes


def _context(name: str, version: str, language: str | None) -> Json:
    sdk = {"name": name, "version": version, "language": language}
    return {"sdk": {key: value for key, value in sdk.items() if value is not None}}


def _compact(message: Json) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def _with(payload: Json | None) -> Json:
    return {} if payload is None else {"payload": payload}


def _python_text(header: Json, payload: Json | None) -> str:
    context = _context("nls-python-sdk", "0.0.1", "python")
    return json.dumps({"header": header, **_with(payload), "context": context})


def _go_text(header: Json, payload: Json | None) -> str:
    """Payloads are maps, which Go sorts; it leaves out an empty one, and escapes what HTML does."""
    ordered = dict(sorted(payload.items())) if payload else None
    context = _context("nls-go-sdk", "0.0.1fix", "go")
    text = _compact({"header": header, **_with(ordered), "context": context})
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _java_text(header: Json, payload: Json | None) -> str:
    """Without a payload it is a header only."""
    if payload is None:
        return _compact({"header": header})
    context = _context("nls-sdk-java", "2.2.1", None)
    context["network"] = {"connect_cost": 12, "upgrade_cost": 3}
    return _compact({"payload": payload, "context": context, "header": header})


def _cpp_text(header: Json, payload: Json | None) -> str:
    """Sorted at every level; what is not ASCII is escaped."""
    context = _context("nls-cpp-sdk3.x-linux", "3.2.0", "C++")
    message = {"context": context, "header": header, **_with(payload)}
    return json.dumps(message, separators=(",", ":"), sort_keys=True)


def _php_text(header: Json, payload: Json | None) -> str:
    """The slash is escaped, too."""
    context = _context("nls-sdk-php", "0.1.0", "php")
    message = {"header": header, "context": context, **_with(payload)}
    return json.dumps(message, separators=(",", ":")).replace("/", "\\/")


def _script_text(name: str, language: str) -> Callable[[Json, Json | None], str]:
    """JavaScript's."""

    def text(header: Json, payload: Json | None) -> str:
        context = _context(name, "0.0.1", language)
        return _compact({"header": header, **_with(payload), "context": context})

    return text


_USUAL_KEYS: Final = ("message_id", "task_id", "namespace", "name", "appkey")

SDKS: Final = (
    Sdk("python", _python, _python_text, _USUAL_KEYS, control="ControlTranscriber"),
    Sdk(
        "go",
        _go,
        _go_text,
        _USUAL_KEYS,
        frame_bytes=320,
        control="ControlTranscriber",
        asr={**ASR, "max_sentence_silence": 800, "enable_words": False},
        tts={**TTS, "enable_subtitle": False},
    ),
    Sdk(
        "java",
        _java,
        _java_text,
        ("namespace", "message_id", "name", "task_id", "appkey"),
        frame_bytes=3_200,
        end="stay",
        asr={"format": "pcm", "sample_rate": 16_000, "enable_intermediate_result": True},
    ),
    Sdk(
        "c++",
        _cpp,
        _cpp_text,
        tuple(sorted(_USUAL_KEYS)),
        checks="",
        mask=CONSTANT_MASK,
        control="ControlTranscriber",
        end="stay",
    ),
    Sdk(
        "php",
        _php,
        _php_text,
        ("appkey", "name", "message_id", "task_id", "namespace"),
        frame_bytes=3_200,
        fragment_bytes=4_096,
    ),
    Sdk(
        "node",
        _node,
        _script_text("nls-nodejs-sdk", "nodejs"),
        _USUAL_KEYS,
        frame_bytes=1_024,
        control="ControlTranscription",
        end="reset",
    ),
    Sdk(
        "wechat",
        _wechat,
        _script_text("nls-wx-sdk", "wxjs"),
        _USUAL_KEYS,
        frame_bytes=1_024,
        control="ControlTranscription",
    ),
)


# Connections


@dataclass(frozen=True, slots=True)
class Answer:
    """To a handshake, as it came: ``head`` up to its empty line, and ``body`` where it is no
    WebSocket."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        """Of HTTP."""
        return int(self.head.split()[1])

    def header(self, name: str) -> str | None:
        """A header by its name, whose spelling counts; None where there is none."""
        for line in self.head.decode().split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key == name:
                return value
        return None


def accept(key: str) -> str:
    """What a server answers to a key (RFC 6455, 4.2.2)."""
    magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + magic).encode()).digest()).decode()


@asynccontextmanager
async def handshaken(address: Address, request: bytes) -> AsyncIterator[tuple[Answer, RawSocket]]:
    """The answer to a handshake, which must be a 101, and the open connection, which is broken off
    at the end."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    client = RawSocket(reader, writer)
    try:
        writer.write(request)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = Answer(await reader.readuntil(b"\r\n\r\n"), b"")
        assert answer.status == 101, answer
        yield answer, client
    finally:
        client.abort(reset=False)


async def refused(address: Address, request: bytes) -> Answer:
    """The answer to a handshake, which must be a refusal, and the end of the connection."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(request)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = Answer(head, b"")
            assert answer.status != 101, answer
            return Answer(head, await reader.read())
    finally:
        writer.transport.abort()


@asynccontextmanager
async def connected(
    address: Address, sdk: Sdk, token: str | None = None, path: str = "/ws/v1"
) -> AsyncIterator[RawSocket]:
    """The SDK's connection, if it would go on with this answer; broken off at the end."""
    request = sdk.head(f"{address.host}:{address.port}", path, token)
    async with handshaken(address, request) as (answer, client):
        # Java keeps 8,192 bytes of an answer, PHP 1,024; C++ looks for the first words.
        assert len(answer.head) < 1_024
        assert answer.head.startswith(b"HTTP/1.1 101 ")
        if sdk.checks:
            assert answer.header("Sec-WebSocket-Accept") == accept(sdk.checks)
        yield client
