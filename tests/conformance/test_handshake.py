"""nls-protocol.md 9, Handshake: numbers 1 to 7. Answers are compared as raw bytes."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.access import tokens
from app.access.store import Store, open_store
from app.client.nls import NlsClient
from app.core.config import Config
from tests.support.live import Live, live_server
from tests.support.rawsocket import start, whole_task
from tests.support.sdk_bytes import (
    CONSTANT_KEY,
    RANDOM_KEY,
    SDKS,
    Answer,
    accept,
    handshaken,
    refused,
)

TOKEN = "right-token-0123"
VERSION = "Sec-WebSocket-Version: 13"
KEY = f"Sec-WebSocket-Key: {RANDOM_KEY}"


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[Live]:
    """A server that wants a token."""
    async with live_server(folder, apptoken=TOKEN) as live:
        yield live


@asynccontextmanager
async def database(folder: Path) -> AsyncIterator[Store]:
    """The one of that server."""
    config = Config.model_validate({"data_dir": folder / "data"})
    async with open_store(config) as store:
        yield store


async def issued(folder: Path) -> str:
    """A token of the server's own."""
    async with database(folder) as store:
        token, _ = await store.create_token(seconds=60)
    return token


async def expired(folder: Path) -> str:
    """One that was good until a second ago."""
    async with database(folder) as store:
        key = (await store.snapshot()).token_key
    return tokens.issue(key, expires_at=int(time.time()) - 1, appkey=None, token_id=bytes(8))


def request(live: Live, path: str, *headers: str) -> bytes:
    """A handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {live.host}:{live.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def with_token(live: Live, token: str, *headers: str) -> bytes:
    """A handshake with the token in its header."""
    return request(live, "/ws/v1", KEY, VERSION, f"X-NLS-Token: {token}", *headers)


async def test_01_the_token_in_the_header(tmp_path: Path) -> None:
    async with guarded(tmp_path) as live:
        for token in (TOKEN, await issued(tmp_path)):
            async with handshaken(live, with_token(live, token)) as (_, client):
                await whole_task(client, "SpeechTranscriber")


async def test_02_the_token_in_the_query(tmp_path: Path) -> None:
    async with guarded(tmp_path) as live:
        for token in (TOKEN, await issued(tmp_path)):
            asked = request(live, f"/ws/v1?token={token}", KEY, VERSION)
            async with handshaken(live, asked) as (_, client):
                await whole_task(client, "SpeechTranscriber")


async def test_03_a_wrong_token(tmp_path: Path) -> None:
    async with guarded(tmp_path) as live:
        old = await expired(tmp_path)
        answers = {
            "The token 'bad-****en-1' is invalid!": ["X-NLS-Token: bad-token-token-1"],
            f"The token '{old[:4]}****{old[-4:]}' has expired!": [f"X-NLS-Token: {old}"],
        }
        for text, headers in answers.items():
            answer = await refused(live, request(live, "/ws/v1", KEY, VERSION, *headers))
            check_refusal(answer, f"Meta:ACCESS_DENIED:{text}")


async def test_03_a_missing_token(tmp_path: Path) -> None:
    text = "Missing authorization header; send the token as X-NLS-Token."
    async with live_server(tmp_path, apptoken=TOKEN, ws_token_in_message=False) as live:
        answer = await refused(live, request(live, "/ws/v1", KEY, VERSION))
        check_refusal(answer, f"Meta:ACCESS_DENIED:{text}")


async def test_03_a_missing_token_that_a_message_might_bring(tmp_path: Path) -> None:
    """By default it may come as late as in Start, because browsers can set no header
    (WS_TOKEN_IN_MESSAGE). Where it does not, the task is refused in the words of the handshake."""
    async with (
        guarded(tmp_path) as live,
        handshaken(live, request(live, "/ws/v1", KEY, VERSION)) as (_, client),
    ):
        await client.text(start())
        header = await client.failure()
    assert header["status"] == 40000001
    assert header["status_text"].startswith("Gateway:ACCESS_DENIED:Missing authorization header")


def check_refusal(answer: Answer, body: str) -> None:
    """The whole answer, byte for byte but for the time."""
    assert answer.body == body.encode()
    assert undated(answer.head) == (
        b"HTTP/1.1 403 Forbidden\r\nDate: *\r\nConnection: close\r\n"
        b"Content-Length: %d\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" % len(body)
    )


def undated(head: bytes) -> bytes:
    """Without what changes."""
    return re.sub(rb"(?i)(date): [^\r]+", rb"\1: *", head)


async def test_04_the_first_of_two_keys_counts(tmp_path: Path) -> None:
    async with guarded(tmp_path) as live:
        (python,) = [sdk for sdk in SDKS if sdk.name == "python"]
        sent = python.head(f"{live.host}:{live.port}", "/ws/v1", TOKEN)
        assert sent.count(b"Sec-WebSocket-Key: ") == sent.count(b"Sec-WebSocket-Version: ") == 2
        async with handshaken(live, sent) as (answer, client):
            agreed = answer.header("Sec-WebSocket-Accept")
            assert agreed == accept(RANDOM_KEY) != accept(CONSTANT_KEY)
            await whole_task(client, "SpeechTranscriber")


async def test_05_nothing_is_negotiated(tmp_path: Path) -> None:
    async with guarded(tmp_path) as live:
        for offer in (
            [],
            ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
        ):
            async with handshaken(live, with_token(live, TOKEN, *offer)) as (answer, client):
                # Neither of the two headers, nor anything else that a client could take amiss.
                assert undated(answer.head).split(b"\r\n") == [
                    b"HTTP/1.1 101 Switching Protocols",
                    b"Upgrade: websocket",
                    b"Connection: Upgrade",
                    b"Sec-WebSocket-Accept: " + accept(RANDOM_KEY).encode(),
                    b"date: *",
                    b"",
                    b"",
                ]
                # A frame that used an extension would not be read.
                await whole_task(client, "SpeechTranscriber")


async def test_06_the_answer_is_small(tmp_path: Path) -> None:
    async with guarded(tmp_path) as live:
        async with handshaken(live, with_token(live, TOKEN)) as (answer, _):
            pass
        refusal = await refused(live, with_token(live, "x" * 7_000))
    # The limit is 8,192 (Java); PHP reads no more than this.
    assert len(answer.head) < 1_024
    assert len(refusal.head + refusal.body) < 1_024


async def test_07_plain_websocket_with_a_port(tmp_path: Path) -> None:
    async with guarded(tmp_path) as live:
        for host in (live.host, "localhost"):
            url = f"ws://{host}:{live.port}/ws/v1"
            audio = await NlsClient(url, TOKEN).synthesize("ab")
            assert len(audio) == 2 * 16_000 * 400 // 1000
