"""A child process and its supervisor: one socket pair, JSON lines, each way.

    supervisor ─► child   {"config": …}    once: what the child is to do
                          {"reload": true} read again what may change while it runs
                          {"drain": s}     a worker: give the tasks away, end within ``s`` seconds
    child ─► supervisor   {"progress": "loading …"}   each extends the start deadline
                          {"ready": true, "keep": {…}}   ``keep``: what it has found out, which
                                           the next process in its place finds in its config
                          {"fatal": "…"}   it cannot work here, and why: at the first start, the
                                           whole server ends with that
                          {"beat": s}      every second from a thread of its own, so that it comes
                                           even while a model holds the event loop; ``s``: seconds
                                           for which the slowest outstanding operation has not
                                           advanced (:class:`Stalls`)

When the supervisor's end closes, for whatever reason, the child ends at once: children never
outlive their supervisor.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

import msgspec

BEAT_SECONDS: Final = 1.0
_MAX_LINE: Final = 1024 * 1024

Work = Mapping[Hashable, int]
"""The operations that are outstanding, each with a counter that grows while it advances."""


class Stalls:
    """For how many looks in a row each operation has not advanced.

    Looks are counted and not seconds: a process that was stopped for an hour and goes on has not
    been stuck for an hour.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[int, int]] = {}

    def longest(self, work: Work) -> int:
        """Take a look; the number for the operation that is worst off, 0 if all advance."""
        seen = {}
        for operation, counter in work.items():
            before, looks = self._seen.get(operation, (None, 0))
            seen[operation] = (counter, looks + 1 if counter == before else 0)
        self._seen = seen
        return max((looks for _, looks in seen.values()), default=0)


class _LoopTurns:
    """An event loop as an operation: it is asked to turn, and its turns are counted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked = 0
        self._turned = 0

    def look(self) -> Work:
        """Ask for a turn, unless one is asked for already. From any thread but the loop's."""
        turned = self._turned
        if turned == self._asked:
            self._asked += 1
            try:
                self._loop.call_soon_threadsafe(self._turn)
            except RuntimeError:  # closed: the process is about to end
                return {}
        return {"event loop": turned}

    def _turn(self) -> None:
        self._turned += 1


class Control:
    """The child's end. Threads: the caller's, one that listens, one that beats."""

    def __init__(self, fd: int, beat_s: float = BEAT_SECONDS) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._lock = threading.Lock()
        self._beat_s = beat_s
        self._work: Callable[[], Work] = dict
        self._reload: Callable[[], None] = lambda: None
        self._drain: Callable[[float], None] = lambda wait_s: None

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
        threading.Thread(target=self._listen, name="control", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def follow(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[[], Work] = dict,
        reload: Callable[[], None] = lambda: None,
        drain: Callable[[float], None] = lambda wait_s: None,
    ) -> None:
        """From now on, report it when ``loop`` does not turn or something in ``work`` does not
        advance. ``work`` is called in the beating thread, ``reload`` and
        ``drain`` in the loop, when the supervisor asks for it."""
        turns = _LoopTurns(loop)
        self._reload = lambda: _call_in(loop, reload)
        self._drain = lambda wait_s: _call_in(loop, drain, wait_s)
        self._work = lambda: {**work(), **turns.look()}

    def progress(self, text: str) -> None:
        """Tell what the child is doing while it starts."""
        self._send({"progress": text})

    def ready(self, **facts: object) -> None:
        """Tell that the child serves now."""
        self._send({"ready": True, **facts})

    def fatal(self, text: str) -> None:
        """Tell why this process cannot work here, and what the owner can do."""
        self._send({"fatal": text})

    def _send(self, message: dict[str, object]) -> None:
        with self._lock:
            try:
                self._socket.sendall(msgspec.json.encode(message) + b"\n")
            except OSError:
                os._exit(1)

    def _listen(self) -> None:
        rest = b""
        try:
            while data := self._socket.recv(4096):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    message = msgspec.json.decode(line)
                    if "reload" in message:
                        self._reload()
                    if "drain" in message:
                        self._drain(message["drain"])
        except OSError:
            pass
        finally:
            # Also after a bug: who cannot hear the supervisor must not outlive it.
            os._exit(0)

    def _beat(self) -> None:
        stop, stalls = threading.Event(), Stalls()
        while not stop.wait(self._beat_s):
            self._send({"beat": stalls.longest(self._work()) * self._beat_s})


def _call_in(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object
) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:  # closed: the process is about to end
        return
