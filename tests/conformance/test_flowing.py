"""nls-protocol.md 9, Flowing: numbers 56 to 63. The fake engine takes 200 ms for a character, at a
pitch that tells the first one of the sentence: text that is cut elsewhere sounds otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clock import OWN_LOOP, Clock
from tests.support.flowing import BYTES_PER_CHAR, FLOWING, SENTENCE, flush, heard, piece, whole
from tests.support.gated import Gate, GatedSynthesizer
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TASK_ID,
    RawSocket,
    frame,
    message,
    nothing_left,
    opened,
    start,
    stop,
    until,
    whole_task,
)
from tests.support.sdk_bytes import SDKS, TTS, connected

pytestmark = pytest.mark.asyncio(loop_scope="module")

(CPP,) = (each for each in SDKS if each.name == "c++")

SENTENCES = ["今天天气很好。", "圆周率是3.14，对吗？", "Dr. Wu said “yes!”", "真的?!", "Bye"]
TEXT = "".join(SENTENCES)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence: its text, as its subtitles have it ("" where they are not asked for), and its
    audio."""

    text: str
    audio: bytes


async def spoken(client: RawSocket, task_id: str = TASK_ID) -> list[Spoken]:
    """A task from SynthesisStarted to SynthesisCompleted, by its sentences; no audio is outside of
    their SentenceBegin and SentenceEnd."""
    await client.expect("SynthesisStarted")
    sentences = list[Spoken]()
    while (event := await client.event())["header"]["name"] != "SynthesisCompleted":
        assert event["header"]["name"] == "SentenceBegin", event
        assert event["payload"]["index"] == len(sentences) + 1
        assert event["header"]["task_id"] == task_id
        sentences.append(await _spoken_sentence(client))
    assert event["header"]["task_id"] == task_id
    return sentences


async def _spoken_sentence(client: RawSocket) -> Spoken:
    """What comes after its SentenceBegin."""
    audio = b""
    while True:
        got = await client.frame()
        if got.opcode == BINARY:
            audio += got.payload
            continue
        event = json.loads(got.payload)
        if event["header"]["name"] != "SentenceSynthesis":
            break
    assert event["header"]["name"] == "SentenceEnd", event
    return Spoken("".join(part["text"] for part in event["payload"]["subtitles"]), audio)


async def nothing_came(client: RawSocket) -> None:
    """The answer to a ping is the next frame."""
    await client.send(frame(PING, b"there?"))
    got = await client.frame()
    assert (got.opcode, got.payload) == (PONG, b"there?")


async def test_56_started_comes_first(live: Live) -> None:
    """Although the text is there before the task is."""
    async with opened(live) as client:
        await client.text(start(FLOWING), piece("甲。"), piece("乙。"), flush(), stop(FLOWING))
        names, _ = await heard(client, "SynthesisCompleted")
    assert names == ["SynthesisStarted", *SENTENCE * 2, "SynthesisCompleted"]


@OWN_LOOP
async def test_56_completed_only_after_stop(tmp_path: Path, clock: Clock) -> None:
    """However long the client says nothing, and whether or not all of its text is spoken."""
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING), piece("甲。"), flush())
        names, _ = await heard(client, "SentenceEnd")
        assert names == ["SynthesisStarted", *SENTENCE]
        await clock.advance(9)
        await nothing_came(client)
        await client.text(piece("no end"))
        await clock.advance(9)
        await nothing_came(client)
        await client.text(stop(FLOWING))
        names, _ = await heard(client, "SynthesisCompleted")
        assert names == [*SENTENCE, "SynthesisCompleted"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, len(TEXT)])
async def test_57_any_pieces_give_the_same_sentences(live: Live, size: int) -> None:
    pieces = [piece(TEXT[at : at + size]) for at in range(0, len(TEXT), size)]
    async with opened(live) as client:
        await client.text(start(FLOWING, enable_subtitle=True), *pieces, stop(FLOWING))
        sentences = await spoken(client)
        assert [each.text for each in sentences] == SENTENCES
        assert b"".join(each.audio for each in sentences) == await whole(client, TEXT)


