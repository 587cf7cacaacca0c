"""Clients that break the protocol, vanish, stall or rush, on a server that serves others as well:
each gets its code and a short text, leaves nothing behind, and disturbs nobody."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.api import nls_ws
from app.client.errors import NlsTaskFailed
from app.client.nls import NlsClient
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.synthesizer import FakeSynthesizer
from app.nls.connection import Connection
from app.nls.outputs import Output
from app.serving.handles import RecognitionHandle, SpeechHandle
from app.serving.worker.server import WorkerServer
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    STARTS,
    TASK_ID,
    TEXT,
    RawSocket,
    bystander,
    fragments,
    frame,
    handshake,
    head,
    message,
    nothing_left,
    opened,
    start,
    stop,
    until,
    whole_task,
)
from tests.support.sound import joined, silence, tone

OTHER_ID = "f" * 32
MAX_MESSAGE = 100_000
IDLE_S = 0.1


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a client does wrong is no error of ours: a log that it could fill with tracebacks would
    hide the real ones."""
    with structlog.testing.capture_logs() as ours:
        yield
    assert [entry for entry in ours if entry["log_level"] in ("error", "critical")] == []
    theirs = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert theirs == []


@asynccontextmanager
async def attacked(folder: Path, **settings: Any) -> AsyncIterator[Live]:
    """A server with a bystander, on which the block leaves nothing behind."""
    async with (
        live_server(folder, max_message_bytes=MAX_MESSAGE, **settings) as live,
        bystander(live),
        nothing_left(live),
    ):
        yield live


# Messages

NESTED = 30_000

