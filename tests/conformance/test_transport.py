"""nls-protocol.md 9, Transport: numbers 8 to 16. :class:`RawSocket` holds each frame that it reads
to number 10, and takes no ping."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clock import OWN_LOOP, Clock
from tests.support.gated import Gate, GatedRecognizer, GatedSynthesizer
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    BINARY,
    CLOSE,
    COMPLETED,
    PING,
    PONG,
    STARTS,
    TEXT,
    Frame,
    RawSocket,
    fragments,
    frame,
    handshake,
    message,
    nothing_left,
    opened,
    start,
    stop,
    until,
)
from tests.support.sdk_bytes import CONSTANT_MASK, masked
from tests.support.sound import joined, silence, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOWING = "FlowingSpeechSynthesizer"


async def frames_until(client: RawSocket, name: str) -> list[Frame]:
    """All frames, up to and with the event."""
    got = [await client.frame()]
    while f'"name":"{name}"'.encode() not in got[-1].payload or got[-1].opcode != TEXT:
        assert b"TaskFailed" not in got[-1].payload
        got.append(await client.frame())
    return got


async def heard(client: RawSocket, *frames: bytes, **options: Any) -> list[str]:
    """The sentences of a whole transcription of frames that are sent as they are."""
    await client.text(start(**options))
    await client.expect("TranscriptionStarted")
    for each in frames:
        await client.send(each)
    await client.text(stop())
    events = await client.until("TranscriptionCompleted")
    return [
        event["payload"]["result"] for event in events if event["header"]["name"] == "SentenceEnd"
    ]


def sizes(got: list[Frame]) -> int:
    """Bytes of audio."""
    return sum(len(each.payload) for each in got if each.opcode == BINARY)


@OWN_LOOP
@pytest.mark.parametrize("active", [False, True], ids=["idle", "active"])
async def test_08_no_server_ping(tmp_path: Path, clock: Clock, active: bool) -> None:
    """For a minute and more; the connections' own idle times stand still meanwhile."""
    async with live_server(tmp_path) as live, opened(live) as client:
        if active:
            await client.text(start())
            await client.expect("TranscriptionStarted")
        await clock.advance(62, sessions=False)
        await client.send(frame(PING, b"mine"))
        got = await client.frame()  # the next one of all
        assert (got.opcode, got.payload) == (PONG, b"mine")


PAYLOADS = (b"", b"x", b"\0" * 125)


async def test_09_pings_while_audio_is_sent(live: Live) -> None:
    async with opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        for payload in PAYLOADS * 3:
            await client.send(frame(BINARY, tone(100).tobytes()) + frame(PING, payload))
            got = await client.frame()
            while got.opcode != PONG:
                got = await client.frame()
            assert got.payload == payload
        await client.text(stop())
        events = await client.until("TranscriptionCompleted")
    assert events[-2]["payload"]["result"] == "heard 900 ms"


async def test_09_pings_while_audio_is_received(live: Live) -> None:
    async with opened(live, receive_buffer=4096) as client:
        # So much that most of it has yet to be made when the pings come.
        await client.text(start("SpeechSynthesizer", text="a" * 500, sample_rate=48_000))
        first = await client.frame()
        assert first.opcode == BINARY
        await client.send(b"".join(frame(PING, payload) for payload in PAYLOADS))
        got = [first, *await frames_until(client, "SynthesisCompleted")]
    pongs = [index for index, each in enumerate(got) if each.opcode == PONG]
    assert [got[index].payload for index in pongs] == list(PAYLOADS)
    assert sizes(got[pongs[-1] :]) > 0
    assert sizes(got) == 48_000 * 2 * 100


async def test_10_frames_are_small_and_whole(live: Live) -> None:
    """The largest of each kind: audio, subtitles, words."""
    async with opened(live) as client:
        options: dict[str, Any] = {"sample_rate": 48_000, "format": "wav", "enable_subtitle": True}
        await client.text(start("SpeechLongSynthesizer", text="字" * 1_500, **options))
        got = await frames_until(client, "SynthesisCompleted")
        assert sizes(got) == 44 + 48_000 * 2 * 300
        await client.text(start(FLOWING, **options))
        await client.text(message(FLOWING, "RunSynthesis", {"text": "字" * 1_500}), stop(FLOWING))
        got = await frames_until(client, "SynthesisCompleted")
        assert sizes(got) == 44 + 48_000 * 2 * 300
        audio = frame(BINARY, tone(5_000).tobytes())
        options = {"enable_words": True, "enable_intermediate_result": True}
        assert await heard(client, *[audio] * 4, **options) == ["heard 20000 ms"]


async def test_11_a_text_message_in_fragments(live: Live) -> None:
    async with opened(live) as client:
        text = start("SpeechSynthesizer", text="字" * 900, sample_rate=8_000, unknown="x" * 9_000)
        assert len(text.encode()) > 3 * 4_096
        await client.send(fragments(text.encode(), 4_096))
        assert sizes(await frames_until(client, "SynthesisCompleted")) == 8_000 * 2 * 180