FORMATS: list[dict[str, Any]] = [
    {},
    {"format": "wav", "sample_rate": 24_000},
    {"format": "mp3", "sample_rate": 8_000, "speech_rate": 200, "pitch_rate": -100},
]


@pytest.mark.parametrize("options", FORMATS, ids=["pcm", "wav", "mp3"])
async def test_57_a_character_each_20_ms(live: Live, options: dict[str, Any]) -> None:
    """Byte for byte what the text is in one piece, in either namespace."""
    text = "今天天气很好。圆周率是3.14，对吗？Dr. Wu said yes! 好；再见"
    async with opened(live) as client:
        await client.text(start(FLOWING, **options))
        for character in text:
            await client.text(piece(character))
            await asyncio.sleep(0.02)  # a speaker's pace; a slower one gives the same
        await client.text(stop(FLOWING))
        names, audio = await heard(client, "SynthesisCompleted")
        assert names.count("SentenceBegin") == 5
        await client.text(start(FLOWING, **options), piece(text), stop(FLOWING))
        assert audio == (await heard(client, "SynthesisCompleted"))[1]
        assert audio == await whole(client, text, **options)


@pytest.mark.parametrize("subtitles", [False, True])
async def test_58_begin_and_end_enclose_the_audio(live: Live, subtitles: bool) -> None:
    async with opened(live) as client:
        options = {"enable_subtitle": subtitles}
        await client.text(start(FLOWING, **options), *map(piece, TEXT), stop(FLOWING))
        sentences = await spoken(client)
        for sentence, text in zip(sentences, SENTENCES, strict=True):
            assert len(sentence.audio) == BYTES_PER_CHAR * len(text)
            assert sentence.audio == await whole(client, text)


@pytest.mark.parametrize("first", [["你好。"], list("你好。")], ids=["one piece", "characters"])
async def test_58_a_sentence_is_heard_before_the_next_is_sent(live: Live, first: list[str]) -> None:
    async with opened(live) as client:
        await client.text(start(FLOWING), *map(piece, first))
        await client.expect("SynthesisStarted")
        await client.expect("SentenceBegin")
        got = await client.frame()
        assert got.opcode == BINARY
        await client.text(*map(piece, "再见。"), stop(FLOWING))
        names, rest = await heard(client, "SynthesisCompleted")
        assert [name for name in names if name != "audio"] == [
            "SentenceEnd",
            "SentenceBegin",
            "SentenceEnd",
            "SynthesisCompleted",
        ]
        assert got.payload + rest == await whole(client, "你好。再见。")


OTHERS = {
    "voice": "nobody",
    "format": "wav",
    "sample_rate": 8_000,
    "volume": 0,
    "speech_rate": 500,
    "pitch_rate": 500,
    "enable_subtitle": True,
    "enable_ssml": True,
}
"""Each would be heard, or fail."""

PCM = {**TTS, "format": "pcm"}


@pytest.mark.parametrize("repeated", [PCM, OTHERS, {}], ids=["same", "others", "none"])
async def test_59_the_payload_of_start_again(live: Live, repeated: dict[str, Any]) -> None:
    """C++ sends it around the text, without a context."""
    text = "<甲>。乙&"
    async with connected(live, CPP) as client:
        await client.send(CPP.text(CPP.message(FLOWING, "StartSynthesis", PCM)))
        for character in text:
            run = json.loads(CPP.message(FLOWING, "RunSynthesis", {**repeated, "text": character}))
            del run["context"]
            await client.send(CPP.text(json.dumps(run, separators=(",", ":"))))
        await client.send(CPP.text(CPP.message(FLOWING, "StopSynthesis")))
        sentences = await spoken(client)
        assert [len(each.audio) for each in sentences] == [4 * BYTES_PER_CHAR, 2 * BYTES_PER_CHAR]
        assert {each.text for each in sentences} == {""}
        whole_text = start(FLOWING), piece(text), stop(FLOWING)
        await client.send(CPP.text(*whole_text))
        assert sentences == await spoken(client)