BEFORE_START: dict[str, tuple[str, int]] = {
    "empty": ("", 40000002),
    "no JSON": ("hello", 40000002),
    "a part of JSON": ('{"header": {"name": ', 40000002),
    "JSON and more": (start() + "}", 40000002),
    "a list": ("[]", 40000002),
    "a number": ("1", 40000002),
    "null": ("null", 40000002),
    "NUL": ("\0", 40000002),
    "no header": ('{"payload": {}}', 40000002),
    "header null": ('{"header": null}', 40000002),
    "header a list": ('{"header": []}', 40000002),
    "header a text": ('{"header": "StartTranscription"}', 40000002),
    "nested lists": ("[" * NESTED, 40000002),
    "nested objects": ('{"a":' * (NESTED // 2), 40000002),
    "nested payload": (
        start()[:-3] + '{"a": ' + "[" * NESTED + "]" * NESTED + "}}",
        40000002,
    ),
    "message id a number": (message("SpeechTranscriber", "x", message_id=1), 40000002),
    "message id short": (message("SpeechTranscriber", "x", message_id="12"), 40000002),
    "no message id": (message("SpeechTranscriber", "x", message_id=None), 40000002),
    "task id a list": (message("SpeechTranscriber", "x", task_id=[TASK_ID]), 40000002),
    "task id a path": (message("SpeechTranscriber", "x", task_id="../../etc/passwd"), 40000002),
    "task id long": (message("SpeechTranscriber", "x", task_id="a" * 50_000), 40000002),
    "namespace an object": (message({}, "x"), 40000002),
    "name true": (message("SpeechTranscriber", True), 40000002),
    "appkey a number": (message("SpeechTranscriber", "x", appkey=1.5), 40000002),
    "token a list": (message("SpeechTranscriber", "x", token=["a"]), 40000002),
    "lone surrogate": (message("\ud800", "StartTranscription"), 40000002),
    "no namespace": (message("", "StartTranscription"), 40010001),
    "unknown namespace": (message("SpeechMindReader", "StartTranscription"), 40010001),
    "long namespace": (message("x" * 50_000, "StartTranscription"), 40010001),
    "namespace in lower case": (message("speechtranscriber", "StartTranscription"), 40010001),
    "no directive": (message("SpeechTranscriber", ""), 40010002),
    "unknown directive": (message("SpeechTranscriber", "PauseTranscription"), 40010002),
    "another's directive": (message("SpeechTranscriber", "StartRecognition"), 40010002),
    "an event's name": (message("SpeechTranscriber", "TranscriptionStarted"), 40010002),
    "Stop before Start": (stop(), 40010005),
    "Control before Start": (message("SpeechTranscriber", "ControlTranscriber"), 40010005),
    "payload a list": (message("SpeechTranscriber", "StartTranscription", []), 40010003),
    "payload a text": (message("SpeechRecognizer", "StartRecognition", "pcm"), 40010003),
    "payload zero": (message("SpeechSynthesizer", "StartSynthesis", 0), 40010003),
    "rate a word": (start(sample_rate="high"), 40000003),
    "rate a list": (start(sample_rate=[16_000]), 40000003),
    "rate true": (start(sample_rate=True), 40000003),
    "rate zero": (start(sample_rate=0), 41010101),
    "rate negative": (start(sample_rate=-16_000), 41010101),
    "rate huge": (start(sample_rate=10**30), 41010101),
    "rate 1e400": (start().replace("{}", '{"sample_rate": 1e400}'), 40000002),
    "format a number": (start(format=5), 40000003),
    "format a path": (start(format=".." * 40), 41010100),
    "silence a word": (start(max_sentence_silence="long"), 40000003),
    "flag a word": (start(enable_words="maybe"), 40000003),
    "detection an object": (start("SpeechRecognizer", enable_voice_detection={}), 40000003),
    "text missing": (start("SpeechSynthesizer", text=None), 40010003),
    "text blank": (start("SpeechSynthesizer", text=" \n\t"), 40010003),
    "text an object": (start("SpeechSynthesizer", text={}), 40010003),
    "text of nothing to say": (start("SpeechSynthesizer", text="…… !?"), 40010003),
    "text long": (start("SpeechSynthesizer", text="x" * 1001), 40010003),
    "voice a list": (start("SpeechSynthesizer", voice=["xiaoyun"]), 40000003),
    "voice unknown": (start("SpeechSynthesizer", voice="nobody"), 40000003),
    "voice a path": (start("SpeechSynthesizer", voice="../../etc/passwd"), 40000003),
    "voice NUL": (start("SpeechSynthesizer", voice="a\0b"), 40000003),
    "volume a word": (start("SpeechSynthesizer", volume="loud"), 40000003),
    "format unknown": (start("SpeechSynthesizer", format="xyz"), 40010003),
    "synthesis rate odd": (start("SpeechSynthesizer", sample_rate=12_345), 40010003),
}


@pytest.mark.parametrize("case", BEFORE_START)
async def test_a_message_out_of_order_or_shape_gets_its_code(tmp_path: Path, case: str) -> None:
    text, status = BEFORE_START[case]
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.text(text)
        header = await client.failure()
    assert header["status"] == status
    assert header["namespace"] == "Default"
    assert 0 < len(header["status_text"]) < 400


IN_A_TASK: dict[str, tuple[str, int]] = {
    "no JSON": ("hello", 40000002),
    "nested lists": ("[" * NESTED, 40000002),
    "second Start": (start(), 40010005),
    "second Start of another task": (
        message("SpeechTranscriber", "StartTranscription", task_id=OTHER_ID),
        40010005,
    ),
    "Start of another namespace": (start("SpeechSynthesizer"), 40010005),
    "Stop of another task": (
        message("SpeechTranscriber", "StopTranscription", task_id=OTHER_ID),
        40000002,
    ),
    "Stop of another namespace": (stop("SpeechRecognizer"), 40010005),
    "unknown directive": (message("SpeechTranscriber", "Explode"), 40010002),
    "unknown namespace": (message("SpeechExploder", "Explode"), 40010001),
    "Control with wrong types": (
        message("SpeechTranscriber", "ControlTranscriber", {"max_sentence_silence": []}),
        40000003,
    ),
    "Control with a list": (message("SpeechTranscriber", "ControlTranscriber", [1]), 40010003),
}


@pytest.mark.parametrize("case", IN_A_TASK)
async def test_a_wrong_message_fails_the_running_task(tmp_path: Path, case: str) -> None:
    text, status = IN_A_TASK[case]
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.audio(tone(500).tobytes())
        await client.text(text)
        header = await client.failure()
    assert header["status"] == status
    assert header["task_id"] == TASK_ID  # the one that fails, whoever was named


async def test_a_second_stop_fails_a_task_that_is_stopping(tmp_path: Path) -> None:
    async with held_engines(tmp_path) as (live, _), nothing_left(live), opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.text(stop(), stop())
        header = await client.failure()
    assert header["status"] == 40010005
    assert "stopping" in header["status_text"]


async def test_a_stop_that_comes_too_late_is_ignored(tmp_path: Path) -> None:
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.text(stop())
        await client.expect("TranscriptionCompleted")
        await client.text(stop(), stop())
        await client.audio(tone(500).tobytes())
        await whole_task(client, "SpeechRecognizer")


async def test_audio_before_start_is_ignored(tmp_path: Path) -> None:
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.audio(tone(500).tobytes(), b"", b"\x01")
        await whole_task(client, "SpeechTranscriber")


async def test_audio_for_a_synthesis_is_ignored(tmp_path: Path) -> None:
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.send(frame(TEXT, start("SpeechSynthesizer").encode()) + frame(BINARY, b"abc"))
        while (await client.frame()).opcode == BINARY:
            pass
        await whole_task(client, "SpeechSynthesizer")


async def test_start_audio_and_stop_in_one_write_lose_nothing(tmp_path: Path) -> None:
    """C++ waits for nothing."""
    async with attacked(tmp_path) as live, opened(live) as client:
        audio = tone(300).tobytes()
        await client.send(
            frame(TEXT, start().encode()) + frame(BINARY, audio) + frame(TEXT, stop().encode())
        )
        events = await client.until("TranscriptionCompleted")
    assert _results(events) == ["heard 300 ms"]


# Audio


def wav_header(rate: int = 16_000, bits: int = 16) -> bytes:
    """One that is well-formed."""
    size = bits // 8
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * size, size, bits)
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + form + b"data\0\0\0\0"


@pytest.mark.parametrize("sizes", [[1], [3], [5, 0, 7], [641, 639], [0, 0, 12_801], [9_599, 1]])
async def test_samples_may_be_cut_anywhere_and_frames_be_empty(
    tmp_path: Path, sizes: list[int]
) -> None:
    audio = joined(tone(310), silence(900), tone(120)).tobytes() + b"\x7f"  # half a sample
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.audio(*_cut(audio, sizes))
        await client.text(stop())
        events = await client.until("TranscriptionCompleted")
    assert _results(events) == ["heard 310 ms", "heard 120 ms"]


async def test_audio_far_faster_than_real_time_is_processed_whole(tmp_path: Path) -> None:
    """More than the 30 s that wait unread, in frames as large as they may be."""
    lengths = [1000 + 10 * number for number in range(60)]
    audio = joined(*(part for ms in lengths for part in (tone(ms), silence(900)))).tobytes()
    async with attacked(tmp_path, engine_settings={"FAKE_ASR_DELAY_MS": 1}) as live:
        events = await NlsClient(live.ws).transcribe(_cut(audio, [MAX_MESSAGE]))
    ends = [event.payload["result"] for event in events if event.name == "SentenceEnd"]
    assert ends == [f"heard {ms} ms" for ms in lengths]


@pytest.mark.parametrize("namespace", ["SpeechTranscriber", "SpeechRecognizer"])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff" + bytes(3200), 40000009),
        (b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f" + bytes(90_000), 40000009),
        (b"RIFF\0\0\0\0WAVEfmt \x02\0\0\0\x01\0data\0\0\0\0", 40000009),
        # Two junk chunks that end beyond what a header may take.
        (b"RIFF\0\0\0\0WAVEjunk\0\x80\0\0" + bytes(0x8000) + b"junk\0\x80\0\0", 40000009),
        (wav_header(bits=12) + bytes(100), 40000009),
        (wav_header(rate=1), 41010101),
    ],
    ids=["no format", "endless format", "short format", "endless header", "12 bits", "1 Hz"],
)
async def test_a_broken_wav_header_fails_its_task_only(
    tmp_path: Path, namespace: str, data: bytes, status: int
) -> None:
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.text(start(namespace, format="wav"))
        await client.expect(STARTS[namespace].replace("Start", "") + "Started")
        await client.audio(data)
        header = await client.failure()
    assert header["status"] == status
    assert header["task_id"] == TASK_ID


