"""Serve in a terminal of its own, close the terminal, and say how the server ended.

``python -m tests.support.in_terminal``: prints the exit status, or ``outlived`` after a while.
"""

from __future__ import annotations

import os
import pty
import signal
import sys
import time

PATIENCE_S = 30


def main() -> None:
    """Run once the server has printed its examples."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "app", "serve"])
    shown = b""
    # Banner and log line, so that it is not closed while those are being written.
    while not (b"/stream/v1/tts" in shown and b"serving version=" in shown):
        shown += os.read(terminal, 4096)
    os.close(terminal)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            print(os.waitstatus_to_exitcode(status))
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("outlived")


if __name__ == "__main__":
    main()
