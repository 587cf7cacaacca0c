"""Text in pieces through real sockets, on the fake engine, whose characters take 200 ms each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.nls.connection import Connection
from tests.support.flowing import BYTES_PER_CHAR, FLOWING, SENTENCE, flush, heard, piece, whole
from tests.support.live import live_server
from tests.support.rawsocket import (
    BINARY,
    PING,
    PONG,
    frame,
    nothing_left,
    opened,
    start,
    stop,
    until,
    whole_task,
)

TEXT = "今天天气很好。圆周率是3.14，对吗？Yes."
SENTENCES = 3


async def test_a_character_at_a_time_sounds_like_the_whole(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING), *map(piece, TEXT), stop(FLOWING))
        names, audio = await heard(client, "SynthesisCompleted")
        assert names == ["SynthesisStarted", *SENTENCE * SENTENCES, "SynthesisCompleted"]
        assert audio == await whole(client, TEXT)
        assert len(audio) > 0


async def test_first_audio_before_the_second_sentence_is_sent(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING), piece("你好。"))
        names, first = await heard(client, "SentenceEnd")
        assert names == ["SynthesisStarted", *SENTENCE]
        await client.text(piece("再见。"), stop(FLOWING))
        names, second = await heard(client, "SynthesisCompleted")
        assert names == [*SENTENCE, "SynthesisCompleted"]
        assert first + second == await whole(client, "你好。再见。")


async def test_a_flush_speaks_what_there_is(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING), piece("no end"), flush(), flush())
        names, audio = await heard(client, "SentenceEnd")
        assert names == ["SynthesisStarted", *SENTENCE]
        assert len(audio) == BYTES_PER_CHAR * len("no end")
        await client.text(stop(FLOWING))
        assert await heard(client, "SynthesisCompleted") == (["SynthesisCompleted"], b"")


async def test_without_text_there_is_no_audio(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING, format="wav"), stop(FLOWING))
        names, audio = await heard(client, "SynthesisCompleted")
        assert (names, audio) == (["SynthesisStarted", "SynthesisCompleted"], b"")


async def test_a_text_in_start_completes_by_itself(tmp_path: Path) -> None:
    """C++'s way to speak one text (nls-protocol.md 5.1)."""
    ssml = '<speak>甲<break time="500ms"/>乙</speak>'
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING, text=ssml, enable_ssml=True))
        names, audio = await heard(client, "SynthesisCompleted")
        assert names[0] == "SynthesisStarted"
        assert len(audio) == 2 * BYTES_PER_CHAR + 16_000


async def test_tasks_follow_each_other(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, opened(live) as client, nothing_left(live):
        for namespace in (FLOWING, "SpeechTranscriber", FLOWING, "SpeechSynthesizer", FLOWING):
            await whole_task(client, namespace)
        client.abort(reset=False)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_stops_the_engine(tmp_path: Path, reset: bool) -> None:
    slow = {"FAKE_TTS_DELAY_MS": 20}
    async with (
        live_server(tmp_path, engine_settings=slow) as live,
        nothing_left(live),
        opened(live) as client,
    ):
        await client.text(start(FLOWING), piece("甲" * 150 + "。"), piece("乙" * 150 + "。"))
        while (await client.frame()).opcode != BINARY:
            pass
        client.abort(reset=reset)


async def test_a_client_that_only_waits_may_leave(tmp_path: Path) -> None:
    """Its task has no sentence yet."""
    async with live_server(tmp_path) as live, nothing_left(live), opened(live) as client:
        await client.text(start(FLOWING), piece("no end"))
        await client.expect("SynthesisStarted")
        client.abort(reset=False)


async def test_malformed_ssml_fails_the_task(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING, text="<speak>甲<</speak>", enable_ssml=True))
        failed = (await client.until("TaskFailed"))[-1]
        assert failed["header"]["status"] == 41020001
        assert await client.closed() == 1000


async def test_pings_reach_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is answered first; the session of another connection hears nothing."""
    pinged: list[Connection] = []
    monkeypatch.setattr(Connection, "ping", lambda self, now: pinged.append(self))
    async with live_server(tmp_path) as live, opened(live) as client, opened(live) as other:
        await client.text(start(FLOWING))
        await client.expect("SynthesisStarted")
        await client.send(frame(PING, b"payload") + frame(PING, b""))
        pongs = [await client.frame(), await client.frame()]
        assert [(got.opcode, got.payload) for got in pongs] == [(PONG, b"payload"), (PONG, b"")]
        await until(lambda: len(pinged) == 2)
        await other.send(frame(PING, b""))
        await other.frame()
        await until(lambda: len(pinged) == 3)
    assert pinged[0] is pinged[1] is not pinged[2]


async def test_the_idle_timeout_names_the_last_directive(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, idle_timeout_seconds=0.1) as live,
        opened(live) as client,
    ):
        await client.text(start(FLOWING), piece("no end"))
        failed = (await client.until("TaskFailed"))[-1]
    assert failed["header"]["status"] == 40000004
    assert "'RunSynthesis'" in failed["header"]["status_text"]


async def test_subtitles_lie_between_the_audio(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start("SpeechSynthesizer", text="你好。再见。", enable_subtitle=True))
        names, audio = await heard(client, "SynthesisCompleted")
    assert names == ["audio", "MetaInfo", "audio", "MetaInfo", "SynthesisCompleted"]
    assert len(audio) > 0


async def test_a_drain_ends_a_task_that_waits_for_text(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, drain_timeout_seconds=0.05) as live,
        opened(live) as client,
    ):
        await client.text(start(FLOWING), piece("甲。"))
        await heard(client, "SentenceEnd")
        live.begin_drain()
        failed = (await client.until("TaskFailed"))[-1]
        assert failed["header"]["status"] == 50000001
        assert await client.closed() == 1001


async def _rest(live: Any, fields: dict[str, object]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=live.http) as http:
        return await http.post("/stream/v1/tts", json=fields)


async def test_ssml_by_rest(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        plain = await _rest(live, {"text": "甲乙"})
        broken = await _rest(live, {"text": '<speak>甲<break time="1s"/>乙</speak>'})
        malformed = await _rest(live, {"text": "<speak>甲"})
        as_text = await _rest(live, {"text": "<speak>甲", "enable_ssml": False})
    assert len(broken.content) == len(plain.content) + 2 * 16_000
    assert (malformed.status_code, malformed.json()["status"]) == (400, 41020001)
    assert as_text.status_code == 200


async def test_text_every_20_ms_is_what_it_is_whole(tmp_path: Path) -> None:
    text = "一二三。四五六！七八九？"
    async with live_server(tmp_path) as live, opened(live) as client:
        await client.text(start(FLOWING))
        for character in text:
            await client.text(piece(character))
            await asyncio.sleep(0.02)  # as the issue has it; slower is as good
        await client.text(stop(FLOWING))
        names, audio = await heard(client, "SynthesisCompleted")
        assert names == ["SynthesisStarted", *SENTENCE * 3, "SynthesisCompleted"]
        assert audio == await whole(client, text)
