"""What processes have used, and the statistics of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import psutil

MIB: Final = 1024 * 1024

_ROLES: Final = (
    ("app.main", "api"),
    ("app.serving.worker", "workers"),
    ("app.serving.decoding", "decoder"),
)


class ProcessChanged(Exception):
    """A process of the server ended or began during a measurement, which is then worth nothing."""


class CpuMeter:
    """CPU seconds (user and system) of a process and everything below it.

    The system counts in ticks of 10 ms, so measure a second of CPU time or more.
    """

    def __init__(self, root: int) -> None:
        self._processes = tree(root)
        self._before = self._read()

    def used(self) -> dict[str, float]:
        """Seconds since the object was made, by role: ``api``, ``workers`` and ``supervisor``
        (or whatever the root is).

        Raises:
            ProcessChanged: the tree has lost a process.
        """
        totals: dict[str, float] = {}
        for role, before, after in zip(
            map(role_of, self._processes), self._before, self._read(), strict=True
        ):
            totals[role] = totals.get(role, 0.0) + after - before
        return totals

    def _read(self) -> list[float]:
        try:
            times = [process.cpu_times() for process in self._processes]
        except psutil.NoSuchProcess as error:
            raise ProcessChanged(f"process {error.pid} has ended") from None
        return [each.user + each.system for each in times]


def tree(root: int) -> list[psutil.Process]:
    """A process and all below it."""
    process = psutil.Process(root)
    return [process, *process.children(recursive=True)]


def role_of(process: psutil.Process) -> str:
    """What a process of the server does."""
    arguments = process.cmdline()
    return next((role for module, role in _ROLES if module in arguments), "supervisor")


def rss_mib(process: psutil.Process) -> float:
    """Resident memory in MiB, shared libraries included."""
    return float(process.memory_info().rss) / MIB


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that ``percent`` of all do not exceed; NaN of none."""
    if not samples:
        return math.nan
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]
