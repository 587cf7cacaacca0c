"""What a client can make the server hold: one that sends far faster than real time to an engine
that does not keep up, and one that reads nothing. Counted in bytes that anything in the process
refers to; the client's own are few."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from app.api.nls_jobs import INTAKE_S
from app.api.nls_ws import OUTBOX_FRAMES
from app.core.config import Config
from app.services.encoding import MAX_PIECE_BYTES
from app.services.passages import MAX_SENTENCE_CHARS
from app.serving.protocol import AUDIO_IN_CREDIT_S, AUDIO_OUT_CREDIT_S
from tests.support.gated import Gate, GatedRecognizer, GatedSynthesizer
from tests.support.held import held_bytes
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    BINARY,
    RawSocket,
    frame,
    opened,
    start,
    stop,
    until,
    whole_task,
)
from tests.support.sound import joined, silence, tone

SECOND: Final = 32_000
"""Bytes of audio, as the clients here send it."""

READ: Final = 256 * 1024
"""The event loop reads up to so much at a time; frames in there are taken whole."""

WRITE: Final = 64 * 1024 + MAX_PIECE_BYTES
"""A transport takes more until so much waits."""

SLACK: Final = 512 * 1024
"""The client's own buffers, a copy that is on its way from one place to the next, log lines."""

UNDER_WAY: Final = int(AUDIO_IN_CREDIT_S + 2) * SECOND
"""The credit, overdrawn by a chunk."""

MESSAGE: Final = int(Config.model_fields["max_message_bytes"].default)

FAST: Final = INTAKE_S * SECOND + 2 * MESSAGE + READ + 3 * UNDER_WAY + SLACK
"""A stream that is behind: the intake, the message that filled it up, the one behind that, what was
read with it; and what is under way, which the API process keeps, in case that it must be repeated,
as well as the worker (and the next step has a copy)."""

UNREAD: Final = (
    OUTBOX_FRAMES * MAX_PIECE_BYTES
    + WRITE
    + int(AUDIO_OUT_CREDIT_S + 1) * 48_000
    + 2 * MAX_SENTENCE_CHARS * 9_600
    + SLACK
)
"""A synthesis that nobody reads: what waits to be written, the credit, and in the worker two
sentences (of 24 kHz audio, 200 ms a character)."""

MINUTES: Final = 10
SPEECH: Final = joined(tone(1_500), silence(1_000)).tobytes() * (24 * MINUTES)
"""19 MB; all clients send slices of it."""

COUNT: Final = 1_000
SENTENCES: Final = joined(tone(200), silence(300)).tobytes() * COUNT
"""16 MB of short ones."""


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[Live, Gate]]:
    """With engines that are held until the gate is opened; warmed up."""
    gate = Gate()
    asr, tts = GatedRecognizer(gate), GatedSynthesizer(gate)
    async with live_server(
        folder,
        asr=asr,
        tts=tts,
        max_text_chars=5_000,
        max_audio_seconds=3_600,
        max_audio_bytes=2 * len(SPEECH),
    ) as live:
        gate.open()
        async with opened(live) as client:
            await whole_task(client, "SpeechTranscriber")
            await whole_task(client, "SpeechSynthesizer")
        await until(lambda: not any(worker.active for worker in live.workers))
        try:
            yield live, gate
        finally:
            gate.open()


class Meter:
    """The bytes held since it was made."""

    def __init__(self) -> None:
        self._before = held_bytes()

    async def most(self) -> int:
        """At several moments."""
        found = []
        for _ in range(4):
            for _ in range(50):
                await asyncio.sleep(0.001)
            found.append(held_bytes() - self._before)
        print(f"{max(found):,} bytes held")
        return max(found)


def driver(live: Live) -> Any:
    """Of the one WebSocket."""
    (found,) = [each for drain, _ in live.apis for each in drain._connections]
    return found


async def pour(client: RawSocket, data: bytes, size: int) -> None:
    """Audio in frames of ``size``, as fast as the server takes it."""
    for begin in range(0, len(data), size):
        framed = frame(BINARY, data[begin : begin + size])
        for at in range(0, len(framed), 16_384):
            await client.send(framed[at : at + 16_384])


