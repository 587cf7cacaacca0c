"""How many streams the whole server sustains in real time with the sherpa engine: one stream in a
step against sixteen, and a replica for each core (``asr_server.py``)."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import asr_server
from benchmarks.asr_server import MOST, Arrangement, Bench, Found

QUICK: Final = replace(asr_server.QUICK, chunk_s=0.32)
FULL: Final = replace(asr_server.FULL, chunk_s=0.32)

_CORES: Final = len(os.sched_getaffinity(0))

ONE_REPLICA: Final = Arrangement("one replica, one thread", {"ASR_GPUS": "cpu"})
OTHERS: Final = (
    Arrangement(
        "a replica with one thread for each core", {"ASR_GPUS": ",".join(["cpu"] * _CORES)}
    ),
)


def serving(folder: Path, cap: int, arrangement: Arrangement) -> AbstractAsyncContextManager[Bench]:
    """A server with the streaming model in ``folder``. ``cap``: streams in a step."""
    settings = {
        "ASR_ENGINE": "sherpa",
        "SHERPA_STREAMING_MODEL": str(folder),
        "SHERPA_PUNCTUATION_MODEL": "none",
        "SHERPA_THREADS": "1",
        "SHERPA_MAX_BATCH": str(cap),
        "SHERPA_SLOTS": str(MOST),
        **arrangement.settings,
    }
    return asr_server.running(f"{arrangement.name}, cap {cap}", settings)


async def compare(folder: Path, *, quick: bool, guesses: tuple[int, int]) -> Found:
    """All arrangements, with the model in ``folder``. ``guesses``: streams sustained with one in a
    step, and with many.

    Raises:
        ServerEnded: a server did not get ready.
    """
    timing = QUICK if quick else FULL
    return await asr_server.compared(partial(serving, folder), ONE_REPLICA, OTHERS, timing, guesses)