@pytest.mark.parametrize(
    "payload", [None, {}, {"text": "甲"}], ids=["header only", "empty", "text"]
)
async def test_60_a_flush_speaks_and_does_not_end(live: Live, payload: object) -> None:
    """The text after it is a new sentence."""
    now = message(FLOWING, "FlushText", payload)
    async with opened(live) as client:
        await client.text(start(FLOWING))
        await client.expect("SynthesisStarted")
        for index, text in enumerate(("no end", "今天，"), 1):
            await client.text(piece(text[:2]), piece(text[2:]), now, now)
            assert (await client.expect("SentenceBegin"))["payload"] == {"index": index}
            sentence = await _spoken_sentence(client)
            assert len(sentence.audio) == BYTES_PER_CHAR * len(text)
            await nothing_came(client)
        await client.text(stop(FLOWING))
        await client.expect("SynthesisCompleted")


NO_TEXT: dict[str, list[str]] = {
    "no piece": [],
    "empty pieces": [piece(""), piece("")],
    "spaces": [piece(" \n"), piece("\t")],
    "nothing to say": [piece("……")],
    "flushed": [flush(), piece("。"), flush()],
}


@pytest.mark.parametrize("messages", NO_TEXT.values(), ids=NO_TEXT)
@pytest.mark.parametrize("audio_format", ["pcm", "wav", "mp3"])
async def test_61_stop_without_text(live: Live, audio_format: str, messages: Sequence[str]) -> None:
    """No audio either, not even the header of a file; and the connection serves on."""
    async with opened(live) as client:
        await client.text(start(FLOWING, format=audio_format), *messages, stop(FLOWING))
        names, audio = await heard(client, "SynthesisCompleted")
        assert (names, audio) == (["SynthesisStarted", "SynthesisCompleted"], b"")
        await whole_task(client, FLOWING)


async def _say_goodbye(client: RawSocket) -> None:
    await client.send(frame(CLOSE, b"\x03\xe8"))


async def _reset(client: RawSocket) -> None:
    client.abort(reset=True)


async def _vanish(client: RawSocket) -> None:
    client.abort(reset=False)


@pytest.mark.parametrize("leave", [_say_goodbye, _reset, _vanish])
async def test_62_closing_cancels(
    tmp_path: Path, leave: Callable[[RawSocket], Awaitable[None]]
) -> None:
    """The engine, which is held in the middle of two sentences, goes on with none of them, and
    never begins the others."""
    gate = Gate()
    engine = GatedSynthesizer(gate, free_pieces=1)
    async with live_server(tmp_path, tts=engine) as live, nothing_left(live):
        try:
            async with opened(live) as client:
                await client.text(start(FLOWING), *(piece(each * 50 + "。") for each in "甲乙丙丁"))
                while (await client.frame()).opcode != BINARY:
                    pass
                await until(lambda: gate.waiting == 2)  # one is made while one is heard
                begun = engine.begun.copy()
                await leave(client)
                await until(lambda: not any(worker.active for worker in live.workers))
        finally:
            gate.open()
        await until(lambda: not any(worker.work() for worker in live.workers))
        assert engine.begun == begun
        assert len(begun) == 2


async def test_62_closing_forgets_what_was_not_spoken(tmp_path: Path) -> None:
    gate = Gate()
    engine = GatedSynthesizer(gate)
    gate.open()
    async with live_server(tmp_path, tts=engine) as live, nothing_left(live):
        async with opened(live) as client:
            await client.text(start(FLOWING), piece("no end"))
            await client.expect("SynthesisStarted")
        async with opened(live) as client:
            await whole_task(client, FLOWING)
    assert set(engine.begun) == {"ab"}


async def test_63_five_tasks_on_a_connection(live: Live) -> None:
    """Each hears its own text, and is told of by its own id."""
    async with opened(live) as client:
        for number, character in enumerate("甲乙丙丁戊", 1):
            task_id = f"{number:032x}"
            text = character * number + "。" + character
            for name, payload in (
                ("StartSynthesis", {"enable_subtitle": True}),
                *(("RunSynthesis", {"text": each}) for each in text),
                ("StopSynthesis", None),
            ):
                await client.text(message(FLOWING, name, payload, task_id))
            sentences = await spoken(client, task_id)
            assert [each.text for each in sentences] == [character * number + "。", character]
            audio = b"".join(each.audio for each in sentences)
            assert len(audio) == BYTES_PER_CHAR * len(text)