@pytest.mark.parametrize(
    "mask", [bytes(4), b"\xff" * 4, CONSTANT_MASK, None], ids=["zero", "ones", "c++", "random"]
)
async def test_12_every_masking_key(live: Live, mask: bytes | None) -> None:
    def covered(opcode: int, payload: bytes) -> bytes:
        return masked(opcode, payload, os.urandom(4) if mask is None else mask)

    audio = tone(400).tobytes()
    async with opened(live) as client:
        await client.send(covered(TEXT, start().encode()))
        await client.expect("TranscriptionStarted")
        for begin in range(0, len(audio), 1_001):  # which does not divide by four
            await client.send(covered(BINARY, audio[begin : begin + 1_001]))
        await client.send(covered(PING, b"mask"))
        await client.send(covered(TEXT, stop().encode()))
        got = await frames_until(client, "TranscriptionCompleted")
        await client.send(covered(CLOSE, b"\x03\xe8"))
        assert await client.closed() == 1000
    assert [each.payload for each in got if each.opcode == PONG] == [b"mask"]
    assert sum(b"heard 400 ms" in each.payload for each in got) == 1


@pytest.mark.parametrize("size", [1, 3, 320, 640, 1_024, 1_920, 3_200, 8_000, 65_536])
async def test_13_binary_frames_of_any_size(live: Live, size: int) -> None:
    audio = joined(tone(710), silence(900), tone(430)).tobytes()
    cut = b"".join(
        frame(BINARY, audio[begin : begin + size]) for begin in range(0, len(audio), size)
    )
    async with opened(live) as client:
        assert await heard(client, cut) == ["heard 710 ms", "heard 430 ms"]


async def test_14_audio_far_faster_than_real_time(live: Live) -> None:
    """All at once, more than the half minute that waits unread."""
    lengths = [1_000 + 10 * number for number in range(40)]
    audio = joined(*(part for ms in lengths for part in (tone(ms), silence(900)))).tobytes()
    async with opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        async with asyncio.TaskGroup() as group:
            group.create_task(_send_all(client, audio))
            events = await client.until("TranscriptionCompleted")
    results = [each["payload"]["result"] for each in events if "result" in each.get("payload", {})]
    assert results == [f"heard {ms} ms" for ms in lengths]


async def _send_all(client: RawSocket, audio: bytes) -> None:
    for begin in range(0, len(audio), 1 << 19):
        await client.send(frame(BINARY, audio[begin : begin + (1 << 19)]))
    await client.text(stop())


class Held:
    """A server whose engines finish nothing while it lasts."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.asr = GatedRecognizer(self.gate)
        self.tts = GatedSynthesizer(self.gate)


CLOSE_WITHIN_S = 3.0
"""The number's own; Python's SDK waits no longer."""


@pytest.mark.parametrize("state", ["new", "recognition", "stopping", "synthesis", "flowing"])
async def test_15_a_close_frame_is_answered(tmp_path: Path, state: str) -> None:
    """Also while the engine is in the middle of a step, and stays there."""
    held = Held()
    async with live_server(tmp_path, asr=held.asr, tts=held.tts) as live, nothing_left(live):
        try:
            async with opened(live) as client:
                await client.text(*{"new": []}.get(state, _begin(state)))
                await client.send(frame(BINARY, tone(400).tobytes()))
                if state == "stopping":
                    await client.text(stop())
                if state != "new":
                    await until(lambda: held.gate.waiting == 1)
                await client.send(frame(CLOSE, b"\x0f\xa0bye"))
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    got = await client.frame()
                    while got.opcode != CLOSE:
                        got = await client.frame()
                    assert got.payload[:2] == b"\x0f\xa0"
                    await client.end()
                assert not held.gate.is_open
        finally:
            held.gate.open()


def _begin(state: str) -> list[str]:
    if state == "flowing":
        return [start(FLOWING), message(FLOWING, "RunSynthesis", {"text": "你好。" * 50})]
    return [start("SpeechSynthesizer" if state == "synthesis" else "SpeechTranscriber")]


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
@pytest.mark.parametrize("namespace", STARTS)
async def test_16_the_end_of_tcp_frees_the_task(
    tmp_path: Path, namespace: str, reset: bool
) -> None:
    held = Held()
    async with live_server(tmp_path, asr=held.asr, tts=held.tts) as live:
        try:
            client = await handshake(live)
            await client.text(start(namespace))
            if namespace == FLOWING:
                await client.text(message(FLOWING, "RunSynthesis", {"text": "你好。" * 50}))
            await client.send(frame(BINARY, tone(400).tobytes()))
            await until(lambda: held.gate.waiting == 1)
            assert sum(worker.active for worker in live.workers) >= 1
            client.abort(reset=reset)
            await until(lambda: sum(worker.active for worker in live.workers) == 0)
            assert not held.gate.is_open
        finally:
            held.gate.open()
        async with opened(live) as another:
            await another.text(start("SpeechSynthesizer"))
            await frames_until(another, COMPLETED["SpeechSynthesizer"])
