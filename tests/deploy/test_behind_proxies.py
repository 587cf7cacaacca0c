"""The configurations of ``deploy/``, in the real nginx and HAProxy, in front of a real server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from app.client.errors import AccessRefused, NlsTaskFailed, RequestRefused
from app.client.nls import NlsClient
from app.client.rest import RestClient
from app.core.speech import Utterance
from app.engines.base import Piece
from app.engines.fake.options import FakeOptions
from app.engines.fake.synthesizer import FakeSynthesizer
from tests.deploy.conftest import StartProxy
from tests.deploy.proxies import HAPROXY, NGINX, Kind, Proxy, trusting
from tests.support.live import live_server
from tests.support.rawsocket import RawSocket, start, until, whole_task
from tests.support.sound import joined, silence, tone

TOKEN: Final = "right-token-0123"
WRONG: Final = "wrong-and-secret-token-wrong"

FIRST_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
CONSTANT_KEY: Final = "x3JJHMbDL1EzLkh9GBhXDw=="
ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to the first key: both are the example of RFC 6455, section 1.3."""

PYTHON_SDK: Final = (
    "GET /ws/v1 HTTP/1.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Host: speech.example",
    "Origin: http://speech.example",
    f"Sec-WebSocket-Key: {FIRST_KEY}",
    "Sec-WebSocket-Version: 13",
    f"X-NLS-Token: {TOKEN}",
    f"Sec-WebSocket-Key: {CONSTANT_KEY}",
    "Sec-WebSocket-Version: 13",
)
"""The official SDK's handshake (nls-protocol.md 1.2)."""

SHORT_S: Final = "1s"
"""Stands for the 60 s after which a proxy without our settings cuts an idle connection."""

SPEECH: Final = joined(silence(200), tone(1010), silence(100)).tobytes()
SPEECH_RESULT: Final = "heard 1010 ms"

QUICK_CHECK: Final = {
    "check inter 2s": "check inter 1s fall 1 rise 1",
    # On a busy machine a check may be answered late: that must not fail it here.
    "timeout connect 5s": "timeout connect 5s\n    timeout check 20s",
}
"""For HAProxy: one check is enough to change its mind."""

DOWN: Final = "funspeech/funspeech is DOWN"
UP: Final = "funspeech/funspeech is UP"
"""What it then logs."""

DEADLINE_S: Final = 30.0
"""Nothing here takes so long: it is for the test that would otherwise hang."""


def client(proxy: Proxy, token: str = TOKEN) -> NlsClient:
    """Without pings, which would keep a connection open that the proxy must not close."""
    return NlsClient(proxy.ws, token, ssl=trusting(), ping_interval_s=None)


def rest(proxy: Proxy, token: str = TOKEN) -> RestClient:
    return RestClient(proxy.http, token, ssl=trusting())


def web(proxy: Proxy) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=proxy.http,
        headers={"X-NLS-Token": TOKEN},
        verify=trusting(),
        timeout=DEADLINE_S,
        trust_env=False,
    )


