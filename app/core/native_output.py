"""What native libraries write to the standard streams of this process, apart from Python's own.

Some of them write there what people said or had spoken, and no log may have that: sherpa-onnx
2.0.1 writes the hotwords that a model does not know, and the words that a voice cannot say. While
they load a model, though, their last line is the only account of why the process vanished. So a
worker lets them speak until it is ready, and then has them silent.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_STDOUT: Final = 1
_STDERR: Final = 2


def own_stderr() -> int:
    """Give Python a descriptor of its own that leads where stderr leads now, and return it.

    ``sys.stderr`` (tracebacks, warnings) writes to it from now on; the log should, too. It is this
    process's alone: programs that it starts do not inherit it.
    """
    fd = os.dup(_STDERR)
    sys.stderr.flush()
    sys.stderr = os.fdopen(
        fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    return fd


def drop() -> None:
    """From now on, what is written to the descriptors of stdout and stderr goes nowhere.

    Any thread. Python's own stderr goes where it went only after :func:`own_stderr`.

    Raises:
        OSError: there is no null device; then nothing has changed.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        sys.stdout.flush()
        os.dup2(nowhere, _STDOUT)
        os.dup2(nowhere, _STDERR)
    finally:
        os.close(nowhere)
