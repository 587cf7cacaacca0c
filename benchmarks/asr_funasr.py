"""FunASR as it ships, in a process of its own (``asr_reference.py``)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any, Final, Literal

import numpy as np

from app.audio.pcm import Float32
from app.core.config import Config

Kind = Literal["fp32", "int8", "old"]

_START_TIMEOUT_S: Final = 240.0
_CHUNK_TIMEOUT_S: Final = 60.0
_LOG_CHARACTERS: Final = 2000
_SCRIPT: Final = Path(__file__).with_name("asr_reference.py")
"""Not to be imported here: it needs torch, which is in its own environment."""
_DEFAULT: Final = Path(__file__).resolve().parents[1] / ".venv-funasr" / "bin" / "python"


class ReferenceFailed(Exception):
    """FunASR's process ended, or did not answer in time; with the end of its log."""


class Reference:
    """FunASR; it computes only while it is asked. ``versions``: of it and its torch."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.tokens = 0
        self.chunks = 0
        self.versions: dict[str, str] = self._answer(_START_TIMEOUT_S)

    def chunk(self, kind: Kind) -> Callable[[], float]:
        """A function that hears the next chunk; the CPU seconds that it took.

        The function raises ReferenceFailed.
        """

        def ask() -> float:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):  # reading tells that it has ended
                os.write(self._process.stdin.fileno(), f"{kind}\n".encode())
            answer = self._answer(_CHUNK_TIMEOUT_S)
            self.tokens += answer["tokens"]
            self.chunks += 1
            return float(answer["seconds"])

        return ask

    def _answer(self, limit_s: float) -> Any:
        assert self._process.stdout is not None
        watchdog = Timer(limit_s, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        if not line:
            raise ReferenceFailed(f"FunASR has ended, status {self._process.wait()}")
        return json.loads(line)


def interpreter() -> Path | None:
    """Python with FunASR: $FUNASR_REFERENCE_PYTHON, or what ``make test-funasr`` installs. None if
    it is not there."""
    python = Path(os.environ.get("FUNASR_REFERENCE_PYTHON") or _DEFAULT)
    return python if python.exists() else None


@contextmanager
def started(python: Path, model: Path, audio: Float32, age: int) -> Iterator[Reference]:
    """FunASR with the model loaded. ``age``: rows that an old stream has heard.

    Raises:
        ReferenceFailed: it did not start.
    """
    ours = {name.upper() for name in Config.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    with tempfile.TemporaryDirectory(prefix="funspeech-bench-") as folder:
        file = Path(folder) / "audio.npy"
        np.save(file, audio)
        log = Path(folder) / "log.txt"
        with log.open("w") as lines:
            process = subprocess.Popen(
                [str(python), str(_SCRIPT), str(model), str(file), str(age)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=lines,
                text=True,
                env={**environment, "OMP_NUM_THREADS": "1"},
            )
        with process:
            try:
                yield Reference(process)
            except ReferenceFailed as error:
                end = log.read_text(errors="replace")[-_LOG_CHARACTERS:]
                raise ReferenceFailed(f"{error}:\n{end}") from None
            finally:
                process.kill()