@asynccontextmanager
async def dialled(
    proxy: Proxy, *lines: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TLS connection on which a request head has been sent; broken off at the end."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port, ssl=trusting())
    try:
        async with asyncio.timeout(DEADLINE_S):
            writer.write("\r\n".join([*lines, "", ""]).encode())
            await writer.drain()
            yield reader, writer
    finally:
        writer.transport.abort()


class GatedSynthesizer(FakeSynthesizer):
    """Speaks the first 400 ms of each sentence, and the rest when it may."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())
        self.gate = threading.Event()

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        pieces = super().synthesize(utterance)
        yield next(pieces)
        assert self.gate.wait(DEADLINE_S)
        yield from pieces


async def at_least(size: int, audio: AsyncIterator[bytes]) -> int:
    """Read so many bytes, and return how many it were."""
    got = 0
    async with asyncio.timeout(DEADLINE_S):
        while got < size:
            got += len(await anext(audio))
    return got


# --- every door ------------------------------------------------------------------------------


async def test_several_tasks_on_one_websocket(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    async with live_server(tmp_path, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port)
        async with client(proxy).connect() as connection:
            events = await connection.transcribe(SPEECH)
            audio = await connection.synthesize("hello", sample_rate=16_000)
            again = await connection.transcribe(SPEECH)
    for got in (events, again):
        ends = [event.payload["result"] for event in got if event.name == "SentenceEnd"]
        assert ends == [SPEECH_RESULT]
    assert len(audio) == 2 * 16_000


async def test_rest(tmp_path: Path, kind: Kind, start_proxy: StartProxy) -> None:
    async with (
        live_server(tmp_path, apptoken=TOKEN) as live,
        rest(start_proxy(kind, live.port)) as server,
    ):
        answer = await server.recognize(SPEECH)
        audio = await server.synthesize("hello", format="pcm")
        voices = await server.voices()
    assert answer.result == SPEECH_RESULT
    assert len(audio) == 2 * 16_000
    assert voices


async def test_health_needs_no_token(tmp_path: Path, kind: Kind, start_proxy: StartProxy) -> None:
    async with (
        live_server(tmp_path, apptoken=TOKEN) as live,
        web(start_proxy(kind, live.port)) as browser,
    ):
        ready = await browser.get("/health/ready", headers={"X-NLS-Token": ""})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


# --- handshake -------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["SpeechTranscriber", "SpeechSynthesizer"])
async def test_the_python_sdk_with_its_two_keys(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy, namespace: str
) -> None:
    async with live_server(tmp_path, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port)
        async with dialled(proxy, *PYTHON_SDK) as (reader, writer):
            status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(field.lower().split(": ", 1) for field in fields if field)
            assert status.startswith("HTTP/1.1 101 ")
            assert headers["sec-websocket-accept"] == ACCEPT.lower()
            assert "sec-websocket-extensions" not in headers
            assert "sec-websocket-protocol" not in headers
            await whole_task(RawSocket(reader, writer), namespace)


async def test_a_wrong_token_is_refused_in_the_words_and_spelling_that_the_cpp_sdk_reads(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    wrong = [line.replace(TOKEN, WRONG) for line in PYTHON_SDK]
    async with live_server(tmp_path, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port)
        async with dialled(proxy, *wrong) as (reader, _):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert answer.startswith("HTTP/1.1 403 ")
            # It finds the length by this spelling only (nls-protocol.md 1.2).
            length = int(answer.split("\r\nContent-Length: ")[1].split("\r\n")[0])
            body = (await reader.readexactly(length)).decode()
        assert body.startswith("Meta:ACCESS_DENIED:The token '")
        assert body.endswith("' is invalid!")
        with pytest.raises(AccessRefused):
            await client(proxy, WRONG).synthesize("hello")
        async with rest(proxy, WRONG) as server:
            with pytest.raises(NlsTaskFailed) as failed:
                await server.recognize(SPEECH)
        assert failed.value.code == 40000001


# --- time ------------------------------------------------------------------------------------

IDLE: Final = {
    NGINX.name: (
        {"server_tokens off;": f"server_tokens off; proxy_read_timeout {SHORT_S};"},
        {"proxy_read_timeout 24h;": ""},
    ),
    HAPROXY.name: (
        {
            "timeout client 60s": f"timeout client {SHORT_S}",
            "timeout server 5m": f"timeout server {SHORT_S}",
        },
        {"timeout tunnel 24h": ""},
    ),
}
"""For each proxy: a short default timeout, and the delivered setting that overrides it left out."""


async def test_an_idle_connection_outlives_the_default_timeout_by_the_delivered_setting(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    default, left_out = IDLE[kind.name]
    async with live_server(tmp_path, apptoken=TOKEN) as live:
        delivered = start_proxy(kind, live.port, default)
        without = start_proxy(kind, live.port, {**left_out, **default})
        async with client(delivered).connect() as idle:
            async with dialled(without, *PYTHON_SDK) as (reader, _):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                # The proxy ends it, with no close frame of ours: so much time has gone by.
                assert await reader.read() == b""
            events = await idle.transcribe(SPEECH)
    assert [event.payload["result"] for event in events if event.name == "SentenceEnd"] == [
        SPEECH_RESULT
    ]


# --- streams ---------------------------------------------------------------------------------


async def test_audio_of_a_websocket_is_heard_before_it_is_all_made(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    engine = GatedSynthesizer()
    async with live_server(tmp_path, tts=engine, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port)
        async with client(proxy).synthesizer("a" * 20) as task:
            audio = task.audio()
            got = await at_least(2 * 16_000 * 300 // 1000, audio)
            engine.gate.set()
            rest_of_it = [piece async for piece in audio]
    assert got + sum(map(len, rest_of_it)) == 2 * 16_000 * 4


async def test_audio_of_a_rest_call_is_heard_before_it_is_all_made(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    engine = GatedSynthesizer()
    text = {"text": "a" * 400, "format": "pcm", "sample_rate": 16_000}
    async with (
        live_server(tmp_path, tts=engine, apptoken=TOKEN) as live,
        web(start_proxy(kind, live.port)) as browser,
        browser.stream("POST", "/stream/v1/tts", json=text) as answer,
    ):
        audio = answer.aiter_bytes()
        got = await at_least(2 * 16_000 * 300 // 1000, audio)
        engine.gate.set()
        rest_of_it = [piece async for piece in audio]
    assert got + sum(map(len, rest_of_it)) == 2 * 16_000 * 80


async def test_an_upload_reaches_the_engine_as_it_comes_and_ends_with_its_client(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    lines = [
        "POST /stream/v1/asr?appkey=k HTTP/1.1",
        "Host: speech.example",
        f"X-NLS-Token: {TOKEN}",
        "Content-Type: application/octet-stream",
        "Transfer-Encoding: chunked",
    ]
    async with live_server(tmp_path, tts=None, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port)
        async with dialled(proxy, *lines) as (_, writer):
            writer.write(b"%x\r\n%b\r\n" % (len(SPEECH), SPEECH))  # and no end
            await writer.drain()
            await until(lambda: any(worker.active for worker in live.workers))
        await until(lambda: not any(worker.active for worker in live.workers))


async def test_a_client_that_vanishes_is_gone_behind_the_proxy_too(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    async with live_server(tmp_path, tts=None, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port)
        async with dialled(proxy, *PYTHON_SDK) as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            task = RawSocket(reader, writer)
            await task.text(start("SpeechTranscriber"))
            await task.expect("TranscriptionStarted")
            await task.audio(SPEECH)
            await until(lambda: any(worker.active for worker in live.workers))
        await until(lambda: not any(worker.active for worker in live.workers))


# --- sizes -----------------------------------------------------------------------------------


async def test_what_the_server_takes_passes(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    minute = silence(60_000).tobytes()  # beyond the 1 MiB of nginx
    text = "字" * 1000  # 9,000 bytes in a URL, beyond the 8 KiB of nginx
    async with live_server(tmp_path, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port)
        async with rest(proxy) as server, web(proxy) as browser:
            assert (await server.recognize(minute)).status == 20000000
            spoken = await browser.get("/stream/v1/tts", params={"text": text, "format": "pcm"})
    assert len(spoken.content) == 2 * 16_000 * 200


async def test_a_head_as_long_as_the_server_takes_passes(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    query = {"text": "ab", "format": "pcm", "other": "x" * 60_000}
    async with (
        live_server(tmp_path, apptoken=TOKEN) as live,
        web(start_proxy(kind, live.port)) as browser,
    ):
        answer = await browser.get("/stream/v1/tts", params=query)
    assert answer.headers["Content-Type"] == "audio/mpeg"


async def test_a_refusal_in_the_middle_of_an_upload_is_heard(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    """Many times, as each might be lucky: a server that closes its connection with a refusal, while
    the body still comes, breaks it off, and the proxy may lose the answer."""
    too_large, long = bytes(2_000_002), bytes(1_900_000)
    async with live_server(tmp_path, apptoken=TOKEN, max_audio_bytes=2_000_000) as live:
        proxy = start_proxy(kind, live.port)
        for _ in range(10):
            async with rest(proxy) as right, rest(proxy, WRONG) as wrong:
                with pytest.raises(NlsTaskFailed, match="2000000"):
                    await right.recognize(too_large)
                with pytest.raises(NlsTaskFailed, match="ACCESS_DENIED"):
                    await wrong.recognize(long)


# --- logs ------------------------------------------------------------------------------------


async def test_no_log_has_a_query_or_a_token(
    tmp_path: Path, kind: Kind, start_proxy: StartProxy
) -> None:
    async with live_server(tmp_path, apptoken=TOKEN) as live:
        proxy = start_proxy(kind, live.port, QUICK_CHECK if kind is HAPROXY else {})
        async with web(proxy) as browser:
            for token in (TOKEN, WRONG):
                await browser.get("/stream/v1/asr/models", params={"token": token})
        url = f"{proxy.ws}?token={TOKEN}"
        await NlsClient(url, ssl=trusting()).synthesize("hello")
    # And with nobody behind it. HAProxy would try for three seconds before it knows.
    await until(lambda: kind is not HAPROXY or DOWN in proxy.log())
    async with web(proxy) as browser:
        gone = await browser.get("/stream/v1/asr/models", params={"token": TOKEN})
    assert gone.status_code in (502, 503)
    with pytest.raises(RequestRefused):
        await NlsClient(url, ssl=trusting()).synthesize("hello")
    await until(lambda: proxy.log().count("/stream/v1/asr/models") == 3)
    await until(lambda: proxy.log().count('"GET /ws/v1"') == 2)
    for secret in ("token=", TOKEN, WRONG):
        assert secret not in proxy.log()


# --- the server behind ------------------------------------------------------------------------


async def test_nginx_lets_each_request_go_to_another_process(start_proxy: StartProxy) -> None:
    """A connection to the server is not used again, even though the server would leave it open."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        with contextlib.suppress(asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            connections += b"/health" not in request
            while True:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0) as server,
        web(start_proxy(NGINX, server.sockets[0].getsockname()[1])) as browser,
    ):
        for _ in range(3):
            assert (await browser.get("/")).status_code == 200
    assert connections == 3


async def test_haproxy_sends_nobody_new_to_a_server_that_is_not_ready(
    start_proxy: StartProxy,
) -> None:
    ready = True
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/ws/v1" in request:
            switch = "101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
            writer.write(f"HTTP/1.1 {switch}\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode())
            writer.write(await reader.readexactly(5))
        else:
            status = "200 OK" if ready or b"/health/ready" not in request else "503 No"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        proxy = start_proxy(HAPROXY, port, QUICK_CHECK)
        async with web(proxy) as browser, dialled(proxy, *PYTHON_SDK) as (reader, writer):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            ready = False
            await until(lambda: DOWN in proxy.log())
            assert (await browser.get("/")).status_code == 503
            writer.write(b"still")
            assert await reader.read() == b"still"
            ready = True
            await until(lambda: UP in proxy.log())
            assert (await browser.get("/")).status_code == 200
        server.close()
        # The proxy goes on looking: a check may be under way.
        for each in writers:
            each.transport.abort()
        await asyncio.gather(*(each.wait_closed() for each in writers), return_exceptions=True)
