"""The FunASR engine behind the real server, with small random models: what clients get is what the
engine itself makes of the same sentences, however many others there are, and whatever they do.

Where sentences begin and end is told by loudness here, so that a test knows. Random models answer
to every sample: two texts are equal only if exactly the same audio was heard.
"""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import psutil
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from app.audio.pcm import Int16
from app.client.messages import Event
from app.client.nls import NlsClient
from app.engines import registry
from app.engines.base import (
    Hypothesis,
    OfflineCapabilities,
    OfflineRecognizer,
    RecognizerParts,
    Segment,
)
from app.engines.funasr.recognizer import StreamingRecognizer
from app.text.inverse import inverse_normalize
from tests.support import random_offline, random_paraformer
from tests.support.encoded import encoded
from tests.support.live import Live, live_server
from tests.support.loud_vad import LoudVad
from tests.support.process import Served, eventually, serving
from tests.support.sound import joined, silence

ROOT: Final = Path(__file__).parents[2]
FRAME: Final = 3_200
SLOTS: Final = 16
PATIENT: Final = 60_000
"""The second pass may take so long (ms): no text of the first pass goes out in its place."""

NUMERALS: Final = "零一二三四五六七八九十百"
TELEPHONE: Final = 0x5E00
"""From here on are the characters of the model for 8 kHz."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Models whose texts tell which of them it was: the second pass hears numerals."""
    folder = tmp_path_factory.mktemp("models")
    names = random_offline.characters(400)
    names[3:-1] = [NUMERALS[k % len(NUMERALS)] for k in range(len(names) - 4)]
    narrow = random_offline.paraformer(folder / "narrow", seed=5, sample_rate=8_000)
    names_8k = random_offline.characters()
    names_8k[3:-1] = [chr(TELEPHONE + k) for k in range(len(names_8k) - 4)]
    (narrow / "tokens.json").write_text(json.dumps(names_8k), "utf-8")
    return {
        "FUNASR_STREAMING_MODEL": str(random_paraformer.write_streaming(folder / "streaming")),
        "FUNASR_OFFLINE_MODEL": str(random_offline.sensevoice(folder / "offline", names=names)),
        "FUNASR_PUNCTUATION_MODEL": str(random_offline.punctuation(folder / "p", realtime=False)),
        "FUNASR_OFFLINE_MODEL_8K": str(narrow),
        "FUNASR_VAD_MODEL": "none",
        "FUNASR_SLOTS": SLOTS,
        "FUNASR_THREADS": 1,
        "OFFLINE": True,
    }


def load(settings: Mapping[str, object], **changed: object) -> RecognizerParts:
    engine = registry.load("funasr").recognizer("cpu", {**settings, **changed}, lambda doing: None)
    assert isinstance(engine, RecognizerParts)
    # Windows of 10 ms: on the grid on which a repeated stream begins.
    return replace(engine, detector=LoudVad(160))


@pytest.fixture(scope="module")
def parts(settings: dict[str, object]) -> RecognizerParts:
    """Without a model for 8 kHz."""
    return load(settings, FUNASR_OFFLINE_MODEL_8K="none")


@pytest.fixture(scope="module")
def both_rates(settings: dict[str, object]) -> RecognizerParts:
    return load(settings)


class Listening:
    """An offline part, and what it was asked."""

    def __init__(self, offline: OfflineRecognizer) -> None:
        self._offline = offline
        self.heard: list[Segment] = []

    @property
    def capabilities(self) -> OfflineCapabilities:
        return self._offline.capabilities

    def recognize(self, batch: Sequence[Segment]) -> Sequence[Hypothesis | Exception]:
        self.heard += batch
        return self._offline.recognize(batch)


@asynccontextmanager
async def served(folder: Path, parts: RecognizerParts) -> AsyncIterator[tuple[Live, Listening]]:
    """The engine behind a server; at the end none of its slots is lent."""
    assert parts.offline is not None
    listening = Listening(parts.offline)
    engine = replace(parts, offline=listening)
    async with live_server(folder, tts=None, asr=engine, second_pass_budget_ms=PATIENT) as live:
        yield live, listening
        await until_idle(live)
    assert_no_slot_is_lent(parts)


