"""A child process and its supervisor: one socket pair, JSON lines, each way.

    supervisor ─► child   {"config": …}    once: what the child is to do
    child ─► supervisor   {"progress": "loading …"}   each extends the start deadline
                          {"ready": true}
                          {"fatal": "…"}   it cannot work here, and why; no restart will help
                          {"beat": n}      every second from a thread of its own, so that it comes
                                           even while a model holds the event loop

When the supervisor's end closes, for whatever reason, the child ends at once: children never
outlive their supervisor.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec

BEAT_SECONDS: Final = 1.0
_MAX_LINE: Final = 1024 * 1024


class Control:
    """The child's end. Threads: the caller's, one that waits for the end, one that beats."""

    def __init__(self, fd: int, progress_counter: Callable[[], int] = lambda: 0) -> None:
        """``progress_counter`` is sent with each beat: a number that grows while work is done."""
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._lock = threading.Lock()
        self.progress_counter = progress_counter

    def read_config(self) -> Any:
        """The supervisor's first line, decoded; blocks. Raises EOFError if there is none."""
        line = bytearray()
        while not line.endswith(b"\n"):
            data = self._socket.recv(65536)
            if not data or len(line) > _MAX_LINE:
                raise EOFError("the supervisor has gone")
            line += data
        return msgspec.json.decode(line)["config"]

    def watch(self) -> None:
        """Start beating, and end this process when the supervisor has gone."""
        threading.Thread(target=self._wait_for_end, name="control", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def progress(self, text: str) -> None:
        """Tell what the child is doing while it starts."""
        self._send({"progress": text})

    def ready(self, **facts: object) -> None:
        """Tell that the child serves now."""
        self._send({"ready": True, **facts})

    def fatal(self, text: str) -> None:
        """Tell that no restart will help, and what the owner can do."""
        self._send({"fatal": text})

    def _send(self, message: dict[str, object]) -> None:
        with self._lock:
            try:
                self._socket.sendall(msgspec.json.encode(message) + b"\n")
            except OSError:
                os._exit(1)

    def _wait_for_end(self) -> None:
        try:
            while self._socket.recv(4096):
                pass
        except OSError:
            pass
        os._exit(0)

    def _beat(self) -> None:
        stop = threading.Event()
        while not stop.wait(BEAT_SECONDS):
            self._send({"beat": self.progress_counter()})
