"""What the server counts, for Prometheus.

Each process writes its figures to files in a folder of the supervisor's
(``PROMETHEUS_MULTIPROC_DIR`` in its environment, set before this module is first imported there),
and ``/metrics`` adds them up, so any API process answers for all. Without that folder (in tests, in
the command line) the figures stay in the process.

No label has a value that a client chooses freely.
"""

from __future__ import annotations

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
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

CONNECTIONS: Final = Gauge(
    "funspeech_connections", "Open NLS WebSocket connections", multiprocess_mode="livesum"
)
TASKS: Final = Counter(
    "funspeech_tasks", "Tasks that ended, by NLS namespace (or REST route) and code",
    ["namespace", "code"],
)  # fmt: skip
AUDIO_IN: Final = Counter("funspeech_audio_in_seconds", "Audio taken in for recognition")
AUDIO_GATED: Final = Counter("funspeech_audio_gated_seconds", "Of that, silenced as far away")
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
STEPS: Final = Histogram(
    "funspeech_step_seconds", "Time of one step of a model, for all its streams", ["service"],
    buckets=(0.001, 0.002, *_SECONDS),
)  # fmt: skip
STEP_STREAMS: Final = Histogram(
    "funspeech_step_streams", "Streams that shared a step", ["service"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)  # fmt: skip
RESTARTS: Final = Counter("funspeech_restarts", "Processes that were started again", ["process"])


def exposition(directory: Path | None) -> bytes:
    """All figures as Prometheus reads them. Reads files: call it in a thread.

    ``directory``: of the processes' files; None for this process' figures only.
    """
    if directory is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]  # untyped there
    return generate_latest(registry)


def forget_process(pid: int, directory: Path) -> None:
    """A process has ended: its gauges count no more, its counters do."""
    multiprocess.mark_process_dead(pid, path=str(directory))  # type: ignore[no-untyped-call]  # untyped there
