"""Streams and syntheses while workers are killed, stopped and drained on a seeded schedule: every
stream hears all of its audio, every synthesis has its own to the sample. Two minutes here;
`make soak` runs it longer (SOAK_SECONDS, SOAK_SEED)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from app.client.nls import NlsClient
from app.serving.rolling import request_restart, socket_name
from app.serving.runtime_folder import find
from tests.support.process import Served, counted, serving
from tests.support.sound import Int16, joined, main_frequency, silence, tone

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
STREAMS, SPEAKERS = 40, 20

pytestmark = [
    pytest.mark.timeout(SECONDS + 150),
    pytest.mark.xdist_group("processes"),  # real processes: one test of them at a time
]


class Load:
    """Clients that work one task after the other until the time is over."""

    def __init__(self, served: Served) -> None:
        self.client = NlsClient(served.ws)
        self.until = time.monotonic() + SECONDS
        self.streams = 0
        self.texts = 0

    async def stream(self, number: int) -> None:
        chance = random.Random(f"{SEED}/{number}")
        while time.monotonic() < self.until:
            lengths = [chance.randrange(300, 3_000, 10) for _ in range(chance.randint(1, 3))]
            audio = joined(*(part for ms in lengths for part in (tone(ms), silence(1_200))))
            events = await self.client.transcribe(_frames(audio, chance))
            heard = [each.payload["result"] for each in events if each.name == "SentenceEnd"]
            assert heard == [f"heard {ms} ms" for ms in lengths]
            self.streams += 1

    async def speaker(self, number: int) -> None:
        chance = random.Random(f"{SEED}/speaker/{number}")
        while time.monotonic() < self.until:
            letter = chance.choice("abcdefghijklmnopqrstuvwxyz")
            text = letter * chance.randrange(5, 60)
            pcm = await self.client.synthesize(text, sample_rate=24_000)
            audio = np.frombuffer(pcm, dtype=np.int16)
            assert len(audio) == len(text) * 4_800
            assert abs(main_frequency(audio, 24_000) - (200 + ord(letter) % 50 * 20)) < 2
            self.texts += 1


async def _frames(audio: Int16, chance: random.Random) -> AsyncIterator[bytes]:
    pcm, size = audio.tobytes(), chance.choice([3_200, 1_920, 1_111])
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]
        await asyncio.sleep(size / 32_000 / 2)  # twice real time


async def disturb(served: Served, until: float) -> Counter[str]:
    """Kill, stop or drain workers, the next one when all are ready again. Returns how often."""
    chance = random.Random(SEED)
    done: Counter[str] = Counter()
    began = time.monotonic()

    def tell(what: str, whom: object) -> None:
        print(f"seed {SEED}, {time.monotonic() - began:.2f} s: {what} {whom}")  # shown on failure

    async with httpx.AsyncClient(base_url=served.http, timeout=5) as http:
        while time.monotonic() < until:
            what = chance.choice(["kill", "stop", "drain"])
            if what == "drain":
                names = ["asr-0", "asr-1", "tts-0", "tts-1"]
                name = chance.choice(names)
                tell(what, name)
                await asyncio.to_thread(_drain, served, name)
            else:
                victim = chance.choice(served.children("app.serving.worker"))
                tell(what, victim.pid)
                victim.send_signal(signal.SIGKILL if what == "kill" else signal.SIGSTOP)
                await asyncio.sleep(1.0)  # before its death is seen, all look ready
            done[what] += 1
            await _all_ready(http)
    return done


def _drain(served: Served, worker: str) -> None:
    path = find(socket_name(served.port))
    assert path is not None
    *_, last = request_restart(path, [worker])
    assert last == {"done": 1}


async def _all_ready(http: httpx.AsyncClient) -> None:
    while True:
        health = (await http.get("/health")).json()
        if all(replica["ready"] for replica in health["replicas"]):
            return
        await asyncio.sleep(0.1)


async def _all_idle(http: httpx.AsyncClient) -> None:
    """Whichever API process answers, the workers have told it by and by."""
    async with asyncio.timeout(30):
        while True:
            health = (await http.get("/health")).json()
            if [replica["active"] for replica in health["replicas"]] == [0, 0, 0, 0]:
                return
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_nothing_is_lost_cut_or_doubled(tmp_path: Path) -> None:
    settings = {"ASR_GPUS": "cpu,cpu", "TTS_GPUS": "cpu,cpu", "FAKE_TTS_DELAY_MS": "20"}
    async with serving(tmp_path, HANG_TIMEOUT_SECONDS="2", **settings) as served:
        load = Load(served)
        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                group.create_task(load.stream(number))
            for number in range(SPEAKERS):
                group.create_task(load.speaker(number))
            disturbing = group.create_task(disturb(served, load.until - 5))
        assert min(disturbing.result()[what] for what in ("kill", "stop", "drain")) > 0
        assert load.streams >= STREAMS
        assert load.texts >= SPEAKERS
        assert await counted(served, "tasks_repeated_total") > 0
        async with httpx.AsyncClient(base_url=served.http) as http:
            await _all_ready(http)
            await _all_idle(http)
        family = psutil.Process(served.process.pid).children(recursive=True)
        assert await served.stop() == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
