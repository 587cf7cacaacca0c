"""How many streams the whole server sustains in real time: one stream in a step against sixteen,
and with its threads arranged in other ways. What is said of settings is of the FunASR engine.

Two servers run at a time and take turns, one of them idle, so that a slow minute of the machine is
not one server's alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import server
from benchmarks.asr_streams import Noticed, Timing, speak
from benchmarks.measure import percentile
from benchmarks.report import Figure

LIMIT_MS: Final = 1000.0
"""p99 of the lag that counts as real time."""

ENOUGH: Final = 0.5
"""Share of the chunks that must have had a result: a server that stands still has no lag either."""

MOST: Final = 1024
"""Streams that are tried; the generator has one core."""

QUICK: Final = Timing()
FULL: Final = Timing(settle_s=6.0, seconds=30.0)
WARM_UP: Final = Timing(ramp_s=0.5, settle_s=0.5, seconds=2.0)
"""All is imported then, and memory is there."""

CAP: Final = 16

_STEP: Final = 1.4
"""From one number of streams to the next, while the limit is not in sight."""

_START_S: Final = 240.0
"""A gigabyte is loaded and made into integers, where others are busy as well."""

_GUESS_ON_GPU: Final = 256

_LOST: Final = 0.15
"""Of the found number: how far it may be from the true limit (at least one stream)."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the server is set up, by its settings and the environment of its processes."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)


ONE_REPLICA: Final = Arrangement(
    "one replica, one thread", {"ASR_GPUS": "cpu", "FUNASR_THREADS": "1"}
)

_CORES: Final = len(os.sched_getaffinity(0))

CPU_ARRANGEMENTS: Final = (
    # Its threads wait for each other at every layer: one that another process holds up stops all.
    Arrangement(
        "one replica, a thread for each core", {"ASR_GPUS": "cpu", "FUNASR_THREADS": str(_CORES)}
    ),
    # Without it they wait passively, as the supervisor has it.
    Arrangement(
        "the same, OMP_WAIT_POLICY=ACTIVE",
        {"ASR_GPUS": "cpu", "FUNASR_THREADS": str(_CORES), "OMP_WAIT_POLICY": "ACTIVE"},
    ),
    Arrangement(
        "a replica with one thread for each core",
        {"ASR_GPUS": ",".join(["cpu"] * _CORES), "FUNASR_THREADS": "1"},
    ),
)
"""Compared with ``ONE_REPLICA``."""

ON_GPU: Final = Arrangement("on a GPU, bf16", {"ASR_GPUS": "0", "FUNASR_DTYPE": "bf16"})


@dataclass(frozen=True, slots=True)
class Trial:
    """So many streams, and what came of it. ``batch``: streams in a step, on average. ``step_ms``:
    of a step, on average."""

    streams: int
    noticed: Noticed
    batch: float
    step_ms: float

    @property
    def p99_ms(self) -> float:
        """Of the lag; NaN where there was no result."""
        return percentile(self.noticed.lags, 99)

    @property
    def sustained(self) -> bool:
        """Whether all of them were served in real time."""
        enough = len(self.noticed.lags) >= ENOUGH * self.noticed.chunks
        return enough and not self.noticed.failed and self.p99_ms < LIMIT_MS

    def __str__(self) -> str:
        verdict = "sustained" if self.sustained else "not sustained"
        if self.noticed.failed:
            verdict += f", {len(self.noticed.failed)} failed: {self.noticed.failed[0]}"
        share = len(self.noticed.lags) / self.noticed.chunks
        late = percentile(self.noticed.late, 99)
        return (
            f"{self.streams} streams: lag p50 {percentile(self.noticed.lags, 50):.0f}, p99 "
            f"{self.p99_ms:.0f} ms, batch {self.batch:.1f}, step {self.step_ms:.0f} ms, chunks "
            f"with a result {share:.0%}, generator late p99 {late:.0f} ms: {verdict}"
        )


class Address(Protocol):
    """Where a server is."""

    @property
    def http(self) -> str:
        """Base URL of the REST doors."""
        ...

    @property
    def ws(self) -> str:
        """URL that NLS clients take."""
        ...


