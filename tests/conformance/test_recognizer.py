"""nls-protocol.md 9, SpeechRecognizer: numbers 31 to 37. The fake engine's text tells to 10 ms how
long it heard a tone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.encoded import encoded
from tests.support.live import Live, live_server
from tests.support.rawsocket import (
    PING,
    PONG,
    RawSocket,
    frame,
    opened,
    start,
    stop,
    whole_task,
)
from tests.support.sound import joined, silence, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMESPACE = "SpeechRecognizer"
ANSWER_WITHIN_S = 10.0
"""What Python and Java wait for Started and Completed (nls-protocol.md 1.10)."""

SPEECH = joined(silence(300), tone(700), silence(500), tone(300), silence(200)).tobytes()


async def begun(client: RawSocket, **options: Any) -> None:
    """A task that has started."""
    await client.text(start(NAMESPACE, **options))
    async with asyncio.timeout(ANSWER_WITHIN_S):
        await client.expect("RecognitionStarted")


async def completed(client: RawSocket) -> list[dict[str, Any]]:
    """The payloads of what comes after Stop; the last is Completed's."""
    await client.text(stop(NAMESPACE))
    async with asyncio.timeout(ANSWER_WITHIN_S):
        events = await client.until("RecognitionCompleted")
    return [event["payload"] for event in events]


async def nothing_more(client: RawSocket) -> None:
    """No event is on its way, and the connection is as good as new."""
    await client.send(frame(PING, b"more?"))
    got = await client.frame()
    assert (got.opcode, got.payload) == (PONG, b"more?")


async def recognised(client: RawSocket, audio: bytes, **options: Any) -> str:
    """The result of a whole task."""
    await begun(client, **options)
    await client.audio(*(audio[begin : begin + 32_000] for begin in range(0, len(audio), 32_000)))
    return str((await completed(client))[-1]["result"])


async def test_31_started_and_completed_come_in_time(live: Live) -> None:
    async with opened(live) as client:
        assert await recognised(client, SPEECH) == "heard 1500 ms"
        await begun(client)
        await completed(client)  # without any audio


WORDS = ["一", "二", "三", "四", "五"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A sentence that is heard word by word."""
    words = [
        {"text": word, "start_ms": 200 * number, "end_ms": 200 * number + 200}
        for number, word in enumerate(WORDS)
    ]
    file = tmp_path / "script.json"
    file.write_text(json.dumps([{"text": "".join(WORDS) + "。", "words": words}]), "utf-8")
    return file


@pytest.mark.parametrize("wanted", [True, False, None])
async def test_32_intermediate_results(tmp_path: Path, script: Path, wanted: bool | None) -> None:
    async with (
        live_server(tmp_path, engine_settings={"FAKE_ASR_SCRIPT": str(script)}) as live,
        opened(live) as client,
    ):
        await begun(client, **({} if wanted is None else {"enable_intermediate_result": wanted}))
        results: list[str] = []
        for word in WORDS:
            await client.audio(tone(200).tobytes())
            while wanted and not (results and results[-1].endswith(word)):
                changed = await client.expect("RecognitionResultChanged")
                results.append(changed["payload"]["result"])
        *changes, last = await completed(client)
        results += [change["result"] for change in changes]
    assert last["result"] == "".join(WORDS) + "。"
    if wanted:
        # Each holds everything so far.
        whole = ["".join(WORDS[: number + 1]) for number in range(len(WORDS))]
        assert list(dict.fromkeys(results))[: len(whole)] == whole
    else:
        assert results == []


@pytest.mark.parametrize(
    ("audio", "result"),
    [
        (SPEECH, "heard 1500 ms"),
        (silence(2_000).tobytes(), ""),
        (b"", ""),
    ],
    ids=["speech", "silence", "nothing"],
)
async def test_33_one_completed_with_a_text(live: Live, audio: bytes, result: str) -> None:
    async with opened(live) as client:
        await begun(client)
        await client.audio(audio)
        (payload,) = await completed(client)
        assert payload["result"] == result
        assert type(payload["duration"]) is int
        await nothing_more(client)


@pytest.mark.parametrize("end_silence", [500, 1_000])
async def test_34_voice_detection_completes_without_stop(live: Live, end_silence: int) -> None:
    detection = {"enable_voice_detection": True, "max_end_silence": end_silence}
    async with opened(live) as client:
        await begun(client, **detection)
        await client.audio(joined(tone(400), silence(end_silence - 100), tone(200)).tobytes())
        await client.audio(silence(end_silence + 200).tobytes())
        completed = await client.expect("RecognitionCompleted")
        # Python and Java go on until they have read it.
        await client.audio(*[tone(200).tobytes()] * 5)
        await client.text(stop(NAMESPACE))
        await nothing_more(client)
        await whole_task(client, NAMESPACE, task_id="e" * 32)
    assert completed["payload"]["result"] == f"heard {400 + end_silence - 100 + 200} ms"


async def test_35_nobody_begins_to_speak(live: Live) -> None:
    detection = {"enable_voice_detection": True, "max_start_silence": 2_000}
    async with opened(live) as client:
        await begun(client, **detection)
        await client.audio(silence(1_900).tobytes())
        await nothing_more(client)
        await client.audio(silence(400).tobytes())
        completed = await client.expect("RecognitionCompleted")
        assert completed["payload"]["result"] == ""
        # Who begins in time is heard.
        await begun(client, **detection)
        await client.audio(joined(silence(1_500), tone(300), silence(1_500)).tobytes())
        completed = await client.expect("RecognitionCompleted")
        assert completed["payload"]["result"] == "heard 300 ms"


async def test_36_more_than_a_minute(live: Live) -> None:
    minute = joined(silence(59_000), tone(1_000)).tobytes()
    async with opened(live) as client:
        assert await recognised(client, minute) == "heard 1000 ms"
        await begun(client)
        await client.audio(
            *(minute[begin : begin + 320_000] for begin in range(0, 1_920_000, 320_000))
        )
        await client.audio(tone(100).tobytes())
        assert (await client.failure())["status"] == 41010104


@pytest.mark.parametrize(
    ("format", "encoder", "longer_ms"),
    [("wav", "wav-s16", 0), ("opus", "ogg-opus", 10)],
    ids=["wav", "opus"],
)
@pytest.mark.parametrize("rate", [8_000, 16_000])
async def test_37_formats(live: Live, format: str, encoder: str, longer_ms: int, rate: int) -> None:
    """They are heard as pcm is; Opus smears the edges of the tone by less than 10 ms."""
    sound = joined(silence(300, rate), tone(1_000, rate), silence(300, rate))
    data = encoded(encoder, sound, rate)
    assert data[:4] == {"wav": b"RIFF", "opus": b"OggS"}[format]
    async with opened(live) as client:
        raw = await recognised(client, sound.tobytes(), sample_rate=rate)
        result = await recognised(client, data, format=format, sample_rate=rate)
    heard = [int(text.split()[1]) for text in (raw, result)]
    assert 0 <= heard[1] - heard[0] <= longer_ms
    assert abs(heard[0] - 1_000) <= 10
