"""One supervised child process: start, listen to it, restart it, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

import app
from app.serving.control import BEAT_SECONDS

log = structlog.get_logger(__name__)

_WAIT_POLICY: Final = ("OMP_WAIT_POLICY", "PASSIVE")
"""Of OpenMP's threads (torch's), unless the owner says otherwise: those that spin while they wait
for each other take the cores from the other processes (docs/benchmarks.md: 14 streams against 18).
"""

RESTART_DELAYS_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
STABLE_AFTER_S: Final = 30.0
"""A child that served so long, from when it was ready, begins again with the shortest delay."""

MAX_FAILED_STARTS: Final = 3
"""A child that never got ready is not tried for ever: the start has failed."""

DRAIN_GRACE_S: Final = 5.0
"""For a process that is replaced to end, after its time to drain."""

_MAX_LINE: Final = 64 * 1024
_MAX_LAST_LINE: Final = 300
"""Characters of what a child wrote last, for its owner."""


class StartFailed(Exception):
    """A child cannot start at all; the text tells the owner what to do."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run: a module of ours, the descriptors it inherits, and its config (which travels
    over the control socket, so nothing of it is seen in the process list)."""

    name: str
    module: str
    config: Mapping[str, object]
    inherited: Sequence[socket.socket]
    environment: Mapping[str, str] = field(default_factory=dict)


class Pulse:
    """Whether a child that serves has hung. Hung is not dead: the process is there, but gives no
    sign of life (stopped, or one thread holds the GIL), or has work that does not advance.

    Time is counted in looks, one each ``BEAT_SECONDS``, so that a supervisor that was itself
    stopped for a while (Ctrl-Z, a paused machine) does not find all its children silent.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._silent_s = 0.0
        self._stalled_s = 0.0

    def beat(self, stalled_s: float) -> None:
        """The child lives; its slowest work has not advanced for ``stalled_s``."""
        self._silent_s = 0.0
        self._stalled_s = stalled_s

    def look(self) -> str:
        """``BEAT_SECONDS`` have passed. Returns why the child counts as hung, or nothing."""
        self._silent_s += BEAT_SECONDS
        if self._silent_s >= self._timeout_s + BEAT_SECONDS:  # the last beat's own second
            return f"no sign of life for {self._timeout_s:g} s"
        if self._stalled_s >= self._timeout_s:
            return f"its work has not advanced for {self._stalled_s:g} s"
        return ""


