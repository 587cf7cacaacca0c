"""Native libraries' standard error and Python's own, in a process of their own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, sys
import structlog
from app.core import logs, native_output

close = logs.setup_child("asr-0", fd=native_output.own_stderr())
os.write(2, b"native while it loads\\n")
native_output.drop()
native_output.drop()
os.write(1, b"native out\\n")
os.write(2, b"native later\\n")
print("python out")
structlog.get_logger("tests").info("a record")
child = "import os; os.write(1, b'child out'); os.write(2, b'child later')"
assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", child]) == 0
print("a word \\ud800", file=sys.stderr)
close()
raise RuntimeError("a traceback")
"""


def test_only_python_is_heard_once_the_others_are_dropped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    loading, *lines = done.stdout.splitlines()
    assert loading == "native while it loads"
    assert "native" not in "".join(lines)
    assert "child" not in "".join(lines)
    assert "python out" not in "".join(lines)
    assert any('"event":"a record"' in line for line in lines)
    assert "a word \\ud800" in lines
    assert lines[-1] == "RuntimeError: a traceback"
    assert done.returncode == 1
