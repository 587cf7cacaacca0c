"""FlashRecognizer through real sockets, the decode process' code and the worker protocol. The fake
engine tells how long it heard sound, so what is heard of which channel shows in the text."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.encoded import encoded, muxed
from tests.support.leftovers import no_leftovers
from tests.support.live import Live, live_server
from tests.support.rawsocket import until
from tests.support.sound import Int16, joined, silence, tone

URL = "/stream/v1/FlashRecognizer"


def call(rate: int) -> Int16:
    """Two speakers, each in a channel of its own: one from 0.2 to 0.8 s and from 3.2 to 4 s,
    the other from 1.5 to 2.2 s. 4.2 s in all."""
    first = joined(silence(200, rate), tone(600, rate), silence(2_400, rate), tone(800, rate))
    second = joined(silence(1_500, rate), tone(700, rate))
    frames = np.zeros((rate * 42 // 10, 2), np.int16)
    frames[: len(first), 0] = first
    frames[: len(second), 1] = second
    return frames


def wav(samples: Int16, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as header:
        header.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        header.setsampwidth(2)
        header.setframerate(rate)
        header.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


RECORDINGS = {
    "wav": lambda rate: wav(call(rate), rate),
    "mp3": lambda rate: muxed(call(rate), rate, "mp3", "libmp3lame", layout="stereo"),
    "mp4": lambda rate: muxed(call(rate), rate, "mp4", "aac", layout="stereo"),
    "flac": lambda rate: muxed(call(rate), rate, "flac", "flac", layout="stereo"),
    "opus": lambda rate: muxed(call(rate), rate, "ogg", "libopus", seekable=False,
                               layout="stereo"),
}  # fmt: skip

LOSSY = {"mp3", "mp4", "opus"}
"""Their blocks smear the edges of a tone."""


@asynccontextmanager
async def a_server(folder: Path, **settings: Any) -> AsyncIterator[tuple[Live, httpx.AsyncClient]]:
    async with (
        live_server(folder, tts=None, **settings) as live,
        httpx.AsyncClient(base_url=live.http, timeout=60) as http,
    ):
        yield live, http


async def flash(http: httpx.AsyncClient, data: bytes, **params: Any) -> Any:
    """The ``flash_result``."""
    answer = (await http.post(URL, params=params, content=data)).json()
    assert (answer["result"], answer["status"]) == ("SUCCESS", 20000000), answer
    return answer["flash_result"]


async def failed(http: httpx.AsyncClient, data: bytes, **params: Any) -> tuple[int, int]:
    answer = await http.post(URL, params=params, content=data)
    assert "flash_result" not in answer.json()
    return answer.status_code, answer.json()["status"]


def near(found: Any, expected: list[tuple[int, int, int]], ms: int) -> None:
    """Sentences as (channel, begin, end), exact to ``ms``."""
    assert len(found["sentences"]) == len(expected), found
    for each, (channel, begin_ms, end_ms) in zip(found["sentences"], expected, strict=True):
        assert each["channel_id"] == channel
        assert each["begin_time"] == pytest.approx(begin_ms, abs=ms)
        assert each["end_time"] == pytest.approx(end_ms, abs=ms)
        assert each["text"] == f"heard {each['end_time'] - each['begin_time']} ms"


CALL: dict[str, Any] = {"format": "wav", "sample_rate": 8_000, "appkey": "k"}

EACH = [(0, 200, 800), (1, 1_500, 2_200), (0, 3_200, 4_000)]


@pytest.mark.parametrize("name", RECORDINGS)
async def test_each_speaker_of_a_call_has_a_channel(tmp_path: Path, name: str) -> None:
    data = RECORDINGS[name](8_000)
    exact_ms = 150 if name in LOSSY else 0
    async with a_server(tmp_path) as (live, http):
        found = await flash(http, data, format=name.upper(), sample_rate=8_000)
        near(found, EACH, exact_ms)
        assert found["duration"] == pytest.approx(4_200, abs=exact_ms)
        assert found["completed"] is True and found["latency"] >= 0
        # Mixed, the second begins within 800 ms of the first one's end: it is one sentence.
        mixed = await flash(http, data, format=name)
        near(mixed, [(0, 200, 2_200), EACH[2]], exact_ms)
        first = await flash(http, data, format=name, sample_rate=8_000, first_channel_only="true")
        near(first, [EACH[0], EACH[2]], exact_ms)
        assert live.decoder is not None
        await until(lambda: not list((tmp_path / "files").iterdir()))
        assert not list((tmp_path / "fetched").iterdir())


async def test_mono_telephone_audio_is_one_channel(tmp_path: Path) -> None:
    async with a_server(tmp_path) as (_, http):
        data = joined(silence(300, 8_000), tone(500, 8_000))
        for sound in (wav(data, 8_000), encoded("flac", data, 8_000), data.tobytes()):
            found = await flash(http, sound, format="wav", sample_rate=8_000)
            near(found, [(0, 300, 800)], 0)


async def test_words_and_cut_sentences_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    words = [
        {"text": word, "start_ms": 100 * at, "end_ms": 100 * at + 80}
        for at, word in enumerate(["北京", "的", "天气", "真", "好"])
    ]
    script.write_text(json.dumps([{"text": "北京的天气，真好！", "words": words}]))
    data = wav(joined(silence(100), tone(700)), 16_000)
    async with a_server(tmp_path, engine_settings={"FAKE_ASR_SCRIPT": str(script)}) as (_, http):
        found = await flash(http, data, format="wav", enable_word_level_result="true")
        (sentence,) = found["sentences"]
        assert sentence["text"] == "北京的天气，真好！"
        assert sentence["words"] == [
            {"text": "北京", "begin_time": "100", "end_time": "180", "punc": ""},
            {"text": "的", "begin_time": "200", "end_time": "280", "punc": ""},
            {"text": "天气", "begin_time": "300", "end_time": "380", "punc": "，"},
            {"text": "真", "begin_time": "400", "end_time": "480", "punc": ""},
            {"text": "好", "begin_time": "500", "end_time": "580", "punc": "！"},
        ]
        for params in ({"punctuation_mark": "，"}, {"sentence_max_length": 6}):
            found = await flash(http, data, format="wav", **params)
            assert found["sentences"] == [
                {"text": "北京的天气，", "begin_time": 100, "end_time": 380, "channel_id": 0},
                {"text": "真好！", "begin_time": 400, "end_time": 800, "channel_id": 0},
            ]


async def test_a_recording_is_longer_and_larger_than_an_utterance(tmp_path: Path) -> None:
    sound = joined(*[tone(400), silence(1_600)] * 40)
    data = encoded("flac", sound, 16_000)
    async with a_server(tmp_path, max_audio_seconds=60, max_audio_bytes=20_000) as (_, http):
        assert len(data) > 20_000
        found = await flash(http, data, format="flac")
        assert found["duration"] == 80_000
        assert [each["text"] for each in found["sentences"]] == ["heard 400 ms"] * 40


@pytest.mark.parametrize("name", ["wav", "mp3", "flac"])
async def test_too_long_too_large_and_exactly_so(tmp_path: Path, name: str) -> None:
    data = RECORDINGS[name](8_000)
    async with a_server(
        tmp_path, max_flash_seconds=5, max_flash_bytes=len(data), max_audio_bytes=1_000
    ) as (_, http):
        assert len((await flash(http, data, format=name, sample_rate=8_000))["sentences"]) == 3
        assert await failed(http, data + b"x", format=name) == (413, 40000000)
    async with a_server(tmp_path / "other", max_flash_seconds=4) as (_, http):
        assert await failed(http, data, format=name) == (400, 40270003)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("wav", wav(silence(2_000), 16_000), 40270002),
        ("wav", b"", 40270002),
        ("wav", wav(tone(500), 16_000)[:30], 40270003),
        ("mp3", b"no mp3 at all " * 500, 40270003),
        ("flac", b"fLaC" + bytes(5_000), 40270003),
        ("mp4", encoded("m4a", tone(2_000), 16_000)[:3_000], 40270003),
    ],
)
async def test_what_is_no_recording(tmp_path: Path, name: str, data: bytes, code: int) -> None:
    async with a_server(tmp_path) as (_, http):
        assert await failed(http, data, format=name) == (400, code)
        assert not list((tmp_path / "fetched").iterdir())
        # Nobody else is hurt.
        assert len((await flash(http, wav(tone(300), 16_000), format="wav"))["sentences"]) == 1


async def test_a_recording_by_its_url(tmp_path: Path) -> None:
    data = RECORDINGS["mp3"](8_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data)
        await writer.drain()
        writer.close()

    site = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{site.sockets[0].getsockname()[1]}/call.mp3"
    asked = {"format": "mp3", "sample_rate": 8_000, "audio_address": url}
    async with site:
        async with a_server(tmp_path, allow_private_urls=True) as (_, http):
            near(await flash(http, b"", **asked), EACH, 150)
            assert not list((tmp_path / "fetched").iterdir())
        async with a_server(tmp_path / "small", allow_private_urls=True,
                            max_flash_bytes=len(data) - 1) as (_, http):  # fmt: skip
            assert await failed(http, b"", **asked) == (400, 40270003)
        async with a_server(tmp_path / "closed") as (_, http):
            assert await failed(http, b"", **asked) == (400, 40000003)


async def test_a_client_that_leaves_in_any_channel_leaves_nothing(tmp_path: Path) -> None:
    """A step takes long, so the client is gone in the middle of the file."""
    data = RECORDINGS["wav"](8_000)
    slow = {"FAKE_ASR_DELAY_MS": 20}
    async with a_server(tmp_path, engine_settings=slow) as (live, http):
        await flash(http, data, **CALL)
        async with no_leftovers(live):
            for _ in range(3):
                async with httpx.AsyncClient(base_url=live.http) as leaver:
                    asking = asyncio.create_task(flash(leaver, data, **CALL))
                    await until(lambda: any(worker.active for worker in live.workers))
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                await until(lambda: not any(worker.active for worker in live.workers))
        await until(lambda: not list((tmp_path / "fetched").iterdir()))


async def test_a_server_that_is_full(tmp_path: Path) -> None:
    async with a_server(
        tmp_path, max_tasks_per_appkey=1, engine_settings={"FAKE_ASR_DELAY_MS": 20}
    ) as (live, http):
        data = RECORDINGS["wav"](8_000)
        first = asyncio.create_task(flash(http, data, **CALL))
        await until(lambda: any(worker.active for worker in live.workers))
        assert await failed(http, data, **CALL) == (429, 40000005)
        assert len((await first)["sentences"]) == 3