class Child:
    """Keeps one process of a spec running. ``ready`` is set while it serves; ``facts`` is what it
    said with that, but for what it wants its successor to know (``keep`` in ``control.py``).
    ``on_restart`` is told when a process has ended and another follows: its name, and whether that
    was planned (:meth:`restart`)."""

    def __init__(
        self,
        spec: ChildSpec,
        start_timeout_s: float,
        hang_timeout_s: float,
        emit_line: Callable[[str, bytes], None],
    ) -> None:
        self.spec = spec
        self._start_timeout_s = start_timeout_s
        self._hang_timeout_s = hang_timeout_s
        self._emit_line = emit_line
        self.ready = asyncio.Event()
        self.facts: dict[str, Any] = {}
        self.restarts = 0
        self.on_restart: Callable[[str, bool], None] = lambda name, planned: None
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._ready_since = 0.0
        self._pulse = Pulse(hang_timeout_s)
        self._killed = False
        self._reload = False
        self._deadline: asyncio.Timeout | None = None
        self._stopping = False
        self._planned_end = False
        self._ended = asyncio.Event()  # set between two processes
        self._fatal = ""  # why the process cannot work here
        self._doing = self._last_line = ""  # before it was ready: what it told, and what it printed
        self._kept: dict[str, Any] = {}  # for the config of the next process

    @property
    def pid(self) -> int | None:
        """The running process, if there is one."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    async def keep(self) -> None:
        """Run the child, again and again, until :meth:`stop`.

        One that was ready before is tried for ever, also if it says that it cannot work here: what
        is missing (a folder of models, memory) may come back, and the other processes serve on.

        Raises:
            StartFailed: before it was ever ready, it says that it cannot work here, or ends too
                often.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        was_ready = False
        while not self._stopping:
            code = await self._run_once()
            served = self.ready.is_set()
            was_ready = was_ready or served
            self.ready.clear()
            self._ended.set()
            if self._stopping:
                return
            if self._fatal and not was_ready:
                raise StartFailed(f"{self.spec.name}: {self._fatal}")
            if self._planned_end:
                failures = 0
                self._count_restart(planned=True)
                continue
            stable = served and loop.time() - self._ready_since > STABLE_AFTER_S
            failures = 1 if stable else failures + 1
            if not was_ready and failures >= MAX_FAILED_STARTS:
                raise StartFailed(
                    f"{self.spec.name} ended {failures} times before it was ready, at last "
                    f"{self._how_it_ended(code)}"
                )
            delay = RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S)) - 1]
            self._count_restart(planned=False)
            if not self._killed:  # else that was told
                self._log_end(code, delay, served=served)
            await asyncio.sleep(delay)

    def _how_it_ended(self, code: int | None) -> str:
        """For the owner, of a process that was not ready yet. A native library that cannot work
        with a file ends its process without another word than that on the standard error."""
        how = f"with exit code {code}" if code is None or code >= 0 else f"by signal {-code}"
        doing = f", {self._doing}" if self._doing else ""
        wrote = f"; it wrote: {self._last_line}" if self._last_line else ""
        return f"{how}{doing}{wrote}"

    def _log_end(self, code: int | None, delay: float, *, served: bool) -> None:
        why = self._fatal or ("" if served else self._how_it_ended(code))
        reason = {"reason": why} if why else {}
        log.error(
            "process ended, restarting it",
            child=self.spec.name,
            exit_code=code,
            **reason,
            restart_in_s=delay,
        )

    def _count_restart(self, *, planned: bool) -> None:
        self.restarts += 1
        self.on_restart(self.spec.name, planned)

    def expect_end(self) -> None:
        """From now on, an end of the process is no reason to start another."""
        self._stopping = True

    def reload(self) -> None:
        """Have the child read again what may change while it runs; one that is still starting does
        so once it is ready."""
        self._reload = True
        if self.ready.is_set():
            self._reload = False
            self._tell({"reload": True})

    async def restart(self, drain_s: float) -> bool:
        """Replace the process in good order: it gives its tasks away, for up to ``drain_s``, and
        ends; the next one is started at once. Returns whether that one got ready."""
        process = self._process
        self._ended.clear()
        if self.ready.is_set():  # else it has just ended by itself, and the next one is coming
            self._planned_end = True
            self._tell({"drain": drain_s})
            try:
                async with asyncio.timeout(drain_s + DRAIN_GRACE_S):
                    await self._ended.wait()
            except TimeoutError:
                log.warning("process did not end in time, killing it", child=self.spec.name)
                if process is not None and process.returncode is None:
                    process.kill()
                await self._ended.wait()
            self._ended.clear()
        waits = [asyncio.ensure_future(each.wait()) for each in (self.ready, self._ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.ready.is_set()

    def _tell(self, message: Mapping[str, object]) -> None:
        """Nobody else writes to a child that has its config. A full or closed socket belongs to one
        that is about to be replaced."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(msgspec.json.encode(message) + b"\n")

    def terminate(self) -> None:
        """Send SIGTERM, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    async def stop(self, grace_s: float) -> None:
        """Ask the child to end (SIGTERM), and end it after ``grace_s``."""
        self.expect_end()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            log.warning("process did not end in time, killing it", child=self.spec.name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _run_once(self) -> int | None:
        """Start the process and stay with it to its end. Returns its exit code."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            self._control, self._killed, self._reload = ours, False, False
            self._planned_end, self._fatal, self._doing, self._last_line = False, "", "", ""
            descriptors = [theirs.fileno(), *(each.fileno() for each in self.spec.inherited)]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the current folder may hold another package named app
                "-m",
                self.spec.module,
                *map(str, descriptors),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=descriptors,
                env=self._environment(),
                process_group=0,  # what a terminal tells its group, the supervisor decides on
            )
            self._process = process
            theirs.close()
            assert process.stdout is not None
            try:
                async with asyncio.TaskGroup() as group:
                    listening = group.create_task(self._listen(ours))
                    group.create_task(self._read_output(process.stdout))
                    watching = group.create_task(self._watch_over(process))
                    await process.wait()
                    listening.cancel()
                    watching.cancel()
            finally:
                self._control = None
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            return process.returncode

    def _environment(self) -> dict[str, str]:
        """Ours, so that native libraries see what the owner set for them; and where ``app`` is."""
        root = str(Path(app.__file__).resolve().parent.parent)
        inherited = dict(os.environ)  # for the child as a whole; config.py alone interprets it
        inherited.setdefault(*_WAIT_POLICY)
        paths = [root, *filter(None, [inherited.get("PYTHONPATH")])]
        return {**inherited, "PYTHONPATH": os.pathsep.join(paths), **self.spec.environment}

    async def _watch_over(self, process: asyncio.subprocess.Process) -> None:
        """Kill the process when it does not get ready in time, or hangs after that."""
        reason = await self._late() or await self._hung()
        log.error("process hangs, killing it", child=self.spec.name, reason=reason)
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    async def _late(self) -> str:
        """Wait for the start. Returns nothing once the child is ready, else why it is given up."""
        try:
            async with asyncio.timeout(self._start_timeout_s) as self._deadline:
                await self.ready.wait()
        except TimeoutError:
            return f"not ready, and nothing new of its start for {self._start_timeout_s:g} s"
        finally:
            self._deadline = None
        return ""

    async def _hung(self) -> str:
        """Watch a child that serves, until it hangs; returns how that shows."""
        self._pulse = Pulse(self._hang_timeout_s)
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if reason := self._pulse.look():
                return reason

    async def _listen(self, control: socket.socket) -> None:
        """Hand over the config, then follow what the child says of itself."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            config = {**self.spec.config, **self._kept}
            line = msgspec.json.encode({"config": config}, enc_hook=str) + b"\n"
            await loop.sock_sendall(control, line)
            rest = b""
            while data := await loop.sock_recv(control, 65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._note(msgspec.json.decode(line))

    def _note(self, message: dict[str, Any]) -> None:
        if "beat" in message:
            self._pulse.beat(message["beat"])
        elif "progress" in message:
            self._doing = message["progress"]
            log.debug("starting", child=self.spec.name, doing=self._doing)
            if self._deadline is not None and not self._deadline.expired():
                self._deadline.reschedule(asyncio.get_running_loop().time() + self._start_timeout_s)
        elif "fatal" in message:
            self._fatal = message["fatal"]
        elif message.pop("ready", False):
            self._kept = message.pop("keep", self._kept)
            self.facts = message
            self._ready_since = asyncio.get_running_loop().time()
            self.ready.set()
            if self._reload:
                self.reload()

    async def _read_output(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while data := await output.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _MAX_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._take_line(line)
        if rest:
            self._take_line(rest)

    def _take_line(self, line: bytes) -> None:
        """While it starts, remember the last one that is no record. Those of a child that serves
        may have people's words."""
        if not self.ready.is_set() and line.strip() and not line.startswith(b"{"):
            text = line.decode("utf-8", "replace").strip()[:_MAX_LAST_LINE]
            self._last_line = "".join(char if char.isprintable() else " " for char in text)
        self._emit_line(self.spec.name, line)