async def test_a_wav_that_ends_inside_its_header(tmp_path: Path) -> None:
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.text(start(format="wav"))
        await client.expect("TranscriptionStarted")
        await client.audio(b"RIFF\0\0\0\0WAVEfm")
        await client.text(stop())
        assert (await client.failure())["status"] == 40000009


async def test_more_audio_than_one_utterance_may_have(tmp_path: Path) -> None:
    async with attacked(tmp_path, max_audio_seconds=2) as live:
        with pytest.raises(NlsTaskFailed) as failed:
            async with NlsClient(live.ws).recognizer() as task:
                await task.send(tone(2_100).tobytes())
                await task.finish()
    assert failed.value.code == 41010104


# Frames

VIOLATIONS: dict[str, tuple[bytes, int]] = {
    "message too large": (head(BINARY, MAX_MESSAGE + 1), 1009),
    "text too large": (head(TEXT, 1 << 62), 1009),
    "message too large in pieces": (
        frame(BINARY, bytes(MAX_MESSAGE), fin=False) + frame(0, b"x"),
        1009,
    ),
    "invalid UTF-8": (frame(TEXT, b'{"header": "\xff"}'), 1007),
    "surrogate in UTF-8": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "invalid UTF-8 in pieces": (fragments(b"\xe4\xb8\xad\xe6\x96", 2), 1007),
    "no mask": (b"\x81\x02{}", 1002),
    "reserved type": (frame(0x3, b""), 1002),
    "reserved control type": (frame(0xB, b""), 1002),
    "reserved bit": (frame(TEXT, b"{}", rsv=4), 1002),
    "long ping": (frame(PING, bytes(126)), 1002),
    "ping in pieces": (frame(PING, b"", fin=False), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "text within a text": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
    "close code of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close code that nobody may send": (frame(CLOSE, b"\x03\xed"), 1002),
}


@pytest.mark.parametrize("case", VIOLATIONS)
@pytest.mark.parametrize("in_a_task", [False, True])
async def test_what_is_no_websocket_ends_with_its_code(
    tmp_path: Path, case: str, in_a_task: bool
) -> None:
    data, code = VIOLATIONS[case]
    async with attacked(tmp_path) as live, opened(live) as client:
        if in_a_task:
            await client.text(start())
            await client.expect("TranscriptionStarted")
            await client.audio(tone(100).tobytes())
        await client.send(data)
        assert await client.closed() == code


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_texts_in_fragments(tmp_path: Path, size: int) -> None:
    """PHP cuts at 4,096 bytes, which need not be the end of a character."""
    long = json.loads(start())
    long["context"] = {"note": "流式语音识别" * (1000 if size > 100 else 10)}
    text = json.dumps(long, ensure_ascii=False).encode()
    async with attacked(tmp_path) as live, opened(live) as client:
        await client.send(fragments(text, size))
        await client.expect("TranscriptionStarted")
        await client.send(frame(BINARY, tone(200).tobytes(), fin=False))
        await client.send(frame(0, tone(100).tobytes()))
        await client.send(fragments(stop().encode(), size))
        assert _results(await client.until("TranscriptionCompleted")) == ["heard 300 ms"]


async def test_pings_are_answered_at_once_with_their_payload(tmp_path: Path) -> None:
    """In every state: the engine answers nothing here, so that only pongs can come."""
    async with held_engines(tmp_path) as (live, hold), nothing_left(live), opened(live) as client:
        await _pinged(client, b"")
        await client.text(start())
        await client.expect("TranscriptionStarted")
        for number in range(20):
            await client.audio(tone(100).tobytes())
            await _pinged(client, b"%d " % number * 40)
        # Between the fragments of a message, too.
        await client.send(fragments(stop().encode(), 100, between=frame(PING, b"in between")))
        pongs = [await client.frame() for _ in range(len(stop()) // 100)]
        assert {(pong.opcode, pong.payload) for pong in pongs} == {(PONG, b"in between")}
        await _pinged(client, b"after stop")
        hold.set()
        assert _results(await client.until("TranscriptionCompleted")) == ["heard 2000 ms"]
        await _pinged(client, b"\x00" * 125)


async def test_large_answers_are_cut_into_small_whole_frames(tmp_path: Path) -> None:
    """RawSocket checks each frame that it reads."""
    async with attacked(tmp_path) as live, opened(live) as client:
        speech = start("SpeechSynthesizer", text="a" * 500, sample_rate=48_000, format="wav")
        await client.text(speech)
        size, got = 0, await client.frame()
        while got.opcode == BINARY:
            size, got = size + len(got.payload), await client.frame()
        assert size == 44 + 48_000 * 2 * 100
        await client.text(start(enable_words=True, enable_intermediate_result=True))
        await client.expect("TranscriptionStarted")
        await client.audio(*[tone(3000).tobytes()] * 4)
        await client.text(stop())
        assert _results(await client.until("TranscriptionCompleted"))[-1] == "heard 12000 ms"


# Leaving


@pytest.fixture
def ungranted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers take tasks, but their grants do not arrive."""
    monkeypatch.setattr(RecognitionHandle, "grant", lambda self: None)
    monkeypatch.setattr(SpeechHandle, "grant", lambda self: None)


HOW_TO_LEAVE = pytest.mark.parametrize("how", ["close", "fin", "reset"])


async def leave(client: RawSocket, how: str) -> None:
    """With a close frame, which is answered after what was sent before; or without."""
    if how != "close":
        client.abort(reset=how == "reset")
        return
    await client.send(frame(CLOSE, b"\x0f\xa0bye"))
    got = await client.frame()
    while got.opcode != CLOSE:
        got = await client.frame()
    assert got.payload[:2] == b"\x0f\xa0"
    await client.end()


@HOW_TO_LEAVE
async def test_leaving_before_start(tmp_path: Path, how: str) -> None:
    async with attacked(tmp_path) as live:
        await leave(await handshake(live), how)


@pytest.mark.parametrize("part", [b"", head(TEXT, 500), frame(TEXT, start().encode())[:-1]])
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_leaving_in_the_middle_of_a_frame(tmp_path: Path, part: bytes, how: str) -> None:
    async with attacked(tmp_path) as live:
        client = await handshake(live)
        await client.send(frame(TEXT, b"{", fin=False) + part)
        await leave(client, how)


async def test_leaving_in_the_middle_of_the_handshake(tmp_path: Path) -> None:
    async with attacked(tmp_path) as live:
        for part in (b"G", b"GET /ws/v1 HTTP/1.1\r\nUpgrade: web", b"\x16\x03\x01\x02\x00\x01"):
            _, writer = await asyncio.open_connection(live.host, live.port)
            writer.write(part)
            await writer.drain()
            writer.transport.abort()


@HOW_TO_LEAVE
@pytest.mark.parametrize("namespace", STARTS)
async def test_leaving_before_the_task_is_granted(
    tmp_path: Path, ungranted: None, namespace: str, how: str
) -> None:
    async with live_server(tmp_path) as live, nothing_left(live):
        client = await handshake(live)
        # Longer than what a worker may send before somebody reads it.
        long = {"text": "a" * 100} if STARTS[namespace] == "StartSynthesis" else {}
        await client.text(start(namespace, **long))
        await until(lambda: sum(worker.active for worker in live.workers) == 1)
        await leave(client, how)


@HOW_TO_LEAVE
@pytest.mark.parametrize("namespace", ["SpeechTranscriber", "SpeechRecognizer"])
async def test_leaving_while_audio_is_sent(tmp_path: Path, namespace: str, how: str) -> None:
    async with attacked(tmp_path) as live:
        client = await handshake(live)
        await client.text(start(namespace, enable_intermediate_result=True))
        await client.expect(STARTS[namespace].replace("Start", "") + "Started")
        await client.audio(*[tone(200).tobytes()] * 10)
        await client.event()  # a result: the stream is in the engine
        await leave(client, how)


@HOW_TO_LEAVE
async def test_leaving_between_stop_and_completed(tmp_path: Path, how: str) -> None:
    """The engine is in the middle of a step, and stays there: the stream is given up all the
    same."""
    async with held_engines(tmp_path) as (live, hold), nothing_left(live):
        client = await handshake(live)
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.audio(tone(2000).tobytes())
        await client.text(stop())
        await _pinged(client, b"read")  # so Stop was read, too
        await until(lambda: _steps(live) == 1)
        await leave(client, how)
        await until(lambda: _worker(live, "asr").active == 0)
        assert not hold.is_set()
    assert _steps(live) == 1  # of the ten steps that the audio has


@HOW_TO_LEAVE
async def test_leaving_during_synthesis(tmp_path: Path, how: str) -> None:
    async with held_engines(tmp_path) as (live, hold), nothing_left(live):
        client = await handshake(live)
        await client.text(start("SpeechSynthesizer", text="a" * 190 + ". " + "b" * 190))
        await until(lambda: _worker(live, "tts").active == 1)
        await leave(client, how)
        await until(lambda: _worker(live, "tts").active == 0)
        assert not hold.is_set()
        hold.set()
        await NlsClient(live.ws).synthesize("a")
        assert _pieces(live) <= 2  # its own, and one that was under way


@HOW_TO_LEAVE
async def test_leaving_between_two_tasks(tmp_path: Path, how: str) -> None:
    async with attacked(tmp_path) as live:
        client = await handshake(live)
        await whole_task(client, "SpeechTranscriber")
        await leave(client, how)


async def test_leaving_as_soon_as_everything_is_written(tmp_path: Path) -> None:
    """Whatever the server has read by then: in all interleavings nothing is left."""
    speech = frame(TEXT, start("SpeechSynthesizer", text="a" * 500).encode())
    task = frame(TEXT, start().encode()) + frame(BINARY, tone(500).tobytes()) * 3
    whole = task + frame(TEXT, stop().encode())
    async with attacked(tmp_path) as live:
        for data in (speech, task, whole, frame(TEXT, b"hello"), whole + frame(CLOSE, b"")):
            for reset in (False, True):
                for turns in (0, 1, 3, 10):
                    client = await handshake(live)
                    await client.send(data)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    client.abort(reset=reset)


# Time


@pytest.mark.parametrize("namespace", ["SpeechTranscriber", "SpeechRecognizer"])
async def test_silence_of_the_client_in_a_task_is_an_idle_timeout(
    tmp_path: Path, namespace: str
) -> None:
    async with (
        live_server(tmp_path, idle_timeout_seconds=0.1) as live,
        nothing_left(live),
        opened(live) as client,
    ):
        await client.text(start(namespace))
        await client.expect(STARTS[namespace].replace("Start", "") + "Started")
        header = await client.failure()
    assert header["status"] == 40000004
    assert header["task_id"] == TASK_ID
    assert header["status_text"] == (
        "Gateway:IDLE_TIMEOUT:Websocket session is idle for too long time, "
        f"the last directive is '{STARTS[namespace]}'!"
    )


async def test_the_idle_timeout_names_the_last_directive(tmp_path: Path) -> None:
    control = message("SpeechTranscriber", "ControlTranscriber", {"max_sentence_silence": 500})
    async with live_server(tmp_path, idle_timeout_seconds=0.1) as live, opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.text(control)
        header = await client.failure()
    assert header["status"] == 40000004
    assert "the last directive is 'ControlTranscriber'!" in header["status_text"]


async def test_pings_are_no_audio(tmp_path: Path) -> None:
    async with live_server(tmp_path, idle_timeout_seconds=0.1) as live, opened(live) as client:
        await client.text(start())
        await client.expect("TranscriptionStarted")
        pongs = 0
        await client.send(frame(PING, b"x"))
        while (got := await client.frame()).opcode == PONG:
            pongs += 1
            await asyncio.sleep(0.02)
            await client.send(frame(PING, b"x"))
    assert pongs
    assert got.opcode == TEXT
    assert json.loads(got.payload)["header"]["status"] == 40000004


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """The clocks of the connections look all the time, whatever the next deadline. Waits until
    they have looked after the idle timeout."""
    arm, tick, looked_at = nls_ws._Driver._arm, Connection.tick, 0.0

    def look(self: Connection, now: float) -> list[Output]:
        nonlocal looked_at
        looked_at = now
        return tick(self, now)

    monkeypatch.setattr(nls_ws._Driver, "_arm", lambda self, wait_s: arm(self, min(wait_s, 0.01)))
    monkeypatch.setattr(Connection, "tick", look)

    async def outlast_idle_timeout() -> None:
        idle_at = nls_ws._Driver.now() + IDLE_S
        await until(lambda: looked_at > idle_at)

    return outlast_idle_timeout


async def test_the_time_between_tasks_is_not_idle(
    tmp_path: Path, watchful: Callable[[], Awaitable[None]]
) -> None:
    """Nor the time before the first, nor while the client waits for the server."""
    async with (
        held_engines(tmp_path, idle_timeout_seconds=IDLE_S) as (live, hold),
        opened(live) as client,
    ):
        await watchful()
        await client.text(start())
        await client.expect("TranscriptionStarted")
        await client.text(stop())
        await watchful()
        hold.set()
        await client.expect("TranscriptionCompleted")
        await watchful()
        await whole_task(client, "SpeechTranscriber")


async def test_a_client_that_the_server_keeps_waiting_is_not_idle(
    tmp_path: Path, watchful: Callable[[], Awaitable[None]]
) -> None:
    """It sends, and nobody listens: an engine that is late must not fail its task."""
    audio = tone(60_000).tobytes()
    async with (
        held_engines(tmp_path, idle_timeout_seconds=IDLE_S) as (live, hold),
        opened(live) as client,
    ):
        await client.text(start())
        await client.expect("TranscriptionStarted")

        async def pour() -> None:
            for begin in range(0, len(audio), 32_000):
                await client.send(frame(BINARY, audio[begin : begin + 32_000]))

        pouring = asyncio.create_task(pour())
        drivers: list[Any] = [each for drain, _ in live.apis for each in drain._connections]
        await until(lambda: drivers[0]._job.is_full)
        await watchful()
        hold.set()
        await pouring
        await client.text(stop())
        await client.until("TranscriptionCompleted")


async def test_a_client_that_does_not_read_stops_itself_only(tmp_path: Path) -> None:
    sentences = [letter * 199 + "." for letter in "abcde"]
    async with attacked(tmp_path) as live, opened(live, receive_buffer=4096) as client:
        text = "".join(sentences)
        await client.text(start("SpeechSynthesizer", text=text, sample_rate=48_000))
        await until(lambda: _pieces(live) >= 100)  # a sentence has so many pieces
        audio = await NlsClient(live.ws).synthesize("hello" * 20)
        assert len(audio) == 2 * 16_000 * 20
        async with NlsClient(live.ws).transcriber() as task:
            await task.send(tone(700).tobytes())
            (end,) = [e for e in await task.finish() if e.name == "SentenceEnd"]
            assert end.payload["result"] == "heard 700 ms"
        # The engine is at most one sentence ahead of the one that waits, 50 pieces are the other's.
        assert _pieces(live) <= 250
        size, got = 0, await client.frame()
        while got.opcode == BINARY:
            size, got = size + len(got.payload), await client.frame()
        assert size == 2 * 48_000 * 200  # late, but whole


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_does_not_read_may_vanish(tmp_path: Path, reset: bool) -> None:
    async with attacked(tmp_path) as live:
        client = await handshake(live, receive_buffer=4096)
        await client.text(start("SpeechSynthesizer", text="a" * 1000, sample_rate=48_000))
        await until(lambda: _pieces(live) >= 100)
        client.abort(reset=reset)


async def test_many_hostile_clients_at_once(tmp_path: Path) -> None:
    async with attacked(tmp_path) as live:

        async def attack(case: str) -> int:
            async with opened(live) as client:
                await client.text(BEFORE_START[case][0])
                return int((await client.failure())["status"])

        cases = list(BEFORE_START)
        got = await asyncio.gather(*(attack(case) for case in cases))
    assert got == [BEFORE_START[case][1] for case in cases]


# Helpers


@asynccontextmanager
async def held_engines(
    folder: Path, **settings: Any
) -> AsyncIterator[tuple[Live, threading.Event]]:
    """A server whose engines take the work, and finish nothing until the event is set."""
    hold = threading.Event()

    def wait(seconds: float) -> None:
        hold.wait(60)

    asr = FakeRecognizer(FakeOptions(asr_delay_ms=1), sleep=wait)
    tts = FakeSynthesizer(FakeOptions(tts_delay_ms=1), sleep=wait)
    async with live_server(folder, asr=asr, tts=tts, **settings) as live:
        try:
            yield live, hold
        finally:
            hold.set()


def _steps(live: Live) -> int:
    """Steps that the recogniser has made."""
    recognition = _worker(live, "asr").recognition
    assert recognition is not None
    return recognition.stepper.steps


def _pieces(live: Live) -> int:
    """Pieces that the synthesiser has made."""
    synthesis = _worker(live, "tts").synthesis
    assert synthesis is not None
    return synthesis.pieces


def _worker(live: Live, role: str) -> WorkerServer:
    return next(worker for worker in live.workers if worker.hello.role == role)


def _results(events: list[dict[str, Any]]) -> list[str]:
    return [
        event["payload"]["result"] for event in events if event["header"]["name"] == "SentenceEnd"
    ]


def _cut(audio: bytes, sizes: list[int]) -> list[bytes]:
    """``audio`` in pieces of these sizes, again and again."""
    pieces: list[bytes] = []
    position = 0
    while position < len(audio):
        for size in sizes:
            pieces.append(audio[position : position + size])
            position += size
    return pieces


async def _pinged(client: RawSocket, payload: bytes) -> None:
    await client.send(frame(PING, payload))
    got = await client.frame()
    assert (got.opcode, got.payload) == (PONG, payload)
