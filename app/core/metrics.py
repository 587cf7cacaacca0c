"""What the server counts, for Prometheus.

Each process writes its figures to files in a folder of the supervisor's
(``PROMETHEUS_MULTIPROC_DIR`` in its environment, set before this module is first imported there),
and ``/metrics`` adds them up, so any API process answers for all. The files have the process' name
(:func:`name_process`), so a successor goes on with the counters of the one that died, and a crash
loop leaves no more files than one process. Without that folder (in tests, in the command line) the
figures stay in the process.

No label has a value that a client chooses freely.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)

from app.core.errors import Overloaded

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_name = str(os.getpid())  # until this process has another one

if values.ValueClass._multiprocess:  # decided by the environment; before the first figure is made
    values.ValueClass = values.MultiProcessValue(lambda: _name)  # type: ignore[no-untyped-call]  # untyped there

_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.02

_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

CONNECTIONS: Final = Gauge(
    "funspeech_connections", "Open NLS WebSocket connections", multiprocess_mode="livesum"
)
TASKS: Final = Counter(
    "funspeech_tasks", "Tasks that ended, by NLS namespace (or REST route) and code",
    ["namespace", "code"],
)  # fmt: skip
REFUSED: Final = Counter(
    "funspeech_refused", "Tasks and connections that were refused with 40000005, by reason",
    ["reason"],
)  # fmt: skip
for _refusal in Overloaded.__subclasses__():
    REFUSED.labels(_refusal.reason)  # 0: a rate needs a figure from before the first refusal
AUDIO_IN: Final = Counter("funspeech_audio_in_seconds", "Audio taken in for recognition")
AUDIO_GATED: Final = Counter("funspeech_audio_gated_seconds", "Of that, silenced as far away")
AUDIO_PASSED: Final = Counter(
    "funspeech_audio_passed_seconds", "Of that, what the near-field gate let through"
)
GATE_OPENINGS: Final = Counter(
    "funspeech_gate_openings", "How often the near-field gate opened: somebody near began to speak"
)
SENTENCES: Final = Counter(
    "funspeech_sentences",
    "Sentences that were found, by what ended them: silence, the greatest length, the end of the "
    "audio; or engine, where the engine finds them",
    ["end"],
)  # fmt: skip
SECOND_PASS_SKIPPED: Final = Counter(
    "funspeech_second_pass_skipped",
    "Sentences that went out with the text of the first pass, because the second was not done in "
    "time",
)
SPEECH: Final = Counter("funspeech_speech_seconds", "Length of these sentences")
AUDIO_OUT: Final = Counter("funspeech_audio_out_seconds", "Audio synthesised for clients")
FIRST_AUDIO: Final = Histogram(
    "funspeech_first_audio_seconds", "From a synthesis request to its first audio",
    buckets=_SECONDS,
)  # fmt: skip
FINAL: Final = Histogram(
    "funspeech_final_seconds", "From the end of a task's audio to its last result",
    buckets=_SECONDS,
)  # fmt: skip
REPEATED: Final = Counter(
    "funspeech_tasks_repeated", "Streams and sentences repeated after a worker's death", ["role"]
)
MOVED: Final = Counter(
    "funspeech_streams_moved", "Streams that left a draining or heavier worker for another"
)
LAG: Final = Histogram(
    "funspeech_lag_seconds",
    "From when audio has come to when its worker has recognised it, the time until an engine's "
    "chunk is full included; sampled once in a second of audio", buckets=_SECONDS,
)  # fmt: skip
QUEUE: Final = Histogram(
    "funspeech_queue_seconds",
    "Of a step: from when the first of its streams was ready to its start; of an utterance: from "
    "its acceptance to the start of the engine",
    ["service"], buckets=_SECONDS,
)  # fmt: skip
STEPS: Final = Histogram(
    "funspeech_step_seconds", "Time of one step of a model, for all its streams", ["service"],
    buckets=(0.001, 0.002, *_SECONDS),
)  # fmt: skip
STEP_STREAMS: Final = Histogram(
    "funspeech_step_streams", "Streams that shared a step", ["service"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)  # fmt: skip
REPLICA_READY: Final = Gauge(
    "funspeech_replica_ready", "Whether this replica of an engine serves", ["replica"],
    multiprocess_mode="livesum",
)  # fmt: skip
REPLICA_ACTIVE: Final = Gauge(
    "funspeech_replica_active", "Tasks that this replica runs; of synthesis, those that wait too",
    ["replica"],
    multiprocess_mode="livesum",
)  # fmt: skip
REPLICA_CAPACITY: Final = Gauge(
    "funspeech_replica_capacity",
    "Streams that it accepts, or sentences that it speaks, at the same time", ["replica"],
    multiprocess_mode="livesum",
)  # fmt: skip
RESTARTS: Final = Counter(
    "funspeech_restarts",
    "Processes that were started again; planned: because somebody asked for it",
    ["process", "planned"],
)  # fmt: skip


def exposition(directory: Path | None) -> bytes:
    """All figures as Prometheus reads them. Reads files: call it in a thread.

    ``directory``: of the processes' files; None for this process' figures only.
    """
    if directory is None:
        return generate_latest(REGISTRY)
    for attempt in range(_ATTEMPTS):
        try:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]  # untyped there
            return generate_latest(registry)
        except (FileNotFoundError, struct.error):
            # A process has just begun: its files are renamed, or have not got their first bytes.
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError


def name_process(name: str, directory: Path) -> None:
    """Call this process ``name`` from now on: among those that run, nobody else may be called so.
    Nothing must have been counted yet."""
    global _name
    unnamed, _name = _name, name
    # The next figure moves over to the files of the name; these have only zeros.
    for file in directory.glob(f"*_{unnamed}.db"):
        file.unlink()


def forget_process(name: str, directory: Path) -> None:
    """A process has ended: its gauges count no more, its counters do."""
    multiprocess.mark_process_dead(name, path=str(directory))  # type: ignore[no-untyped-call]  # untyped there
