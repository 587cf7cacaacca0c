"""Fifty clients vanish in every state of every protocol: half of them with a TCP reset, the others
without a word of WebSocket. The engine is held in the middle of a step, so that what it does after
its clients have gone is counted and not timed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import structlog

from app.client.nls import NlsClient
from app.serving.handles import RecognitionHandle, SpeechHandle
from app.serving.worker.server import WorkerServer
from tests.support.gated import Gate, GatedRecognizer, GatedSynthesizer
from tests.support.leftovers import no_leftovers
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    BINARY,
    PING,
    PONG,
    STARTS,
    RawSocket,
    frame,
    handshake,
    opened,
    start,
    stop,
    until,
    whole_task,
)
from tests.support.sound import joined, silence, tone

CLIENTS: Final = 50


@dataclass
class Scene:
    """A server with held engines. ``free_pieces``: of each utterance, before it is held."""

    live: Live
    gate: Gate
    recognizer: GatedRecognizer
    synthesizer: GatedSynthesizer

    def worker(self, role: str) -> WorkerServer:
        return next(each for each in self.live.workers if each.hello.role == role)

    @property
    def steps(self) -> int:
        """Of the recogniser, each over all streams that were ready."""
        recognition = self.worker("asr").recognition
        assert recognition is not None
        return recognition.stepper.steps

    @property
    def pieces(self) -> int:
        """Of the synthesiser."""
        synthesis = self.worker("tts").synthesis
        assert synthesis is not None
        return synthesis.pieces

    @property
    def active(self) -> int:
        return sum(worker.active for worker in self.live.workers)


@asynccontextmanager
async def scene(folder: Path, free_pieces: int = 0) -> AsyncIterator[Scene]:
    gate = Gate()
    recognizer, synthesizer = GatedRecognizer(gate), GatedSynthesizer(gate, free_pieces)
    async with live_server(folder, asr=recognizer, tts=synthesizer) as live:
        try:
            yield Scene(live, gate, recognizer, synthesizer)
        finally:
            gate.open()


# Clients


class Http:
    """A client of the REST doors, made of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.raw = RawSocket(reader, writer)

    def abort(self, *, reset: bool) -> None:
        """See :meth:`RawSocket.abort`."""
        self.raw.abort(reset=reset)


async def http(live: Live, request: str, body: bytes = b"") -> Http:
    """A client that has sent a request, or a part of one."""
    client = Http(*await asyncio.open_connection(live.host, live.port))
    await client.raw.send(request.replace("\n", "\r\n").encode() + body)
    return client


Client = RawSocket | Http


async def pinged(client: RawSocket) -> None:
    """What was sent before has been read."""
    await client.send(frame(PING, b"x"))
    while (await client.frame()).opcode != PONG:
        pass


def text(number: int, characters: int = 20) -> str:
    """Of a client by itself: the engine counts by texts."""
    return f"{number:03}" + "x" * (characters - 3)


# The states, in the order of a connection's life


async def in_the_handshake(at: Scene, number: int) -> Client:
    parts = ("", "G", "GET /ws/v1 HTTP/1.1\nUpgrade: webso", "GET /ws/v1 HTTP/1.1\nHost: a\n")
    return await http(at.live, parts[number % len(parts)])


async def before_the_handshake_is_answered(at: Scene, number: int) -> Client:
    """Sent whole; it vanishes while the server answers."""
    lines = (
        f"GET /ws/v1 HTTP/1.1\nHost: {at.live.host}\nUpgrade: websocket\nConnection: Upgrade\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
    )
    return await http(at.live, lines)


async def after_the_handshake(at: Scene, number: int) -> Client:
    client = await handshake(at.live)
    await pinged(client)
    return client


async def in_a_frame(at: Scene, number: int) -> Client:
    client = await handshake(at.live)
    await client.send(frame(1, start().encode())[: 5 + number])
    return client


async def recognition_asked_for(at: Scene, number: int) -> Client:
    client = await handshake(at.live)
    await client.text(start(("SpeechTranscriber", "SpeechRecognizer")[number % 2]))
    return client


async def synthesis_asked_for(at: Scene, number: int) -> Client:
    client = await handshake(at.live)
    await client.text(start("SpeechSynthesizer", text=text(number)))
    return client


async def started(at: Scene, number: int) -> RawSocket:
    namespace = ("SpeechTranscriber", "SpeechRecognizer")[number % 2]
    client = await handshake(at.live)
    await client.text(start(namespace, enable_intermediate_result=True))
    await client.expect(STARTS[namespace].replace("Start", "") + "Started")
    return client