@pytest.mark.parametrize("size", [640, 3_200, MESSAGE])
async def test_audio_a_hundred_times_faster_than_real_time(tmp_path: Path, size: int) -> None:
    async with server(tmp_path) as (live, gate), opened(live) as client:
        gate.close()
        meter = Meter()
        await client.text(start())
        await client.expect("TranscriptionStarted")
        pouring = asyncio.create_task(pour(client, SPEECH, size))
        await until(lambda: driver(live)._job.is_full)
        assert await meter.most() <= FAST
        assert not pouring.done()
        # And nothing of it is lost.
        gate.open()
        reading = asyncio.create_task(client.until("TranscriptionCompleted"))
        most = await meter.most()
        await pouring
        await client.text(stop())
        events = await reading
        assert most <= FAST
        ends = [each for each in events if each["header"]["name"] == "SentenceEnd"]
        assert [each["payload"]["result"] for each in ends] == ["heard 1500 ms"] * 24 * MINUTES


async def test_a_post_a_hundred_times_faster_than_real_time(tmp_path: Path) -> None:
    async with server(tmp_path) as (live, gate):
        gate.close()
        meter = Meter()
        reader, writer = await asyncio.open_connection(live.host, live.port)
        client = RawSocket(reader, writer)
        audio = SPEECH[: 600 * SECOND]
        length = f"Content-Length: {len(audio)}"
        await client.send(f"POST /stream/v1/asr HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n".encode())

        async def post() -> None:
            for at in range(0, len(audio), 16_384):
                await client.send(audio[at : at + 16_384])

        posting = asyncio.create_task(post())
        await until(lambda: live.workers[0].active == 1 and gate.waiting == 1)
        assert await meter.most() <= READ + 3 * UNDER_WAY + SLACK
        assert not posting.done()
        gate.open()
        await posting
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            (size,) = [
                int(line.split(b":")[1])
                for line in head.lower().splitlines()
                if line.startswith(b"content-length")
            ]
            answer = json.loads(await reader.readexactly(size))
        assert answer["status"] == 20000000
        client.abort(reset=False)


async def test_a_client_that_reads_no_audio(tmp_path: Path) -> None:
    characters = 3_000
    async with server(tmp_path) as (live, _), opened(live, receive_buffer=4096) as client:
        meter = Meter()
        text = start("SpeechSynthesizer", text="a" * characters, sample_rate=24_000)
        await client.text(text)
        await until(lambda: len(driver(live)._outbox) > OUTBOX_FRAMES)
        assert await meter.most() <= UNREAD
        size, got = 0, await client.frame()
        while got.opcode == BINARY:
            size, got = size + len(got.payload), await client.frame()
        assert size == characters * 9_600


async def test_a_client_that_reads_no_answer_of_a_post(tmp_path: Path) -> None:
    async with server(tmp_path) as (live, _):
        meter = Meter()
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(raw, (live.host, live.port))
        client = RawSocket(*await asyncio.open_connection(sock=raw, limit=1024))
        body = json.dumps({"text": "a" * 3_000, "sample_rate": 24_000}).encode()
        length = f"Content-Length: {len(body)}"
        await client.send(
            f"POST /stream/v1/tts HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n".encode() + body
        )
        await until(lambda: any(_unwritten(live)))
        assert await meter.most() <= UNREAD
        client.abort(reset=True)
        await until(lambda: not any(worker.active for worker in live.workers))


async def test_a_client_that_speaks_and_reads_nothing(tmp_path: Path) -> None:
    async with server(tmp_path) as (live, _), opened(live, receive_buffer=4096) as client:
        meter = Meter()
        await client.text(start(max_sentence_silence=200, enable_intermediate_result=True))
        await client.expect("TranscriptionStarted")
        for _, running in live.apis:
            for each in running.server_state.connections:
                # Else the kernel takes megabytes before we have to wait for the client.
                raw = each.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        pouring = asyncio.create_task(pour(client, SENTENCES, 3_200))
        await until(lambda: len(driver(live)._outbox) > OUTBOX_FRAMES)
        assert await meter.most() <= FAST + WRITE
        assert not pouring.done()
        reading = asyncio.create_task(client.until("TranscriptionCompleted"))
        await pouring
        await client.text(stop())
        ends = [each for each in await reading if each["header"]["name"] == "SentenceEnd"]
        assert [each["payload"]["result"] for each in ends] == ["heard 200 ms"] * COUNT


def _unwritten(live: Live) -> list[int]:
    """Bytes that wait in the transports."""
    connections = [each for _, running in live.apis for each in running.server_state.connections]
    return [each.transport.get_write_buffer_size() for each in connections]
