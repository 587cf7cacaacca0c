"""FunASR itself, in an environment of its own (``make test-funasr``): it is only called, in another
process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import torch

ROOT: Final = Path(__file__).parents[2]
FUNASR_TIMEOUT_S: Final = 300

RunReference = Callable[..., None]
"""Runs a script of this folder with FunASR's interpreter and the given arguments."""


@pytest.fixture(scope="session")
def run_reference() -> RunReference:
    """Skips where FunASR's environment is missing, and fails instead where nothing may be left
    out."""
    default = ROOT / ".venv-funasr" / "bin" / "python"
    python = Path(os.environ.get("FUNASR_REFERENCE_PYTHON") or default)
    if not python.exists():
        reason = f"{python} is missing; make test-funasr installs it"
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    def run(script: str, *arguments: Path | str) -> None:
        command = [str(python), str(Path(__file__).parent / script), *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=FUNASR_TIMEOUT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The models are small, and other tests want the cores as well."""
    torch.set_num_threads(1)
