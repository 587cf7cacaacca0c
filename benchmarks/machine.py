"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from app import __version__

_PACKAGES: Final = ("uvicorn", "uvloop", "websockets", "httptools", "msgspec", "numpy", "fastapi")


def describe() -> dict[str, str]:
    """The time, CPU, cores, memory, system, Python, versions, and the load before the run."""
    busy = os.getloadavg()[0]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": f"{_cpu_model()}, {platform.machine()}",
        "cores": str(os.cpu_count() or 1),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "funspeech": __version__,
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "load before": f"{busy:.2f}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
