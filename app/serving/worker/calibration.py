"""How long this device takes for the engine's steps: measured when a worker starts first.

Steps of ever more streams run over noise, in the thread in which the engine's steps run later on:
a library's number of threads may be a matter of the calling thread. A worker that takes the place
of one that died, or was restarted, is told what that one measured: it is back sooner, and does not
take a machine that is busy with its own work, or that of its neighbours, for a slow one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

import numpy as np
import structlog

from app.audio.pcm import Float32
from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Progress, Recognizer, RecognizerCapabilities, RecognizerParts
from app.serving.scheduling import learnt, sustained
from app.serving.worker.stepper import Stepper

log = structlog.get_logger(__name__)

MAX_SECONDS: Final = 10.0
"""No larger batch is begun after so long."""

SEED_STREAMS: Final = 4
"""The largest batch where the number of streams is given: enough to tell the cost of a step from
that of a stream."""

OFFLINE_STREAMS: Final = 32
"""Streams where sentences are only heard whole. No step has to be over in time there, so that
there is nothing to measure: too many make the sentences wait, and each of the streams keeps up to
a minute of audio meanwhile (2 MB). The owner may say another number (MAX_STREAMS)."""

_REPEATS: Final = 3
"""Steps that are measured of each size; the median counts."""

_LEVEL_MS: Final = 100
"""The noise changes as often as sounds do in speech."""


Measured = Sequence[tuple[int, float]]
"""Steps, each as its streams and seconds."""


class Calibration(NamedTuple):
    """How many streams a device carries while all of them speak, and the steps that say so."""

    streams: int
    measured: Measured


class Steps(Protocol):
    """What a calibration needs of a recogniser, whoever finds the sentences."""

    @property
    def capabilities(self) -> RecognizerCapabilities:
        """As of the engine."""
        ...

    def open(self, options: RecognitionOptions) -> object:
        """A new stream."""
        ...

    def step(self, batch: Sequence[Feed]) -> Sequence[object]:
        """A result, or an exception, for each stream."""
        ...

    def close(self, stream: object) -> None:
        """Give up a stream."""
        ...


def streaming_part(recognizer: Recognizer) -> Steps | None:
    """What runs the steps of a recogniser; None if it only hears sentences whole."""
    return recognizer.streaming if isinstance(recognizer, RecognizerParts) else recognizer


async def carried(
    engine: Steps,
    stepper: Stepper[Any],
    wanted: int,
    progress: Progress,
    clock: Callable[[], float],
    known: Measured = (),
) -> Calibration:
    """How many streams this device carries: ``wanted`` if that is not 0, otherwise as measured,
    now or before (``known``, if there is anything). ``stepper`` has learnt then how long steps
    take.

    Raises:
        EngineNotUsable: the engine fails at a step.
    """
    capabilities = engine.capabilities
    most = min(wanted, SEED_STREAMS) if wanted else capabilities.max_sentences
    began = clock()
    found = await stepper.in_thread(measure, engine, 1 if known else most, progress, clock)
    # Of what is known, the steps of one stream were but to warm up, and to see that it works.
    measured = known or cast("Measured", found)
    for streams, seconds in measured:
        stepper.took(streams, seconds)
    carries = wanted or sustained(
        learnt(measured), capabilities.step_ms / 1000, capabilities.max_batch, most
    )
    log.info(
        "calibrated",
        streams=carries,
        by="MAX_STREAMS" if wanted else "earlier measurement" if known else "measurement",
        step_ms={size: round(seconds * 1000, 1) for size, seconds in measured},
        took_s=round(clock() - began, 1),
    )
    return Calibration(carries, measured)


def measure(engine: Steps, most: int, progress: Progress, clock: Callable[[], float]) -> Measured:
    """The seconds of steps for 1, 2, 4, 8 … streams.

    Up to ``most`` streams at once, and no further than to a step that takes longer than its audio,
    nor beyond ``MAX_SECONDS`` in all. Blocks: for the engine's thread, before it serves. ``clock``
    gives seconds.

    Raises:
        EngineNotUsable: the engine fails at a step.
    """
    capabilities = engine.capabilities
    limits = (most, capabilities.max_sentences, capabilities.max_batch)
    largest = max(1, min(each for each in limits if each is not None))
    noise = speechlike(capabilities.step_ms, capabilities.sample_rate)
    deadline = clock() + MAX_SECONDS
    streams: list[object] = []
    measured: list[tuple[int, float]] = []
    try:
        for size in _sizes(largest):
            streams += [engine.open(RecognitionOptions()) for _ in range(size - len(streams))]
            seconds = _median_step(engine, streams, noise, clock)
            measured.append((size, seconds))
            progress(f"calibrating: batch {size}")
            if seconds * 1000 > capabilities.step_ms or clock() > deadline:
                break
    finally:
        for stream in streams:
            engine.close(stream)
    return measured


def speechlike(milliseconds: int, sample_rate: int) -> Float32:
    """Noise whose colour and level change as those of speech do; always the same."""
    chance = np.random.default_rng(1)
    size = sample_rate * milliseconds // 1000
    parts = []
    for _ in range(-(-milliseconds // _LEVEL_MS)):
        white = chance.standard_normal(sample_rate * _LEVEL_MS // 1000)
        coloured = np.convolve(white, chance.standard_normal(16), mode="same")
        parts.append(coloured / np.abs(coloured).max() * chance.uniform(0.02, 0.5))
    return np.concatenate(parts)[:size].astype(np.float32)


def _sizes(largest: int) -> list[int]:
    """1, 2, 4, 8 … and the largest itself."""
    return [*(1 << k for k in range(largest.bit_length()) if 1 << k < largest), largest]


def _median_step(
    engine: Steps, streams: Sequence[object], noise: Float32, clock: Callable[[], float]
) -> float:
    """Seconds of a step for these streams. The first one warms up: memory, kernels, graphs."""
    feeds = [Feed(stream, noise, last=False) for stream in streams]
    seconds = []
    for _ in range(1 + _REPEATS):
        began = clock()
        _step(engine, feeds)
        seconds.append(clock() - began)
    return statistics.median(seconds[1:])


def _step(engine: Steps, feeds: Sequence[Feed]) -> None:
    try:
        results = engine.step(feeds)
    except Exception as error:
        raise _failed(len(feeds), error) from error
    for result in results:
        if isinstance(result, Exception):
            raise _failed(len(feeds), result) from result


def _failed(streams: int, error: Exception) -> EngineNotUsable:
    log.error("the engine failed while it was being calibrated", streams=streams, exc_info=error)
    return EngineNotUsable(
        f"the recogniser fails at a step of {streams} streams ({type(error).__name__}): its log "
        "line above has the cause; if it is memory, give it fewer streams in a step"
    )
