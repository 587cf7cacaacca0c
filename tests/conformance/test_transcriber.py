"""nls-protocol.md 9, SpeechTranscriber: numbers 38 to 47. The fake engine's text tells to 10 ms how
long it heard a tone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    CLOSE,
    PING,
    PONG,
    RawSocket,
    frame,
    message,
    opened,
    start,
    stop,
    until,
    whole_task,
)
from tests.support.sound import joined, silence, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMESPACE = "SpeechTranscriber"
LENGTHS = (600, 410, 250)
SPEECH = joined(*(part for ms in LENGTHS for part in (silence(300), tone(ms), silence(1_200))))

Event = dict[str, Any]


async def begun(client: RawSocket, **options: Any) -> Event:
    """A task that has started, and its Started."""
    await client.text(start(NAMESPACE, **options))
    return await client.expect("TranscriptionStarted")


async def transcribed(client: RawSocket, audio: bytes, **options: Any) -> list[Event]:
    """The events of a whole task after Started."""
    await begun(client, **options)
    await client.audio(*(audio[begin : begin + 32_000] for begin in range(0, len(audio), 32_000)))
    await client.text(stop(NAMESPACE))
    return await client.until("TranscriptionCompleted")


def names(events: list[Event]) -> list[str]:
    """Of the events."""
    return [event["header"]["name"] for event in events]


def payloads(events: list[Event], name: str) -> list[dict[str, Any]]:
    """Of the events of this name."""
    return [event["payload"] for event in events if event["header"]["name"] == name]


async def nothing_more(client: RawSocket) -> None:
    """No event is on its way, and the connection is open."""
    await client.send(frame(PING, b"more?"))
    got = await client.frame()
    assert (got.opcode, got.payload) == (PONG, b"more?")


async def test_38_order_and_indexes(live: Live) -> None:
    async with opened(live) as client:
        await begun(client, enable_intermediate_result=True)
        await client.audio(SPEECH.tobytes())
        events: list[Event] = []
        while len(payloads(events, "SentenceEnd")) < len(LENGTHS):
            events.append(await client.event())
        await nothing_more(client)  # no Completed without a Stop
        await client.text(stop(NAMESPACE))
        last = await client.event()
    order = [name for name in names(events) if name != "TranscriptionResultChanged"]
    assert order == ["SentenceBegin", "SentenceEnd"] * len(LENGTHS)
    assert last["header"]["name"] == "TranscriptionCompleted"
    index = 0
    for event in events:
        index += event["header"]["name"] == "SentenceBegin"
        assert event["payload"]["index"] == index
    results = [payload["result"] for payload in payloads(events, "SentenceEnd")]
    assert results == [f"heard {ms} ms" for ms in LENGTHS]


async def test_39_times(live: Live) -> None:
    async with opened(live) as client:
        events = await transcribed(client, SPEECH.tobytes())
    begins, ends = payloads(events, "SentenceBegin"), payloads(events, "SentenceEnd")
    assert len(begins) == len(ends) == len(LENGTHS)
    at = 0
    for ms, begin, end in zip(LENGTHS, begins, ends, strict=True):
        assert (begin["index"], begin["time"]) == (end["index"], end["begin_time"])
        assert (end["begin_time"], end["time"]) == (at + 300, at + 300 + ms)
        for value in (begin["index"], begin["time"], end["time"], end["begin_time"]):
            assert type(value) is int
        at += 300 + ms + 1_200


@pytest.mark.parametrize(
    ("options", "results"),
    [
        ({"max_sentence_silence": 800}, ["heard 600 ms"] * 3),
        ({"max_sentence_silence": 3_000}, ["heard 4800 ms"]),
        ({"max_sentence_silence": None}, ["heard 600 ms"] * 3),
        ({}, ["heard 600 ms"] * 3),
    ],
    ids=["800", "3000", "null", "default"],
)
async def test_40_max_sentence_silence(
    live: Live, options: dict[str, Any], results: list[str]
) -> None:
    gap = silence(1_500)
    audio = joined(tone(600), gap, tone(600), gap, tone(600)).tobytes()
    async with opened(live) as client:
        events = await transcribed(client, audio, **options)
    assert [payload["result"] for payload in payloads(events, "SentenceEnd")] == results


WORDS = [("今天", 0, 300), ("天气", 300, 550), ("很好", 600, 900)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What is heard, again and again."""
    words = [{"text": text, "start_ms": begin, "end_ms": end} for text, begin, end in WORDS]
    file = tmp_path / "script.json"
    file.write_text(json.dumps([{"text": "今天天气很好。", "words": words}]), "utf-8")
    return file