class Bench:
    """A server that runs."""

    def __init__(self, served: Address, name: str) -> None:
        self._served = served
        self._name = name

    async def trial(self, streams: int, timing: Timing) -> Trial:
        """Try it with so many."""
        speaking = asyncio.create_task(speak(self._served.ws, streams, timing))
        await asyncio.sleep(timing.ramp_s + timing.settle_s)
        before = await self._steps()
        noticed = await speaking
        after = await self._steps()
        steps, members, seconds = (late - early for early, late in zip(before, after, strict=True))
        steps = max(steps, 1.0)
        return Trial(streams, noticed, members / steps, seconds * 1000 / steps)

    async def shown(self, streams: int, timing: Timing) -> Trial:
        """The same, and print it."""
        trial = await self.trial(streams, timing)
        print(f"  {self._name}: {trial}", flush=True)
        return trial

    async def search(self, guess: int, timing: Timing, turn: asyncio.Lock) -> int:
        """The most streams that it sustains. ``turn``: held for each trial."""

        async def sustained(streams: int) -> bool:
            async with turn:
                return (await self.shown(streams, timing)).sustained

        return await most_sustained(sustained, guess)

    async def _steps(self) -> tuple[float, float, float]:
        """Steps of the recogniser so far, streams in them, and the seconds that they took."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self._served.http}/metrics", timeout=30.0)).text
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("service") == "recognise" and "le" not in sample.labels
        }
        names = ("streams_count", "streams_sum", "seconds_sum")
        count, members, seconds = (found.get(f"funspeech_step_{name}", 0.0) for name in names)
        return count, members, seconds


@asynccontextmanager
async def running(name: str, settings: dict[str, str]) -> AsyncIterator[Bench]:
    """A server that recognises with a streaming model alone, warm. ``settings``: which engine and
    model, and how.

    Raises:
        ServerEnded: it did not get ready.
    """
    shared = {
        "ASR_MODEL_MODE": "realtime",
        "TTS_ENGINE": "fake",
        "OFFLINE": "true",
        "MAX_STREAMS": str(MOST),  # admission does not decide
        # Far beyond its limit a server may stall for long; it should be measured, not restarted.
        "HANG_TIMEOUT_SECONDS": "120",
    }
    async with server.started(_START_S, **{**shared, **settings}) as served:
        bench = Bench(served, name)
        await bench.trial(2, WARM_UP)
        yield bench


def serving(folder: Path, cap: int, arrangement: Arrangement) -> AbstractAsyncContextManager[Bench]:
    """A server with the FunASR engine and the streaming model in ``folder``. ``cap``: streams in a
    step."""
    settings = {
        "ASR_ENGINE": "funasr",
        "FUNASR_STREAMING_MODEL": str(folder),
        "FUNASR_PUNCTUATION_MODEL": "none",
        "FUNASR_DTYPE": "int8",
        "FUNASR_MAX_BATCH": str(cap),
        "FUNASR_SLOTS": str(MOST),
        **arrangement.settings,
    }
    return running(f"{arrangement.name}, cap {cap}", settings)


@dataclass(frozen=True, slots=True)
class Found:
    """Streams sustained: with one in a step, with up to 16, and with up to 16 in the other
    arrangements, by name. ``mean_batch``: streams in a step while 16 speak, at most 16 in one."""

    single: int
    many: int
    mean_batch: float
    others: dict[str, int]

    @property
    def ratio(self) -> float:
        """Of the two; NaN if it does not even sustain a stream alone."""
        return self.many / self.single if self.single else float("nan")

    def figures(self) -> list[Figure]:
        """For the table."""
        return [
            Figure("server: streams in real time, one at a time", self.single, ""),
            Figure(f"server: streams in real time, {CAP} at a time", self.many, ""),
            Figure("  ratio", self.ratio, "×", "≥ 2"),
            Figure(f"  streams in a step while {CAP} speak", self.mean_batch, "", "≥ 6"),
            *(Figure(f"  {name}", number, "") for name, number in self.others.items()),
        ]


async def compare(folder: Path, timing: Timing, guesses: tuple[int, int]) -> Found:
    """All arrangements on the CPU, with the model in ``folder``. ``guesses``: streams sustained
    with one in a step, and with many.

    Raises:
        ServerEnded: a server did not get ready.
    """
    return await compared(partial(serving, folder), ONE_REPLICA, CPU_ARRANGEMENTS, timing, guesses)


async def compared(
    serve: Callable[[int, Arrangement], AbstractAsyncContextManager[Bench]],
    usual: Arrangement,
    others: Sequence[Arrangement],
    timing: Timing,
    guesses: tuple[int, int],
) -> Found:
    """The ``usual`` arrangement with one stream in a step and with ``CAP``, and then the others.

    Raises:
        ServerEnded: a server did not get ready.
    """
    turn = asyncio.Lock()
    async with serve(1, usual) as alone, serve(CAP, usual) as together:
        single, many = await asyncio.gather(
            alone.search(guesses[0], timing, turn), together.search(guesses[1], timing, turn)
        )
        batch = (await together.shown(CAP, timing)).batch
    async with AsyncExitStack() as stack:
        benches = [await stack.enter_async_context(serve(CAP, each)) for each in others]
        found = await asyncio.gather(*(bench.search(many, timing, turn) for bench in benches))
    names = [each.name for each in others]
    return Found(single, many, batch, dict(zip(names, found, strict=True)))


async def on_gpu(folder: Path, timing: Timing) -> int:
    """Streams that a server with one GPU sustains, as many in a step as it likes.

    Raises:
        ServerEnded: it did not get ready.
    """
    async with serving(folder, 0, ON_GPU) as bench:
        return await bench.search(_GUESS_ON_GPU, timing, asyncio.Lock())


async def most_sustained(
    sustained: Callable[[int], Awaitable[bool]], guess: int, most: int = MOST
) -> int:
    """The largest number for which it holds, assuming that it does for all smaller ones; 0 if for
    none. Found from ``guess`` up or down, and then between the two nearest, to 15 %."""
    low, high, number = 0, most + 1, min(max(guess, 1), most)
    while high - low > max(1, int(low * _LOST)):
        if await sustained(number):
            low = number
        else:
            high = number
        if low and high <= most:
            number = (low + high) // 2
        elif low:
            number = min(most, max(low + 1, round(low * _STEP)))
        else:
            number = max(1, min(high - 1, round(high / _STEP)))
    return low
