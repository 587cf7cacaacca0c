"""Fifty clients say 5,000 things to a running server, most of them wrong: each is answered as
documented, or not at all, and nothing is left of it.

What they say is hypothesis' choice, as in ``tests/protocol``; here the driver, the services, the
workers and the socket itself take part.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from app.access.rows import ProjectRow, UsageSum
from app.access.store import open_store
from app.core.config import Config
from tests.support.encoded import encoded
from tests.support.fuzz_messages import TASK_IDS, check_event, messages
from tests.support.leftovers import no_leftovers
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    BINARY,
    CLOSE,
    COMPLETED,
    PING,
    PONG,
    STARTS,
    STOPS,
    TEXT,
    Frame,
    RawSocket,
    fragments,
    frame,
    handshake,
    message,
    opened,
    until,
    whole_task,
)
from tests.support.sound import joined, silence, tone

CLIENTS: Final = 50
INPUTS: Final = 5_000
AT_ONCE: Final = 20
"""Inputs of one example: hypothesis gives up on very large ones."""

SYNC: Final = b"everything before this was read"
"""In the ping that follows an input."""

CLOSE_CODES: Final = {1000, 1002, 1007, 1009}
"""After TaskFailed; for frames that break RFC 6455; for a text that is not UTF-8; for a message
that is too large. A client's own close comes back with its own code."""

SPEECH: Final = joined(tone(300), silence(900))
MP3: Final = encoded("mp3", SPEECH, 16_000)


# What clients say


def text(data: str) -> bytes:
    return frame(TEXT, data.encode("utf-8", "surrogatepass"))


def task(namespace: str, *parts: bytes, **payload: object) -> bytes:
    """A whole task in one write."""
    said = message(namespace, STARTS[namespace], payload, TASK_IDS[0])
    stops = STOPS.get(namespace)
    ends = [text(message(namespace, stops, None, TASK_IDS[0]))] if stops else []
    return b"".join([text(said), *parts, *ends])


def piece(of: str) -> bytes:
    return text(message("FlowingSpeechSynthesizer", "RunSynthesis", {"text": of}, TASK_IDS[0]))


AUDIO: Final = frame(BINARY, SPEECH.tobytes())
RECOGNITIONS: Final = [
    task("SpeechTranscriber", AUDIO, enable_words=True, enable_intermediate_result=True),
    task("SpeechTranscriber", frame(BINARY, MP3), format="mp3"),
    task("SpeechTranscriber", frame(BINARY, MP3), format="wav"),
    task("SpeechRecognizer", AUDIO, enable_voice_detection=True),
    task("SpeechRecognizer", AUDIO),
]
SYNTHESES: Final = [
    task("SpeechSynthesizer", text="甲。乙。", enable_subtitle=True),
    task("SpeechSynthesizer", text="<speak>甲<break/></speak>", format="mp3"),
    task("SpeechLongSynthesizer", text="<speak>甲<break></speak>"),
    task("SpeechLongSynthesizer", text="甲乙丙丁。" * 20, format="opus"),
    task("FlowingSpeechSynthesizer", piece("甲。"), piece("乙"), enable_subtitle=True),
    task("FlowingSpeechSynthesizer", piece("……")),
]
WHOLE: Final = [*RECOGNITIONS, *SYNTHESES]
names = st.sampled_from([*STARTS.values(), *STOPS.values(), "ControlTranscriber", "FlushText"])
out_of_turn = st.builds(
    lambda namespace, name: text(message(namespace, name, {"text": "甲"}, TASK_IDS[0])),
    st.sampled_from(sorted(STARTS)),
    names,
)
in_fragments = st.builds(
    lambda data, size, ping: fragments(
        data.encode(), size, between=frame(PING, b"") if ping else b""
    ),
    messages(),
    st.integers(10, 200),
    st.booleans(),
)
frames = st.builds(
    lambda opcode, payload, fin, rsv: frame(opcode, payload, fin=fin, rsv=rsv),
    st.sampled_from([0, TEXT, BINARY, 3, 7, CLOSE, PING, PONG, 11, 15]),
    st.binary(max_size=200),
    st.integers(0, 3).map(bool),
    st.sampled_from([0, 0, 0, 1, 4]),
)
closes = st.integers(0, 5000).map(lambda code: frame(CLOSE, struct.pack("!H", code)))
tame: st.SearchStrategy[bytes] = st.one_of(
    st.sampled_from(WHOLE),
    st.sampled_from(WHOLE),
    messages().map(text),
    out_of_turn,
    st.just(AUDIO),
    st.binary(max_size=200).map(lambda data: frame(BINARY, data)),
)
wild: st.SearchStrategy[bytes] = st.one_of(
    messages().map(text),
    st.text().map(text),
    in_fragments,
    frames,
    closes,
    st.binary(max_size=60),  # whatever that is
)
inputs = tame | tame | wild