@pytest.mark.parametrize("wanted", [True, False])
async def test_41_words(tmp_path: Path, script: Path, wanted: bool) -> None:
    audio = joined(silence(500), tone(1_000), silence(1_500), tone(1_000), silence(300)).tobytes()
    async with (
        live_server(tmp_path, engine_settings={"FAKE_ASR_SCRIPT": str(script)}) as live,
        opened(live) as client,
    ):
        events = await transcribed(client, audio, enable_words=wanted)
    ends = payloads(events, "SentenceEnd")
    assert [end["begin_time"] for end in ends] == [500, 3_000]
    for end in ends:
        if not wanted:
            assert "words" not in end
            continue
        words = end["words"]
        assert [word["text"] for word in words] == ["今天", "天气", "很好"]
        assert all(set(word) == {"text", "startTime", "endTime"} for word in words)
        times = [word[key] for word in words for key in ("startTime", "endTime")]
        assert all(type(time) is int for time in times)
        assert times == sorted(times)
        assert end["begin_time"] <= times[0] <= times[-1] <= end["time"]
        assert times == [end["begin_time"] + time for word in WORDS for time in word[1:]]


async def test_42_stop_in_the_middle_of_a_sentence(live: Live) -> None:
    async with opened(live) as client:
        events = await transcribed(client, tone(730).tobytes())
    assert names(events) == ["SentenceBegin", "SentenceEnd", "TranscriptionCompleted"]
    assert payloads(events, "SentenceEnd")[0]["result"] == "heard 730 ms"


async def test_43_silence(live: Live) -> None:
    async with opened(live) as client:
        for audio in (silence(5_000).tobytes(), b""):
            events = await transcribed(client, audio, enable_intermediate_result=True)
            assert names(events) == ["TranscriptionCompleted"]


@pytest.mark.parametrize("name", ["ControlTranscriber", "ControlTranscription"])
async def test_44_control(live: Live, name: str) -> None:
    """It is neither answered nor refused, whatever it holds, and what it may change is changed."""
    audio = joined(tone(400), silence(1_500), tone(400)).tobytes()
    async with opened(live) as client:
        await begun(client)
        for payload in ({}, None, {"unknown": 1, "enable_words": None}):
            await client.text(message(NAMESPACE, name, payload))
        await client.text(message(NAMESPACE, name, {"max_sentence_silence": 3_000}))
        await nothing_more(client)
        await client.audio(audio)
        await client.text(stop(NAMESPACE))
        events = await client.until("TranscriptionCompleted")
    assert [end["result"] for end in payloads(events, "SentenceEnd")] == ["heard 2300 ms"]


@pytest.mark.parametrize("how", ["close", "fin", "reset"])
async def test_45_leaving_after_the_first_sentence(live: Live, how: str) -> None:
    """As xiaozhi does."""
    async with opened(live) as client:
        await begun(client)
        await client.audio(SPEECH.tobytes())
        while (await client.event())["header"]["name"] != "SentenceEnd":
            pass
        if how == "close":
            await client.send(frame(CLOSE, b"\x03\xe8"))
            while (await client.frame()).opcode != CLOSE:
                pass
            await client.end()
        else:
            client.abort(reset=how == "reset")
        await until(lambda: not any(worker.active for worker in live.workers))
    async with opened(live) as another:
        await whole_task(another, NAMESPACE)


async def test_46_session_id(live: Live) -> None:
    async with opened(live) as client:
        for given in ({}, {"session_id": "9d2f3c4b5a6978877665544332211000"}):
            started = await begun(client, **given)
            session_id = started["payload"]["session_id"]
            assert len(session_id) == 32
            assert session_id == given.get("session_id", session_id)
            await client.text(stop(NAMESPACE))
            await client.expect("TranscriptionCompleted")


async def test_47_offsets(live: Live) -> None:
    """Times, those of words too, and indexes go on where C++ was before it connected again."""
    options = {"enable_words": True, "enable_intermediate_result": True}
    async with opened(live) as client:
        plain = await transcribed(client, SPEECH.tobytes(), **options)
        moved = await transcribed(
            client, SPEECH.tobytes(), tw_time_offset=60_000, tw_index_offset=7, **options
        )
    for name in ("SentenceBegin", "SentenceEnd"):
        shifted = [_moved(payload, 60_000, 7) for payload in payloads(plain, name)]
        assert payloads(moved, name) == shifted
    assert payloads(moved, "SentenceEnd")[0]["index"] == 8


def _moved(payload: dict[str, Any], by_ms: int, by: int) -> dict[str, Any]:
    times = ("time", "begin_time")
    result = {**payload, "index": payload["index"] + by}
    result |= {key: payload[key] + by_ms for key in times if key in payload}
    if "words" in payload:
        result["words"] = [
            {**word, **{key: word[key] + by_ms for key in ("startTime", "endTime")}}
            for word in payload["words"]
        ]
    return result
