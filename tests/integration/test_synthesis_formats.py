"""Every format that clients may ask for, through every door: duration, rate and tone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.audio.encode import ENCODABLE
from app.client.errors import NlsTaskFailed
from app.client.nls import NlsClient
from tests.support.decoded import decoded
from tests.support.live import Live, live_server
from tests.support.sound import main_frequency

RATES = (8_000, 16_000, 22_050, 48_000)
WORD, WORD_HZ = "hello", 280  # what the fake engine makes of it: 200 ms a character
LONG = "c" * 320  # REST streams it
LONG_HZ = 1_180
LATE_S = {"mp3": 0.2, "aac": 0.3, "opu": 0.04}
"""Seconds of silence that a stream may have too many, where its format cannot tell of them (8 kHz
has the most)."""


def check(format: str, data: bytes, rate: int, seconds: float, hz: float) -> float:
    """The audio is what was asked for. Returns its seconds."""
    audio, decoded_rate = decoded(format, data, rate)
    assert decoded_rate == (48_000 if format in ("opus", "ogg", "opu") else rate)
    length = len(audio) / decoded_rate
    assert -0.0001 <= length - seconds <= LATE_S.get(format, 0.0001)
    middle = audio[decoded_rate // 4 : -decoded_rate // 4]
    assert abs(main_frequency(middle, decoded_rate) - hz) < 2
    return length


async def got(live: Live, method: str, fields: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=live.http, timeout=60) as http:
        if method == "GET":
            answer = await http.get("/stream/v1/tts", params=fields)
        else:
            answer = await http.post("/stream/v1/tts", json=fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/mpeg"
    return answer


@pytest.mark.parametrize("format", ENCODABLE)
async def test_over_the_websocket(tmp_path: Path, format: str) -> None:
    async with live_server(tmp_path) as live:
        for rate in RATES:
            task = NlsClient(live.ws).synthesizer(WORD, format=format, sample_rate=rate)
            async with task as synthesis:
                frames = [frame async for frame in synthesis.audio()]
            assert all(0 < len(frame) <= 32_768 for frame in frames)
            check(format, b"".join(frames), rate, 1.0, WORD_HZ)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("format", ENCODABLE)
async def test_a_short_text_over_rest_knows_its_length(
    tmp_path: Path, format: str, method: str
) -> None:
    async with live_server(tmp_path) as live:
        for rate in RATES:
            fields = {"text": WORD, "format": format, "sample_rate": rate}
            answer = await got(live, method, fields)
            assert int(answer.headers["content-length"]) == len(answer.content)
            length = check(format, answer.content, rate, 1.0, WORD_HZ)
            if format not in ("aac", "opu"):
                assert length == 1.0


@pytest.mark.parametrize("format", ENCODABLE)
async def test_a_long_text_over_rest_is_streamed(tmp_path: Path, format: str) -> None:
    async with live_server(tmp_path) as live:
        answer = await got(
            live, "POST", {"text": LONG, "format": format, "sample_rate": 24_000, "volume": 80}
        )
        assert answer.headers["transfer-encoding"] == "chunked"
        check(format, answer.content, 24_000, 64.0, LONG_HZ)


@pytest.mark.parametrize("format", ["MP3", ".mp3", "Opus", "FLAC"])
async def test_names_in_any_spelling(tmp_path: Path, format: str) -> None:
    name = format.lower().removeprefix(".")
    async with live_server(tmp_path) as live:
        check(name, await NlsClient(live.ws).synthesize(WORD, format=format), 16_000, 1.0, WORD_HZ)
        answer = await got(live, "GET", {"text": WORD, "format": format})
        check(name, answer.content, 16_000, 1.0, WORD_HZ)


@pytest.mark.parametrize("format", ["m4a", "webm", "amr", "speex", "wma", "mp2", "../mp3"])
async def test_what_is_only_read_or_unknown_is_refused(tmp_path: Path, format: str) -> None:
    async with live_server(tmp_path) as live:
        with pytest.raises(NlsTaskFailed) as failed:
            await NlsClient(live.ws).synthesize(WORD, format=format)
        async with httpx.AsyncClient(base_url=live.http) as http:
            answer = await http.get("/stream/v1/tts", params={"text": WORD, "format": format})
    assert failed.value.code == answer.json()["status"] == 40010003
    for name in ENCODABLE:
        assert name in failed.value.text and name in answer.json()["message"]
