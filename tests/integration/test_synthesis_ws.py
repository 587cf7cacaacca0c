"""Synthesis through real sockets, on the fake engine: pitch and length tell whose audio it is."""

from __future__ import annotations

import asyncio
import io
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.client.errors import NlsTaskFailed
from app.client.nls import NlsClient
from tests.support.live import live_server
from tests.support.sound import main_frequency


def hz(text: str) -> float:
    return 200 + (ord(text[0]) % 50) * 20


def samples(pcm: bytes) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.frombuffer(pcm, dtype=np.int16)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 48_000])
async def test_the_requested_rate_is_exact(tmp_path: Path, rate: int) -> None:
    async with live_server(tmp_path) as live:
        audio = samples(await NlsClient(live.ws).synthesize("hello", sample_rate=rate))
    assert len(audio) == rate  # five characters of 200 ms
    assert abs(main_frequency(audio, rate) - hz("h")) < 2


async def test_wav_has_one_header_and_frames_are_bounded(tmp_path: Path) -> None:
    text = "a" * 90
    async with (
        live_server(tmp_path) as live,
        NlsClient(live.ws).synthesizer(text, format="wav", sample_rate=48_000) as task,
    ):
        frames = [piece async for piece in task.audio()]
    assert frames[0][:4] == b"RIFF"
    assert sum(frame.count(b"RIFF") for frame in frames) == 1
    assert all(0 < len(frame) <= 65_536 for frame in frames)
    assert sum(map(len, frames)) == 44 + 48_000 * 2 * 18


@pytest.mark.parametrize(("speech_rate", "factor"), [(-500, 2.0), (0, 1.0), (500, 0.5)])
async def test_speech_rate_changes_the_length_and_not_the_pitch(
    tmp_path: Path, speech_rate: int, factor: float
) -> None:
    async with live_server(tmp_path) as live:
        audio = samples(await NlsClient(live.ws).synthesize("a" * 20, speech_rate=speech_rate))
    assert len(audio) / 16_000 == pytest.approx(4.0 * factor, rel=0.01)
    assert abs(main_frequency(audio, 16_000) - hz("a")) < 3


async def test_pitch_rate_changes_the_pitch_and_not_the_length(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        audio = samples(await NlsClient(live.ws).synthesize("a" * 20, pitch_rate=500))
    assert len(audio) / 16_000 == pytest.approx(4.0, rel=0.01)
    assert main_frequency(audio, 16_000) == pytest.approx(2 * hz("a"), abs=4)


@pytest.mark.parametrize(("volume", "factor"), [(0, 0.0), (25, 0.5), (50, 1.0), (100, 2.0)])
async def test_volume_scales_without_clipping(tmp_path: Path, volume: int, factor: float) -> None:
    async with live_server(tmp_path) as live:
        client = NlsClient(live.ws)
        normal = samples(await client.synthesize("aaaaa"))
        audio = samples(await client.synthesize("aaaaa", volume=volume))
    level = float(np.abs(audio.astype(float)).mean() / np.abs(normal.astype(float)).mean())
    assert level == pytest.approx(factor, abs=0.05)
    assert abs(int(np.abs(audio.astype(int)).max())) < 32_767


async def test_sentences_are_spoken_in_order_each_with_its_own_tone(tmp_path: Path) -> None:
    text = "aaaaaaaaa. bbbbbbbbb. ccccccccc."
    async with live_server(tmp_path) as live:
        audio = samples(await NlsClient(live.ws).synthesize(text))
    thirds = np.array_split(audio, 3)
    found = [main_frequency(third[1000:-1000], 16_000) for third in thirds]
    assert found == pytest.approx([hz("a"), hz("b"), hz("c")], abs=5)


async def test_twenty_at_once_each_get_their_own_audio_by_websocket_and_rest(
    tmp_path: Path,
) -> None:
    letters = "abcdefghijklmnopqrst"
    async with live_server(tmp_path, engine_settings={"FAKE_TTS_DELAY_MS": 5}) as live:
        client = NlsClient(live.ws)

        async def rest(text: str) -> bytes:
            async with httpx.AsyncClient(base_url=live.http) as http:
                answer = await http.get("/stream/v1/tts", params={"text": text})
                assert answer.headers["content-type"] == "audio/mpeg"
                return answer.content

        texts = [letter * (3 + index) for index, letter in enumerate(letters)]
        by_socket = await asyncio.gather(*(client.synthesize(text) for text in texts))
        by_rest = await asyncio.gather(*(rest(text) for text in texts))
    for text, *answers in zip(texts, by_socket, by_rest, strict=True):
        for answer in answers:
            audio = samples(answer)
            assert len(audio) == len(text) * 3200
            assert abs(main_frequency(audio, 16_000) - hz(text)) < 3


async def test_rest_wav_has_a_true_header_and_length(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, httpx.AsyncClient(base_url=live.http) as http:
        answer = await http.get("/stream/v1/tts", params={"text": "hello", "format": "wav"})
    assert int(answer.headers["content-length"]) == len(answer.content)
    with wave.open(io.BytesIO(answer.content)) as audio:
        assert (audio.getframerate(), audio.getnframes()) == (16_000, 16_000)


async def test_a_client_that_leaves_stops_the_engine(tmp_path: Path) -> None:
    text = "a" * 190 + ". " + "b" * 190
    async with live_server(tmp_path, engine_settings={"FAKE_TTS_DELAY_MS": 20}) as live:
        async with NlsClient(live.ws).synthesizer(text) as task:
            async for _ in task.audio():
                break
        worker = next(worker for worker in live.workers if worker.synthesis is not None)
        while worker.active:  # noqa: ASYNC110 - it has no event for this
            await asyncio.sleep(0.005)
        assert worker.synthesis is not None
        assert worker.synthesis.pieces < 95  # of 190 that the text has


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"text": ""}, 40010003),
        ({"text": "x" * 1001}, 40010003),
        ({"text": "a", "voice": "nobody"}, 40000003),
        ({"text": "a", "voice": "../../etc/passwd"}, 40000003),
        ({"text": "a", "format": "xyz"}, 40010003),
        ({"text": "a", "sample_rate": 12_345}, 40010003),
        ({"text": "……"}, 40010003),
    ],
)
async def test_what_cannot_be_spoken_gets_its_code(
    tmp_path: Path, options: dict[str, object], code: int
) -> None:
    text = str(options.pop("text"))
    async with live_server(tmp_path) as live:
        with pytest.raises(NlsTaskFailed) as failed:
            await NlsClient(live.ws).synthesize(text, **options)
    assert failed.value.code == code
    assert "/" not in failed.value.text or "stream/v1" in failed.value.text
