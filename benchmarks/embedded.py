"""Latencies with real engines: the end of speech to SentenceEnd, its onset to the first result.

Audio goes out in frames of 20 ms, when it would have been spoken; what a client's longer frames
add is its own affair. Speech begins and ends where the sound of the file does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Final

import numpy as np

from app.client.nls import NlsClient, sending
from benchmarks import audio, server
from benchmarks.measure import percentile
from benchmarks.options import Options
from benchmarks.report import Figure

TITLE: Final = "Embedded engines: latencies of recognition"

SILENCE_MS: Final = 800
CHUNK_MS: Final = 100
"""The recogniser's step."""
_FRAME_MS: Final = 20
_FRAME: Final = audio.RATE * _FRAME_MS // 1000 * 2

Times = dict[str, list[tuple[float, int]]]
"""By event: when each of them came (ms since the first sample was spoken), and its own time."""


async def measure(options: Options) -> list[Figure]:
    """The example with three sentences, ``sessions`` times at once (1)."""
    sessions = options.sessions or 1
    pause = np.zeros(audio.RATE * 3 // 2, dtype=np.int16)
    samples = np.concatenate([audio.example("three_sentences"), pause])
    async with server.started(**server.EMBEDDED) as served:
        await NlsClient(served.ws).transcribe(audio.example("hello").tobytes())  # all is warm
        runs = await asyncio.gather(
            *(_run(served.ws, samples.tobytes(), 0.13 * k) for k in range(sessions))
        )
    spoken = audio.spoken(samples)
    complete = [run for run in runs if len(run["SentenceEnd"]) == len(spoken)]
    onsets = [start for start, _ in spoken]
    ends = [
        came - SILENCE_MS - end
        for run in complete
        for (came, _), (_, end) in zip(run["SentenceEnd"], spoken, strict=True)
    ]
    own_ends = [came - SILENCE_MS - told for run in complete for came, told in run["SentenceEnd"]]
    begins = [
        came - onset
        for run in complete
        for (came, _), onset in zip(run["SentenceBegin"], onsets, strict=True)
    ]
    partials = [wait - CHUNK_MS for run in complete for wait in _first_results(run, onsets)]
    return [
        Figure("end of speech → SentenceEnd, beyond 800 ms, median", _p50(ends), "ms", "≤ 100"),
        Figure("  slowest", max(ends, default=float("nan")), "ms"),
        Figure("  against the end that the server reports, median", _p50(own_ends), "ms"),
        Figure("onset → first result, beyond a chunk, median", _p50(partials), "ms", "≤ 100"),
        Figure("onset → SentenceBegin, median", _p50(begins), "ms"),
        Figure(f"sentences measured, {sessions} sessions", len(ends), ""),
        Figure("sessions with a wrong number of sentences", len(runs) - len(complete), "", "0"),
    ]


def _p50(values: list[float]) -> float:
    return percentile(values, 50)


def _first_results(run: Times, onsets: list[int]) -> list[float]:
    """From each onset to the first interim result after the sentence began, in ms."""
    waits = []
    for (began, _), (ended, _), onset in zip(
        run["SentenceBegin"], run["SentenceEnd"], onsets, strict=True
    ):
        came = [at for at, _ in run["TranscriptionResultChanged"] if began <= at <= ended]
        waits += [came[0] - onset] if came else []
    return waits


async def _run(url: str, pcm: bytes, delay_s: float) -> Times:
    await asyncio.sleep(delay_s)
    times: Times = {"SentenceBegin": [], "TranscriptionResultChanged": [], "SentenceEnd": []}
    began = 0.0

    async def frames() -> AsyncIterator[bytes]:
        nonlocal began
        began = perf_counter()
        for k, start in enumerate(range(0, len(pcm), _FRAME), 1):
            await asyncio.sleep(max(0.0, began + k * _FRAME_MS / 1000 - perf_counter()))
            yield pcm[start : start + _FRAME]

    client = NlsClient(url)
    async with (
        client.transcriber(
            enable_intermediate_result=True, max_sentence_silence=SILENCE_MS
        ) as task,
        sending(task, frames()),
    ):
        async for event in task.events():
            if event.name in times:
                moment = (perf_counter() - began) * 1000
                times[event.name].append((moment, event.payload["time"]))
    return times
