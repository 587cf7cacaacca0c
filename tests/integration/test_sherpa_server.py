"""The sherpa-onnx engine behind the real server, on the real runtime, with tiny models in folders.

They hear tones, so the text of a sound is known. Where sentences begin and end tells silero, the
server's own VAD: the tones are over a hum that it takes for a voice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import onnx
import psutil
import pytest
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker
from prometheus_client.parser import text_string_to_metric_families

from app.audio.pcm import Float32, Int16
from app.client.messages import Event
from app.client.nls import NlsClient
from app.engines import registry
from app.engines.base import RecognizerParts
from app.engines.sherpa.streaming import StreamingRecognizer
from tests.support.live import Live, live_server
from tests.support.process import Served, eventually, serving
from tests.support.sherpa import paraformer, punctuation, sense_voice, zipformer1, zipformer2
from tests.support.sherpa.tones import LETTERS, hummed

RATE: Final = 16_000
FRAME: Final = 3_200
STREAMS: Final = 20
PATIENT: Final = "60000"
"""The second pass may take so long (ms): no text of the first pass goes out in its place."""
LOW: Final = LETTERS[:6]
"""Letters whose tones are in audio of 8 kHz, too."""

STREAMING: dict[str, Callable[[Path], Path]] = {
    "zipformer2": zipformer2.transducer,
    "zipformer1": zipformer1.transducer,
    "ctc": zipformer2.ctc,
    "paraformer": paraformer.streaming,
}


def environment(folder: Path, **changed: str) -> dict[str, str]:
    """Settings of a server with models of all parts."""
    return {
        "ASR_ENGINE": "sherpa",
        "SHERPA_STREAMING_MODEL": str(zipformer2.transducer(folder / "zipformer")),
        "SHERPA_OFFLINE_MODEL": str(sense_voice.sense_voice(folder / "sense-voice")),
        "SHERPA_PUNCTUATION_MODEL": str(punctuation.ct_transformer(folder / "ct")),
        "ASR_SECOND_PASS_BUDGET_MS": PATIENT,
        "MAX_STREAMS": "32",
        **changed,
    }


def pcm(sound: Float32) -> Int16:
    found: Int16 = (np.clip(sound, -1, 1) * 32_767).astype(np.int16)
    return found


def said(seed: int, letters: str = LETTERS, count: int = 8) -> str:
    return "".join(np.random.default_rng(seed).choice(list(letters), count))


async def paced(audio: Int16) -> AsyncIterator[bytes]:
    """As a microphone sends it, but for the pauses, which are shorter."""
    data = audio.tobytes()
    for start in range(0, len(data), FRAME):
        yield data[start : start + FRAME]
        await asyncio.sleep(0.02)


def ends(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [event.payload for event in events if event.name == "SentenceEnd"]


def texts(events: Sequence[Event]) -> list[str]:
    return [str(end["result"]) for end in ends(events)]


def interims(events: Sequence[Event]) -> list[str]:
    changed = [event for event in events if event.name == "TranscriptionResultChanged"]
    return [str(event.payload["result"]) for event in changed]


async def post(server: Served, audio: Int16, **query: Any) -> str:
    async with httpx.AsyncClient(base_url=server.http, timeout=60) as http:
        answer = await http.post("/stream/v1/asr", params=query, content=audio.tobytes())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"])


async def measured(server: Served, name: str) -> float:
    """A figure of the recogniser's steps."""
    async with httpx.AsyncClient(base_url=server.http, timeout=30) as http:
        text = (await http.get("/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.get("service") == "recognise"
    )


def recogniser(server: Served) -> psutil.Process:
    """The worker that has the runtime in it."""
    (found,) = (
        child
        for child in server.children("app.serving.worker")
        if any("sherpa" in each.path for each in child.memory_maps())
    )
    return found


def outputs(process: psutil.Process) -> list[str]:
    """Where its standard output and standard error lead."""
    return [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (1, 2)]


# Real processes


@pytest.mark.xdist_group("processes")  # real processes: one at a time
@pytest.mark.own_workers
async def test_what_clients_get(tmp_path: Path) -> None:
    text = "今天天气你好世界"
    audio = pcm(hummed(text))
    async with serving(tmp_path, **environment(tmp_path)) as server:
        assert (
            "zipformer (zh), second pass sense-voice, punctuation ct; on the CPU" in server.banner
        )
        client = NlsClient(server.ws)
        for marks in (False, True):
            for figures in (False, True):
                events = await client.transcribe(
                    audio.tobytes(),
                    enable_intermediate_result=True,
                    enable_words=True,
                    enable_punctuation_prediction=marks,
                    enable_inverse_text_normalization=figures,
                )
                (end,) = ends(events)
                assert end["result"] == text + "。" * marks
                # Only the second pass tells.
                assert (end["language"], end["emotion"]) == ("zh", "happy")
                assert [word["text"] for word in end["words"]] == list(text)
                times = [at for word in end["words"] for at in (word["startTime"], word["endTime"])]
                assert end["begin_time"] <= times[0] and times[-1] <= end["time"]
                assert times == sorted(times)
                heard = interims(events)
                assert len(heard) > 3 and all(text.startswith(each) for each in heard)
        two = np.concatenate([audio, pcm(hummed("明明今"))])
        assert texts(await client.transcribe(two.tobytes())) == [text, "明明今"]
        assert await post(server, audio) == text
        assert await post(server, audio, enable_punctuation_prediction="true") == f"{text}。"
        low = said(3, LOW)
        narrow = pcm(soxr.resample(hummed(low), RATE, 8_000))
        assert await post(server, narrow, sample_rate=8_000) == low
        events = await client.transcribe(
            narrow.tobytes(), sample_rate=8_000, enable_intermediate_result=True
        )
        assert texts(events) == [low]
        assert interims(events)[-1] and low.startswith(interims(events)[-1])
        assert await post(server, pcm(np.zeros(RATE, np.float32))) == ""
        # What the runtime writes of people's words goes nowhere.
        assert outputs(recogniser(server)) == ["/dev/null"] * 2
        log = "".join(server.output) + server.log_file.read_text("utf-8")
    assert not set(log) & set(LETTERS)


@pytest.mark.xdist_group("processes")
@pytest.mark.own_workers
async def test_twenty_streams_share_steps_and_survive_their_worker(tmp_path: Path) -> None:
    spoken = [said(seed) for seed in range(STREAMS)]
    sounds = [pcm(hummed(text, lead_ms=100 + 37 * i)) for i, text in enumerate(spoken)]
    async with serving(tmp_path, **environment(tmp_path)) as server:
        client = NlsClient(server.ws)
        together = await asyncio.gather(
            *(client.transcribe(paced(sound), enable_intermediate_result=True) for sound in sounds)
        )
        assert [texts(events) for events in together] == [[text] for text in spoken]
        for events, text in zip(together, spoken, strict=True):
            assert interims(events)
            assert all(text.startswith(each) for each in interims(events))
        steps = await measured(server, "funspeech_step_streams_count")
        streams = await measured(server, "funspeech_step_streams_sum")
        assert streams > 1.5 * steps > 0
        # The same again, and their worker dies in the middle.
        speaking, killed = asyncio.Semaphore(0), asyncio.Event()
        tasks = [
            asyncio.create_task(speak_around(client, sound, speaking, killed))
            for sound in sounds[:8]
        ]
        async with asyncio.timeout(60):
            for _ in tasks:
                await speaking.acquire()
        victim = recogniser(server)
        victim.kill()
        killed.set()
        survived = await asyncio.gather(*tasks)
        await eventually(lambda: recogniser(server).pid != victim.pid)
    assert [texts(events) for events in survived] == [[text] for text in spoken[:8]]


async def speak_around(
    client: NlsClient, audio: Int16, speaking: asyncio.Semaphore, killed: asyncio.Event
) -> list[Event]:
    """Send most of it, and the rest when the worker has been killed."""
    data = audio.tobytes()
    middle = FRAME * (len(data) * 3 // 5 // FRAME)
    async with client.transcriber(enable_intermediate_result=True) as task:
        await task.send(data[:middle])
        events = task.events()
        seen = [await anext(events)]
        while seen[-1].name != "TranscriptionResultChanged":
            seen.append(await anext(events))
        speaking.release()
        await killed.wait()
        await task.send(data[middle:])
        await task.stop()
        return seen + [event async for event in events]


@pytest.mark.xdist_group("processes")
@pytest.mark.own_workers
async def test_whole_sentences_only(tmp_path: Path) -> None:
    settings = environment(tmp_path, ASR_MODEL_MODE="offline")
    async with serving(tmp_path, **settings) as server:
        assert "sense-voice (zh, yue, en, ja, ko), punctuation ct; on the CPU" in server.banner
        assert "zipformer" not in server.banner
        client = NlsClient(server.ws)
        spoken = [said(seed) for seed in range(6)]
        together = await asyncio.gather(
            *(
                client.transcribe(paced(pcm(hummed(text))), enable_intermediate_result=True)
                for text in spoken
            )
        )
        assert await post(server, pcm(hummed("你好"))) == "你好"
    assert [texts(events) for events in together] == [[text] for text in spoken]
    assert not any(interims(events) for events in together)


@pytest.mark.xdist_group("processes")
@pytest.mark.own_workers
async def test_a_model_that_ends_the_process_is_named_and_ends_the_start(tmp_path: Path) -> None:
    settings = environment(tmp_path)
    encoder = Path(settings["SHERPA_STREAMING_MODEL"]) / "encoder.onnx"
    model = onnx.load(str(encoder))
    del model.graph.output[3:]  # the runtime reads states beyond them
    onnx.save(model, str(encoder))
    told = "asr-0 ended 3 times before it was ready, at last by signal 11, loading zipformer"
    with pytest.raises(AssertionError, match=told):
        async with serving(tmp_path, **settings):
            pass


# One kind after the other


def engine(folder: Path, kind: str, **changed: object) -> RecognizerParts:
    settings: dict[str, object] = {
        "SHERPA_STREAMING_MODEL": str(STREAMING[kind](folder / kind)),
        "SHERPA_OFFLINE_MODEL": "none",
        "SHERPA_PUNCTUATION_MODEL": str(punctuation.ct_transformer(folder / "ct")),
        "ASR_ENABLE_REALTIME_PUNC": True,
        **changed,
    }
    found = registry.load("sherpa").recognizer("cpu", settings, lambda doing: None)
    assert isinstance(found, RecognizerParts)
    return found


async def until_idle(live: Live) -> None:
    async with asyncio.timeout(20):
        while any(worker.active for worker in live.workers):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", STREAMING)
async def test_a_single_pass_of_each_kind(tmp_path: Path, kind: str) -> None:
    parts = engine(tmp_path, kind)
    spoken = [said(seed) for seed in range(12)]
    sounds = [pcm(hummed(text, lead_ms=100 + 37 * i)) for i, text in enumerate(spoken)]
    async with live_server(tmp_path, tts=None, asr=parts, max_streams=32) as live:
        client = NlsClient(live.ws)
        together = await asyncio.gather(
            *(
                client.transcribe(
                    paced(sound),
                    enable_intermediate_result=True,
                    enable_punctuation_prediction=True,
                )
                for sound in sounds
            ),
            vanish(client, sounds[0]),
        )
        *together, _ = together
        moved = await moving(live, client, sounds[0])
        await until_idle(live)
    assert [texts(events) for events in together] == [[f"{text}。"] for text in spoken]
    assert texts(moved) == [spoken[0]]
    assert isinstance(parts.streaming, StreamingRecognizer)
    assert parts.streaming._opened == 0


async def test_streams_wait_for_a_slot(tmp_path: Path) -> None:
    parts = engine(tmp_path, "zipformer2", SHERPA_SLOTS=2)
    spoken = [(said(seed), said(100 + seed)) for seed in range(8)]
    async with live_server(tmp_path, tts=None, asr=parts, max_streams=32) as live:
        client = NlsClient(live.ws)
        together = await asyncio.gather(
            *(
                client.transcribe(paced(np.concatenate([pcm(hummed(text)) for text in both])))
                for both in spoken
            )
        )
        await until_idle(live)
    assert [texts(events) for events in together] == [list(both) for both in spoken]


async def vanish(client: NlsClient, audio: Int16) -> list[Event]:
    """Go away in the middle of a sentence, without a word."""
    async with client.transcriber(enable_intermediate_result=True) as task:
        await task.send(audio[: len(audio) // 2].tobytes())
        async for event in task.events():
            if event.name == "TranscriptionResultChanged":
                break
    return []


async def moving(live: Live, client: NlsClient, audio: Int16) -> list[Event]:
    """The connections to the worker break in the middle of a sentence."""
    data = audio.tobytes()
    middle = FRAME * (len(data) // 2 // FRAME)
    async with client.transcriber(enable_intermediate_result=True) as task:
        await task.send(data[:middle])
        events = task.events()
        seen = [await anext(events) for _ in range(2)]
        live.cut(live.workers[0])
        await task.send(data[middle:])
        await task.stop()
        return seen + [event async for event in events]