async def streaming(at: Scene, number: int) -> Client:
    client = await started(at, number)
    await client.audio(*[silence(100).tobytes()] * 20)
    await pinged(client)
    return client


async def in_a_sentence(at: Scene, number: int) -> Client:
    client = await handshake(at.live)
    await client.text(start(enable_intermediate_result=True))
    await client.expect("TranscriptionStarted")
    await client.audio(joined(silence(200), tone(400)).tobytes())
    await client.until("SentenceBegin")
    return client


async def speak_on(client: Client) -> None:
    assert isinstance(client, RawSocket)
    await client.audio(*[tone(100).tobytes()] * 20)


async def stopping(at: Scene, number: int) -> Client:
    client = await started(at, number)
    await client.audio(tone(2000).tobytes())
    await client.text(stop(("SpeechTranscriber", "SpeechRecognizer")[number % 2]))
    await pinged(client)
    return client


async def waiting_for_audio(at: Scene, number: int) -> Client:
    return await synthesis_asked_for(at, number)


async def hearing_audio(at: Scene, number: int) -> Client:
    """It has read what there is up to now, so that its close is no reset."""
    client = await synthesis_asked_for(at, number)
    assert isinstance(client, RawSocket)
    assert (await client.frame()).opcode == BINARY
    return client


async def between_tasks(at: Scene, number: int) -> Client:
    client = await handshake(at.live)
    await whole_task(client, ("SpeechTranscriber", "SpeechSynthesizer")[number % 2])
    return client


async def uploading(at: Scene, number: int) -> Client:
    request = "POST /stream/v1/asr HTTP/1.1\nHost: a\nContent-Length: 1000000\n\n"
    return await http(at.live, request, tone(2000).tobytes())


async def uploaded(at: Scene, number: int) -> Client:
    audio = tone(2000).tobytes()
    request = f"POST /stream/v1/asr HTTP/1.1\nHost: a\nContent-Length: {len(audio)}\n\n"
    return await http(at.live, request, audio)


async def waiting_for_an_answer(at: Scene, number: int) -> Client:
    return await http(at.live, f"GET /stream/v1/tts?text={text(number)} HTTP/1.1\nHost: a\n\n")


async def reading_an_answer(at: Scene, number: int) -> Client:
    """A text that is so long that it is heard while it is being made."""
    body = json.dumps({"text": text(number, 180) + ". " + text(number, 180)}).encode()
    request = f"POST /stream/v1/tts HTTP/1.1\nHost: a\nContent-Length: {len(body)}\n\n"
    client = await http(at.live, request, body)
    async with asyncio.timeout(20):
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        await client.reader.readexactly(1000)
    return client


@dataclass(frozen=True)
class State:
    """How a client gets there; the engines are ``open`` on the way, or else held. ``then`` is done
    when they are held. ``busy``: the worker that has a task of each client. ``ungranted``: its
    grants do not arrive."""

    reach: Callable[[Scene, int], Awaitable[Client]]
    busy: str = ""
    open: bool = False
    then: Callable[[Client], Awaitable[None]] | None = None
    free_pieces: int = 0
    ungranted: bool = False


STATES: Final = {
    "in the handshake": State(in_the_handshake),
    "before the handshake is answered": State(before_the_handshake_is_answered),
    "after the handshake": State(after_the_handshake),
    "in a frame": State(in_a_frame),
    "before Started": State(recognition_asked_for, busy="asr", ungranted=True),
    "before the synthesis is granted": State(synthesis_asked_for, busy="tts", ungranted=True),
    "started": State(started, busy="asr"),
    "streaming": State(streaming, busy="asr"),
    "in a sentence": State(in_a_sentence, busy="asr", open=True, then=speak_on),
    "after Stop": State(stopping, busy="asr"),
    "before the first audio": State(waiting_for_audio, busy="tts"),
    "in the audio": State(hearing_audio, busy="tts", free_pieces=2),
    "between tasks": State(between_tasks, open=True),
    "in a REST upload": State(uploading, busy="asr"),
    "after a REST upload": State(uploaded, busy="asr"),
    "before a REST answer": State(waiting_for_an_answer, busy="tts"),
    "in a REST answer": State(reading_an_answer, busy="tts", free_pieces=2),
}


@pytest.fixture(autouse=True)
def no_errors_logged() -> Iterator[None]:
    """Clients that vanish are no error of ours."""
    with structlog.testing.capture_logs() as lines:
        yield
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []


@dataclass
class Counted:
    """What the engines had begun."""

    at: Scene
    fed: dict[object, int] = field(init=False)
    begun: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.steps, self.pieces = self.at.steps, self.at.pieces
        self.fed = dict(self.at.recognizer.fed)
        self.begun = dict(self.at.synthesizer.begun)

    def within_a_step(self, earlier: Counted) -> None:
        """No step was begun since then. A piece that was under way may have come out."""
        assert self.steps == earlier.steps
        assert self.fed == earlier.fed
        assert self.begun == earlier.begun
        assert self.pieces - earlier.pieces <= len(earlier.begun)


async def warmed_up(at: Scene) -> None:
    """Everything that is made at first use is there: threads, modules, samples of metrics."""
    at.gate.open()
    async with opened(at.live) as client:
        for namespace in STARTS:
            await whole_task(client, namespace)
    for request in (
        "GET /stream/v1/tts?text=ab HTTP/1.1\nHost: a\nConnection: close\n\n",
        "GET /nothing HTTP/1.1\nHost: a\nConnection: close\n\n",
    ):
        answered = await http(at.live, request)
        async with asyncio.timeout(20):
            await answered.reader.read()
        answered.abort(reset=False)
    await until(lambda: not at.active and not any(w.work() for w in at.live.workers))
    at.gate.close()


@pytest.mark.parametrize("name", STATES)
async def test_fifty_clients_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    state = STATES[name]
    async with scene(tmp_path, state.free_pieces) as at:
        await warmed_up(at)
        async with no_leftovers(at.live):
            with monkeypatch.context() as patch:
                if state.ungranted:
                    patch.setattr(RecognitionHandle, "grant", lambda self: None)
                    patch.setattr(SpeechHandle, "grant", lambda self: None)
                await _vanish(at, state)
            # The engines serve on. (A worker remembers its last step until the next one.)
            async with opened(at.live) as client:
                await whole_task(client, "SpeechTranscriber")
                await whole_task(client, "SpeechSynthesizer")


async def _vanish(at: Scene, state: State) -> None:
    if state.open:
        at.gate.open()
    clients = await asyncio.gather(*(state.reach(at, number) for number in range(CLIENTS)))
    await until(lambda: not state.open or not any(w.work() for w in at.live.workers))
    at.gate.close()
    if state.then is not None:
        await asyncio.gather(*(state.then(client) for client in clients))
    if state.busy:
        # Two sentences of a text are under way at a time.
        await until(lambda: at.worker(state.busy).active >= CLIENTS)
    if state.then is not None or state.reach in HOLDING:
        await until(lambda: at.gate.waiting > 0)
    before = Counted(at)
    for number, client in enumerate(clients):
        client.abort(reset=number % 2 == 0)
    # The engines are in the middle of what they do, and yet nobody waits for them.
    await until(lambda: at.active == 0)
    assert not at.gate.is_open
    at.gate.open()
    await until(lambda: not any(worker.work() for worker in at.live.workers))
    Counted(at).within_a_step(before)


HOLDING: Final = frozenset(
    {streaming, stopping, waiting_for_audio, hearing_audio}
    | {uploading, uploaded, waiting_for_an_answer, reading_an_answer}
)
"""What ends with an engine that is in the middle of a step."""


async def test_those_who_stay_lose_nothing(tmp_path: Path) -> None:
    """Half of fifty vanish in the middle of a step that all of them share."""
    async with scene(tmp_path) as at:
        await warmed_up(at)
        async with no_leftovers(at.live):
            clients = await asyncio.gather(*(streaming(at, 0) for _ in range(CLIENTS)))
            await until(lambda: at.worker("asr").active == CLIENTS and at.gate.waiting == 1)
            for number, client in enumerate(clients[::2]):
                client.abort(reset=number % 2 == 0)
            await until(lambda: at.active == CLIENTS // 2)
            gone = dict(at.recognizer.fed)
            at.gate.open()
            for client in clients[1::2]:
                assert isinstance(client, RawSocket)
                await client.audio(tone(500).tobytes())
                await client.text(stop())
                events = await client.until("TranscriptionCompleted")
                ends = [each for each in events if each["header"]["name"] == "SentenceEnd"]
                assert [each["payload"]["result"] for each in ends] == ["heard 500 ms"]
                client.abort(reset=False)
            steps = [count - gone.get(key, 0) for key, count in at.recognizer.fed.items()]
            # 2.5 s of those who stayed, in steps of 200 ms; nothing of those who left.
            assert sum(each > 0 for each in steps) == CLIENTS // 2
        assert len(await NlsClient(at.live.ws).synthesize("ab")) == 12_800