def assert_no_slot_is_lent(parts: RecognizerParts) -> None:
    if parts.streaming is not None:
        assert isinstance(parts.streaming, StreamingRecognizer)
        assert len(parts.streaming._free) == SLOTS


async def until_idle(live: Live) -> None:
    async with asyncio.timeout(20):
        while any(worker.active for worker in live.workers):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)


def speech(seed: int, ms: int, rate: int = 16_000) -> Int16:
    """Loud and always different."""
    sound = random_offline.noise(seed, ms * rate // 1000)
    loud: Int16 = (np.clip(sound * 1.5, -1, 1) * 32_767).astype(np.int16)
    return loud


def talk(seed: int) -> Int16:
    """Two sentences, the first of about two seconds."""
    first, second = 1_700 + 130 * (seed % 5), 900 + 170 * (seed % 4)
    return joined(
        silence(500), speech(seed, first), silence(1_200),
        speech(seed + 500, second), silence(1_200),
    )  # fmt: skip


async def transcribe(live: Live, audio: Int16, **options: Any) -> list[Event]:
    return await NlsClient(live.ws).transcribe(audio.tobytes(), **options)


def ends(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [event.payload for event in events if event.name == "SentenceEnd"]


def texts(events: Sequence[Event]) -> list[str]:
    return [str(end["result"]) for end in ends(events)]


def interims(events: Sequence[Event]) -> list[str]:
    changed = [event for event in events if event.name == "TranscriptionResultChanged"]
    return [str(event.payload["result"]) for event in changed]


def finals(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    keys = ("index", "begin_time", "time", "result", "words")
    return [tuple(end.get(key) for key in keys) for end in ends(events)]


def finished(parts: RecognizerParts, segment: Segment) -> str:
    """What the engine's own parts make of a sentence, one after the other."""
    assert parts.offline is not None
    assert parts.punctuator is not None
    (found,) = parts.offline.recognize([segment])
    assert isinstance(found, Hypothesis)
    if found.finished:
        return found.text
    (text,) = (
        parts.punctuator.punctuate([found.text]) if segment.options.punctuation else (found.text,)
    )
    return inverse_normalize(text) if segment.options.inverse_text_normalization else text


# What one client gets


@pytest.mark.parametrize("figures", [False, True])
@pytest.mark.parametrize("punctuation", [False, True])
async def test_final_texts_are_the_engine_s_own(
    tmp_path: Path, parts: RecognizerParts, punctuation: bool, figures: bool
) -> None:
    audio = talk(1)
    async with served(tmp_path, parts) as (live, listening):
        events = await transcribe(
            live,
            audio,
            enable_intermediate_result=True,
            enable_punctuation_prediction=punctuation,
            enable_inverse_text_normalization=figures,
        )
    assert len(listening.heard) == 2
    for segment in listening.heard:
        assert segment.options.punctuation == punctuation
        heard = np.round(segment.samples * 32_768).astype(np.int16)
        assert heard.tobytes() in audio.tobytes()
    assert texts(events) == [finished(parts, segment) for segment in listening.heard]
    plain = [finished(parts, plainly(segment)) for segment in listening.heard]
    assert all(len(text) > 4 and set(text) <= set(NUMERALS) for text in plain)
    assert (texts(events) == plain) == (not (punctuation or figures))
    assert interims(events)
    assert not set("".join(interims(events))) & set("，。？、")


def plainly(segment: Segment) -> Segment:
    options = msgspec.structs.replace(
        segment.options, punctuation=False, inverse_text_normalization=False
    )
    return Segment(segment.samples, options)


async def test_words_are_inside_their_sentences(tmp_path: Path, parts: RecognizerParts) -> None:
    async with served(tmp_path, parts) as (live, _):
        events = await transcribe(live, talk(2), enable_words=True)
        without = await transcribe(live, talk(2))
    assert len(ends(events)) == 2
    assert texts(events) == texts(without)
    for end in ends(events):
        assert "".join(word["text"] for word in end["words"]) == end["result"]
        times = [time for word in end["words"] for time in (word["startTime"], word["endTime"])]
        assert times == sorted(times)
        assert end["begin_time"] <= times[0] < times[-1] <= end["time"]
    assert all("words" not in end for end in ends(without))


@pytest.mark.parametrize("mode", ["realtime", "offline", "all"])
async def test_modes(tmp_path: Path, settings: dict[str, object], mode: str) -> None:
    parts = load(settings, ASR_MODEL_MODE=mode)
    assert (parts.streaming is not None, parts.offline is not None) == (
        mode != "offline",
        mode != "realtime",
    )
    async with live_server(tmp_path, tts=None, asr=parts, second_pass_budget_ms=PATIENT) as live:
        events = await transcribe(live, talk(3), enable_intermediate_result=True)
        posted = await post(live, talk(3).tobytes())
        await until_idle(live)
    assert_no_slot_is_lent(parts)
    assert len(texts(events)) == 2
    assert all(texts(events))
    assert bool(interims(events)) == (mode != "offline")
    by_second_pass = set("".join(texts(events))) <= set(NUMERALS)
    assert by_second_pass == (mode != "realtime")
    assert posted and (set(posted) <= set(NUMERALS)) == (mode != "realtime")


async def post(live: Live, body: bytes, **query: Any) -> str:
    async with httpx.AsyncClient(base_url=live.http, timeout=60) as http:
        answer = await http.post("/stream/v1/asr", params=query, content=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"])


@pytest.mark.parametrize("kind", ["clipping", "square", "constant", "silence", "click"])
async def test_hard_audio_is_fine(tmp_path: Path, parts: RecognizerParts, kind: str) -> None:
    time = np.arange(32_000)
    hard: dict[str, Any] = {
        "clipping": np.clip(random_offline.noise(9, 32_000) * 1e6, -32_768, 32_767),
        "square": np.where(time // 40 % 2, 32_767, -32_768),
        "constant": np.full(32_000, 32_767),
        "silence": np.zeros(32_000),
        "click": np.where(time == 16_000, 32_767, 0),
    }
    audio = joined(hard[kind].astype(np.int16), silence(1_200))
    async with served(tmp_path, parts) as (live, _):
        events, beside = await asyncio.gather(
            transcribe(live, audio, enable_intermediate_result=True), transcribe(live, talk(4))
        )
        alone = await transcribe(live, talk(4))
    assert events[-1].name == "TranscriptionCompleted"
    assert len(ends(events)) == (kind not in ("silence", "click"))
    assert finals(beside) == finals(alone)


# Many clients


async def paced(audio: Int16) -> AsyncIterator[bytes]:
    """As a microphone sends it, but for the pauses, which are shorter."""
    pcm = audio.tobytes()
    for start in range(0, len(pcm), FRAME):
        yield pcm[start : start + FRAME]
        await asyncio.sleep(0.005)


async def paced_transcription(live: Live, audio: Int16) -> list[Event]:
    return await NlsClient(live.ws).transcribe(
        paced(audio), enable_intermediate_result=True, enable_words=True
    )


async def test_twelve_streams_give_what_each_gives_alone(
    tmp_path: Path, parts: RecognizerParts
) -> None:
    talks = [talk(seed) for seed in range(12)]
    async with served(tmp_path, parts) as (live, _):
        alone = [await transcribe(live, audio, enable_words=True) for audio in talks]
        together = await asyncio.gather(*(paced_transcription(live, audio) for audio in talks))
    assert [finals(events) for events in together] == [finals(events) for events in alone]
    assert len({text for events in alone for text in texts(events)}) == 24
    assert all(interims(events) for events in together)


async def test_floods_and_vanishing_clients_harm_nobody(
    tmp_path: Path, parts: RecognizerParts
) -> None:
    talks = [talk(20 + seed) for seed in range(4)]
    flood = joined(*(talk(30 + k) for k in range(10)))
    assert len(flood) > 50 * 16_000
    async with served(tmp_path, parts) as (live, _):
        alone = [await transcribe(live, audio, enable_words=True) for audio in talks]
        flooded_alone = await transcribe(live, flood)
        vanishing = [asyncio.create_task(vanish(live, talk(40 + k))) for k in range(4)]
        flooding = asyncio.create_task(transcribe(live, flood))
        together = await asyncio.gather(*(paced_transcription(live, audio) for audio in talks))
        flooded = await flooding
        await asyncio.gather(*vanishing)
    assert [finals(events) for events in together] == [finals(events) for events in alone]
    assert finals(flooded) == finals(flooded_alone)
    assert len(texts(flooded)) == 20


async def vanish(live: Live, audio: Int16) -> None:
    """Go away in the middle of a sentence, without a word."""
    async with NlsClient(live.ws).transcriber(enable_intermediate_result=True) as task:
        await task.send(audio[: 16_000 * 3 // 2].tobytes())
        async for event in task.events():
            if event.name == "TranscriptionResultChanged":
                return


async def test_a_stream_gives_the_same_when_its_worker_is_lost(
    tmp_path: Path, parts: RecognizerParts
) -> None:
    async with served(tmp_path, parts) as (live, _):
        alone = await transcribe(live, talk(6), enable_words=True)
        async with NlsClient(live.ws).transcriber(
            enable_intermediate_result=True, enable_words=True
        ) as task:
            pcm = talk(6).tobytes()
            await task.send(pcm[: 2 * 16_000 * 2])
            events = task.events()
            seen = [await anext(events) for _ in range(2)]
            live.cut(live.workers[0])
            await task.send(pcm[2 * 16_000 * 2 :])
            await task.stop()
            seen += [event async for event in events]
    assert finals(seen) == finals(alone)


# Audio that comes at 8 kHz


def is_narrow(text: str) -> bool:
    assert text
    from_8k = [TELEPHONE <= ord(each) < TELEPHONE + random_offline.CHARACTERS for each in text]
    assert all(from_8k) or not any(from_8k)
    return from_8k[0]


def at_8k(seed: int) -> Int16:
    return joined(silence(300, 8_000), speech(seed, 1_500, 8_000), silence(900, 8_000))


@pytest.mark.parametrize(
    ("format", "declared", "rate", "narrow"),
    [
        ("pcm", 8_000, 8_000, True),
        ("pcm", 16_000, 16_000, False),
        ("wav-s16", 16_000, 8_000, True),  # a header overrules what the client says
        ("wav-s16", 8_000, 16_000, False),
        ("wav-mulaw", 16_000, 8_000, True),
        ("flac", 16_000, 8_000, True),
        ("amr", 16_000, 8_000, True),
        ("wav-s16", 16_000, 11_025, False),
        ("ogg-opus", 8_000, 8_000, True),  # Opus is always at 48 kHz: the client's word counts
        ("ogg-opus", 16_000, 16_000, False),
    ],
)
async def test_the_rate_of_the_audio_chooses_the_model_of_a_file(
    tmp_path: Path,
    both_rates: RecognizerParts,
    format: str,
    declared: int,
    rate: int,
    narrow: bool,
) -> None:
    body = encoded(format, speech(7, 1_500, rate), rate)
    async with served(tmp_path, both_rates) as (live, listening):
        kind = format.partition("-")[0].replace("ogg", "opus")
        found = await post(live, body, format=kind, sample_rate=declared)
    (segment,) = listening.heard
    assert is_narrow(found) == narrow
    assert found == finished(both_rates, segment)
    assert (segment.options.source_rate <= 8_000) == narrow


async def test_streams_of_both_rates_share_a_batch(
    tmp_path: Path, both_rates: RecognizerParts
) -> None:
    async def told(live: Live, seed: int, rate: int) -> list[Event]:
        audio = at_8k(seed) if rate == 8_000 else talk(seed)
        return await NlsClient(live.ws).transcribe(
            paced(audio), sample_rate=rate, enable_words=True, enable_intermediate_result=True
        )

    rates = [8_000, 16_000] * 4
    async with served(tmp_path, both_rates) as (live, _):
        alone = [await told(live, seed, rate) for seed, rate in enumerate(rates)]
        together = await asyncio.gather(
            *(told(live, seed, rate) for seed, rate in enumerate(rates))
        )
    assert [finals(events) for events in together] == [finals(events) for events in alone]
    for events, rate in zip(together, rates, strict=True):
        assert all(is_narrow(text) == (rate == 8_000) for text in texts(events))
        assert not any(is_narrow(text) for text in interims(events))  # none streams at 8 kHz
        for end in ends(events):
            times = [time for word in end["words"] for time in (word["startTime"], word["endTime"])]
            assert end["begin_time"] <= times[0] <= times[-1] <= end["time"]


async def test_without_a_model_for_8_khz_the_other_one_hears_it(
    tmp_path: Path, parts: RecognizerParts
) -> None:
    async with served(tmp_path, parts) as (live, listening):
        found = await post(live, at_8k(3).tobytes(), sample_rate=8_000)
    assert not is_narrow(found)
    assert [segment.options.source_rate for segment in listening.heard] == [8_000]


# Real processes


def hello(turn: int) -> bytes:
    """Somebody speaks from the beginning on, so that a repetition begins there too; in another
    pitch for each ``turn``."""
    with wave.open(str(ROOT / "examples" / "hello.wav")) as file:
        assert file.getframerate() == 16_000
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    spoken = samples[16_000 * 3 // 10 :].astype(np.float64)
    places = np.arange(0, len(spoken) - 1, 1.0 + 0.05 * turn)
    pitched: Int16 = np.interp(places, np.arange(len(spoken)), spoken).astype(np.int16)
    return pitched.tobytes()


async def active(served: Served) -> dict[str, float]:
    """Streams of each recogniser."""
    async with httpx.AsyncClient(base_url=served.http, timeout=30) as http:
        text = (await http.get("/metrics")).text
    return {
        next(iter(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "funspeech_replica_active" and "asr-" in str(sample.labels)
    }


def recognisers(served: Served) -> list[psutil.Process]:
    return [
        child
        for child in served.children("app.serving.worker")
        if any("libtorch" in each.path for each in child.memory_maps())
    ]


@pytest.mark.xdist_group("processes")  # real processes: one at a time
@pytest.mark.own_workers
async def test_replicas_share_the_streams_and_take_over(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    environment = {name: str(value) for name, value in settings.items()}
    async with serving(
        tmp_path,
        **environment,
        ASR_ENGINE="funasr",
        ASR_GPUS="cpu,cpu",
        ASR_SECOND_PASS_BUDGET_MS=str(PATIENT),
        MAX_STREAMS=str(SLOTS),
    ) as server:
        await eventually(lambda: len(recognisers(server)) == 2)
        client = NlsClient(server.ws)
        alone = [await client.transcribe(hello(turn)) for turn in range(6)]
        assert len({text for events in alone for text in texts(events)}) == 6
        speaking = asyncio.Semaphore(0)
        killed = asyncio.Event()
        streams = [
            asyncio.create_task(_speak_around(client, hello(turn), speaking, killed))
            for turn in range(6)
        ]
        async with asyncio.timeout(60):
            for _ in streams:
                await speaking.acquire()
        shares = (await active(server)).values()
        assert len(shares) == 2 and min(shares) > 0 and sum(shares) == 6
        victim, _ = recognisers(server)
        victim.kill()
        killed.set()
        together = await asyncio.gather(*streams)
    assert [texts(events) for events in together] == [texts(events) for events in alone]


async def _speak_around(
    client: NlsClient, pcm: bytes, speaking: asyncio.Semaphore, killed: asyncio.Event
) -> list[Event]:
    """Send a part, and the rest when a worker has been killed."""
    middle = len(pcm) // 2 - len(pcm) // 2 % 2
    async with client.transcriber(enable_intermediate_result=True) as task:
        await task.send(pcm[:middle])
        events = task.events()
        seen = [await anext(events)]
        speaking.release()
        await killed.wait()
        await task.send(pcm[middle:])
        await task.stop()
        return seen + [event async for event in events]
