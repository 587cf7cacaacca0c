"""The embedded engine behind real sockets: real speech in, real speech out."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.audio.vad import SileroVad
from app.client.messages import Event
from app.client.nls import NlsClient
from app.serving.worker.segmenting import SegmentingRecognition
from tests.support.live import live_server
from tests.support.sound import Int16, joined, silence

INSTALLED = all(
    importlib.util.find_spec(module) is not None for module in ("pocketsphinx", "espeakng_loader")
)
if not INSTALLED and os.environ.get("REQUIRE_ALL") == "1":
    raise RuntimeError("the embedded extra is missing: pip install -e '.[embedded]'")
pytestmark = pytest.mark.skipif(not INSTALLED, reason="needs pip install -e '.[embedded]'")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> Int16:
    with wave.open(str(EXAMPLES / f"{name}.wav")) as audio:
        assert (audio.getframerate(), audio.getnchannels()) == (16_000, 1)
        return np.frombuffer(audio.readframes(audio.getnframes()), dtype=np.int16)


def lines(name: str) -> list[str]:
    return (EXAMPLES / f"{name}.txt").read_text().split("\n")[:-1]


def ends(events: list[Event]) -> list[Event]:
    return [event for event in events if event.name == "SentenceEnd"]


def at_rms(samples: Int16, rms: float) -> Int16:
    now = float(np.sqrt(np.mean((samples / 32768) ** 2)))
    return (samples * (rms / now)).astype(np.int16)


@pytest.mark.parametrize("name", ["hello", "music", "three_sentences"])
async def test_the_examples_are_recognised_by_rest(tmp_path: Path, name: str) -> None:
    body = (EXAMPLES / f"{name}.wav").read_bytes()
    async with (
        live_server(tmp_path, asr="embedded", tts=None) as live,
        httpx.AsyncClient(base_url=live.http, timeout=30) as http,
    ):
        answer = await http.post("/stream/v1/asr", params={"format": "wav"}, content=body)
    assert answer.json()["result"].split() == " ".join(lines(name)).split()


@pytest.mark.parametrize(("silence_ms", "sentences"), [(800, 3), (3000, 1)])
async def test_three_spoken_sentences_with_gaps(
    tmp_path: Path, silence_ms: int, sentences: int
) -> None:
    audio = example("three_sentences").tobytes()
    async with live_server(tmp_path, asr="embedded", tts=None) as live:
        events = await NlsClient(live.ws).transcribe(
            audio, max_sentence_silence=silence_ms, enable_words=True
        )
    found = ends(events)
    assert len(found) == sentences
    heard = " ".join(event.payload["result"] for event in found)
    assert heard.split() == " ".join(lines("three_sentences")).split()
    for event in found:
        payload = event.payload
        times = [(word["startTime"], word["endTime"]) for word in payload["words"]]
        assert times == sorted(times)
        assert times[0][0] >= payload["begin_time"]
        assert times[-1][1] <= payload["time"]
        assert "confidence" not in payload


async def test_partials_come_before_the_end(tmp_path: Path) -> None:
    async with live_server(tmp_path, asr="embedded", tts=None) as live:
        events = await NlsClient(live.ws).transcribe(
            example("music").tobytes(), enable_intermediate_result=True
        )
    names = [event.name for event in events]
    assert names.index("TranscriptionResultChanged") < names.index("SentenceEnd")


async def test_far_away_speech_is_no_sentence_and_later_times_are_unchanged(
    tmp_path: Path,
) -> None:
    speech = example("music")
    far = joined(at_rms(speech, 0.005), silence(1500), speech)
    nothing = joined(silence(len(speech) // 16), silence(1500), speech)
    async with live_server(tmp_path, asr="embedded", tts=None) as live:
        client = NlsClient(live.ws)
        with_far = ends(await client.transcribe(far.tobytes()))
        without = ends(await client.transcribe(nothing.tobytes()))
    assert [event.payload["result"] for event in with_far] == lines("music")
    for key in ("begin_time", "time"):
        assert abs(with_far[0].payload[key] - without[0].payload[key]) <= 32  # one VAD window


async def test_a_short_utterance_followed_by_stop_is_a_sentence(tmp_path: Path) -> None:
    speech = example("hello")
    loud = int(np.argmax(np.abs(speech) > 6000))
    short = speech[loud : loud + 16 * 200]
    async with live_server(tmp_path, asr="embedded", tts=None) as live:
        events = await NlsClient(live.ws).transcribe(short.tobytes())
    (end,) = ends(events)
    assert end.payload["time"] <= 200
    assert end.payload["result"]


async def test_twenty_streams_share_vad_calls_and_four_decoders(tmp_path: Path) -> None:
    speech = example("hello")
    async with live_server(tmp_path, asr="embedded", tts=None, max_streams=20) as live:
        client = NlsClient(live.ws)
        results = await asyncio.gather(*(client.transcribe(speech.tobytes()) for _ in range(20)))
        recognition = live.workers[0].recognition
        assert isinstance(recognition, SegmentingRecognition)
        windows_each = -(-len(speech) // 512)
        assert isinstance(recognition.vad, SileroVad)
        assert recognition.vad.calls < 20 * windows_each / 2
        assert live.workers[0].active == 0
    for events in results:
        assert [event.payload["result"] for event in ends(events)] == lines("hello")


async def test_presets_and_cloud_names_speak(tmp_path: Path) -> None:
    async with live_server(tmp_path, asr=None, tts="embedded") as live:
        async with httpx.AsyncClient(base_url=live.http) as http:
            for voice, text in [("中文女", "你好，世界。"), ("xiaoyun", "今天3.14元"),
                                ("英文男", "Hello."), ("韩语女", "안녕하세요"),
                                ("longxiaochun", "2026年11月20日")]:  # fmt: skip
                answer = await http.post(
                    "/stream/v1/tts", json={"text": text, "voice": voice, "format": "wav"}
                )
                assert answer.headers["content-type"] == "audio/mpeg", answer.text
                with wave.open(io.BytesIO(answer.content)) as audio:
                    assert audio.getnframes() > 4_000
                    samples = np.frombuffer(audio.readframes(10**7), dtype=np.int16)
                assert np.abs(samples).max() > 3_000
            refused = await http.post("/stream/v1/tts", json={"text": "a", "voice": "nobody"})
        assert refused.json()["status"] == 40000003
