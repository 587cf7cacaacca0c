"""The official Python SDK's handshake, byte for byte on a raw socket: it sends two keys and two
versions, and checks the answer against its first key (nls-protocol.md 1.2)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path

import pytest

from tests.support.live import Live, live_server

FIRST_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
CONSTANT_KEY = "x3JJHMbDL1EzLkh9GBhXDw=="


async def handshake(live: Live, path: str, *lines: str) -> tuple[str, dict[str, str], str]:
    """Status line, headers as spelled, and body or first frames."""
    reader, writer = await asyncio.open_connection(live.host, live.port)
    head = [f"GET {path} HTTP/1.1", f"Host: {live.host}:{live.port}", "Upgrade: websocket",
            "Connection: Upgrade", *lines, "", ""]  # fmt: skip
    writer.write("\r\n".join(head).encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    status, *fields = answer.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields if field)
    body = ""
    if "Content-Length" in headers:
        body = (await reader.readexactly(int(headers["Content-Length"]))).decode()
    writer.close()
    return status, headers, body


def accept(key: str) -> str:
    magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + magic).encode()).digest()).decode()


SDK_HEADERS = (
    f"Sec-WebSocket-Key: {FIRST_KEY}",
    "Sec-WebSocket-Version: 13",
    "X-NLS-Token: right-token",
    f"Sec-WebSocket-Key: {CONSTANT_KEY}",
    "Sec-WebSocket-Version: 13",
)


@pytest.mark.parametrize(
    "path", ["/ws/v1", "/ws/v1/asr", "/ws/v1/tts", "/stream/v1/asr", "/stream/v1/tts"]
)
async def test_the_first_of_two_keys_is_answered(tmp_path: Path, path: str) -> None:
    async with live_server(tmp_path, apptoken="right-token") as live:
        status, headers, _ = await handshake(live, path, *SDK_HEADERS)
    assert status == "HTTP/1.1 101 Switching Protocols"
    assert headers["Sec-WebSocket-Accept"] == accept(FIRST_KEY)
    assert "Sec-WebSocket-Extensions" not in headers
    assert "Sec-WebSocket-Protocol" not in headers


async def test_a_wrong_token_is_403_with_the_words_that_the_cpp_sdk_reads(tmp_path: Path) -> None:
    async with live_server(tmp_path, apptoken="right-token") as live:
        status, headers, body = await handshake(
            live,
            "/ws/v1",
            f"Sec-WebSocket-Key: {FIRST_KEY}",
            "Sec-WebSocket-Version: 13",
            "X-NLS-Token: wrong-token-123",
        )
    assert status == "HTTP/1.1 403 Forbidden"
    assert "ACCESS_DENIED" in body
    assert "The token '" in body
    assert "is invalid!" in body
    assert int(headers["Content-Length"]) == len(body.encode())


async def test_the_token_may_come_in_the_query(tmp_path: Path) -> None:
    async with live_server(tmp_path, apptoken="right-token") as live:
        key = f"Sec-WebSocket-Key: {FIRST_KEY}"
        version = "Sec-WebSocket-Version: 13"
        right, _, _ = await handshake(live, "/ws/v1?token=right-token", key, version)
        wrong, _, _ = await handshake(live, "/ws/v1?token=wrong", key, version)
    assert right.split()[1] == "101"
    assert wrong.split()[1] == "403"


async def test_a_whole_task_after_that_handshake(tmp_path: Path) -> None:
    """Frames as the SDK masks them, up to the events; then an abrupt end."""
    async with live_server(tmp_path, apptoken="right-token") as live:
        reader, writer = await asyncio.open_connection(live.host, live.port)
        head = ["GET /ws/v1 HTTP/1.1", f"Host: {live.host}", "Upgrade: websocket",
                "Connection: Upgrade", *SDK_HEADERS, "", ""]  # fmt: skip
        writer.write("\r\n".join(head).encode())
        await reader.readuntil(b"\r\n\r\n")
        header = {
            "message_id": "0" * 32,
            "task_id": "1" * 32,
            "namespace": "SpeechTranscriber",
            "appkey": "k",
        }
        start = {**header, "name": "StartTranscription"}
        writer.write(masked(0x1, json.dumps({"header": start, "payload": {}}).encode()))
        started = await frame(reader)
        assert started["header"]["name"] == "TranscriptionStarted"
        stop = {**header, "name": "StopTranscription"}
        writer.write(masked(0x1, json.dumps({"header": stop}).encode()))
        completed = await frame(reader)
        assert completed["header"]["name"] == "TranscriptionCompleted"
        writer.transport.abort()


def masked(opcode: int, payload: bytes, mask: bytes = b"\x12\x34\x56\x78") -> bytes:
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    length = (
        bytes([0x80 | len(payload)])
        if len(payload) < 126
        else (bytes([0x80 | 126]) + len(payload).to_bytes(2, "big"))
    )
    return bytes([0x80 | opcode]) + length + mask + body


async def frame(reader: asyncio.StreamReader) -> dict[str, dict[str, object]]:
    """The next frame: one text frame with FIN."""
    first, second = await asyncio.wait_for(reader.readexactly(2), 5)
    assert first == 0x81
    length = second
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    message: dict[str, dict[str, object]] = json.loads(await reader.readexactly(length))
    return message
