"""How far interim results are behind the speaker, on an engine of known cost."""

from __future__ import annotations

from typing import Final

from benchmarks import recognition_load, server
from benchmarks.measure import percentile
from benchmarks.options import Options
from benchmarks.report import Figure

TITLE: Final = "Interim results: lag, all sessions starting in the same second"

DELAY_MS: Final = 100.0
ITEM_MS: Final = 0.5


async def measure(options: Options) -> list[Figure]:
    """From the end of each 200 ms of speech to the first result that covers it."""
    seconds, sessions = options.seconds or 8.0, options.sessions or 100
    settings = {
        **server.FAKE,
        "FAKE_ASR_DELAY_MS": str(DELAY_MS),
        "FAKE_ASR_ITEM_MS": str(ITEM_MS),
    }
    script = recognition_load.utterance(round(seconds * 10) * 100)
    async with server.started(**settings) as served:
        noticed = await recognition_load.stream(served.ws, sessions, lambda _: [script])
    step = DELAY_MS + ITEM_MS * sessions
    return [
        Figure(f"lag p99, {sessions} sessions", percentile(noticed.lags, 99), "ms", "≤ 400"),
        Figure("lag p50", percentile(noticed.lags, 50), "ms"),
        Figure("a step of all sessions (the engine's own time)", step, "ms"),
        Figure("a step and a chunk", step + recognition_load.CHUNK_MS, "ms"),
        Figure("chunks with a result", len(noticed.lags), ""),
        Figure("tasks that failed or lost audio", noticed.wrong + len(noticed.failed), "", "0"),
        Figure("generator's sends late by, p99", percentile(noticed.late, 99), "ms"),
    ]