def drawn() -> list[bytes]:
    """As many inputs as there are to be."""
    found: list[bytes] = []

    @settings(max_examples=INPUTS // AT_ONCE, database=None, phases=[Phase.generate])
    @given(st.lists(inputs, min_size=AT_ONCE, max_size=AT_ONCE))
    def collect(some: list[bytes]) -> None:
        found.extend(some)

    collect()
    return found


# The clients


class Client:
    """Says one thing after the other, and connects again where that ended its connection."""

    def __init__(self, live: Live, got: Counter[str | int]) -> None:
        self._live = live
        self._got = got
        self._socket: RawSocket | None = None
        self._at_rest = True  # no task has begun on this connection, or the last one is complete
        self._failed = False
        self._said: deque[bytes] = deque(maxlen=8)

    async def say_all(self, said: list[bytes]) -> None:
        """Waits for the end of a task that is all right; else for nothing but that each input was
        read. Leaves after every tenth, whatever is under way."""
        try:
            for number, data in enumerate(said):
                self._said.append(data)
                await self._say(data)
                if number % 2:
                    await asyncio.sleep(0.01)  # for the task to get somewhere
                if number % 10 == 9:
                    self._leave(reset=number % 20 == 9)
        except BaseException as error:
            error.add_note(f"after {[*self._said]}")
            raise
        finally:
            self._leave(reset=True)

    def _leave(self, *, reset: bool = False) -> None:
        if self._socket is not None:
            self._socket.abort(reset=reset)
        self._socket, self._at_rest, self._failed = None, True, False

    async def _say(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = await handshake(self._live)
        if not is_whole(data):
            # The rest of such a frame would be whatever follows.
            await self._socket.send(data)
            self._leave()
            return
        ends = self._at_rest and data in WHOLE
        self._at_rest = False
        await self._socket.send(data + frame(PING, SYNC))
        synced = False
        while not (synced and (self._at_rest or not ends)):
            try:
                got = await self._socket.frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                raise AssertionError("the connection ended without a close frame") from None
            if got.opcode == CLOSE:
                self._closed(got, data)
                return
            if got == Frame(PONG, SYNC):
                synced = True
            else:
                self._check(got)

    def _check(self, got: Frame) -> None:
        if got.opcode == TEXT:
            assert not self._failed, "an event after TaskFailed"
            event = json.loads(got.payload)
            name, code = check_event(got.payload.decode()), event["header"]["status"]
            assert code < 50000000, event
            self._failed = name == "TaskFailed"
            self._at_rest = name in COMPLETED.values()
            self._got[code if self._failed else name] += 1
        elif got.opcode == BINARY:
            assert not self._failed, "audio after TaskFailed"

    def _closed(self, got: Frame, after: bytes) -> None:
        (code,) = struct.unpack("!H", got.payload[:2]) if got.payload else (1005,)
        assert code in CLOSE_CODES or got.payload in after, code
        assert self._failed == (code == 1000) or got.payload in after, code
        self._got[code] += 1
        self._leave()


def is_whole(data: bytes) -> bool:
    """Whether this is nothing but whole frames, so that a ping may follow."""
    while data:
        if len(data) < 6 or not data[1] & 0x80:
            return False
        size, at = data[1] & 0x7F, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + 4 + size:
            return False
        data = data[at + 4 + size :]
    return True


# The test


async def projects(folder: Path) -> None:
    """The appkeys that fuzzed messages name."""
    async with open_store(Config(data_dir=folder / "data")) as store:
        for row in (
            ProjectRow(
                appkey="p",
                defaults={"enable_subtitle": True, "enable_voice_detection": True},
                voices=("xiaoyun",),
                max_rate=8000,
            ),
            ProjectRow(appkey="unknown", enabled=False),
            ProjectRow(appkey="spent", daily_characters=1),
            ProjectRow(appkey="k", max_tasks=CLIENTS - 10),
        ):
            await store.save_project(row, new=True)
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        await store.add_usage(today, {("spent", "tts"): UsageSum(tasks=1, characters=1)})


async def served(live: Live) -> None:
    """Each API server does what it should."""
    for port in live.own_ports:
        async with opened(replace(live, port=port)) as client:
            for namespace in STARTS:
                await whole_task(client, namespace)
    await until(lambda: not any(worker.active for worker in live.workers))


@pytest.mark.slow
async def test_whatever_clients_say_they_get_a_documented_answer_or_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said, got = drawn(), Counter[str | int]()
    assert len(said) == INPUTS
    await projects(tmp_path)
    with structlog.testing.capture_logs() as entries, caplog.at_level(logging.WARNING):
        async with live_server(tmp_path) as live:
            await served(live)
            async with no_leftovers(live), asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(Client(live, got).say_all(said[number::CLIENTS]))
            assert live.quota is not None
            assert live.quota.running == 0
            await served(live)
    assert [each for each in entries if "exc_info" in each or each["log_level"] == "error"] == []
    assert caplog.records == []
    # Else the clients would have tried nothing.
    assert {*COMPLETED.values(), 1002, 40000002, 40010002, 40010003, 40010005} <= got.keys()
