"""Restarting the workers one by one while the server serves, and the socket to ask for it.

    funspeech restart-workers ─► supervisor   {"restart": ["asr-0", …]}; an empty list means all
    supervisor ─► the command                 {"worker": "asr-0", "state": "restarting"}
                                              {"worker": "asr-0", "state": "ready", "seconds": 1.3}
                                              at the end {"done": 2} or {"error": "…"}

One JSON object per line, on a Unix socket in the supervisor's private folder, so nobody else can
ask. What was begun is carried out even if the command is interrupted.

A worker that is not the only one of its role and model hands its streams over to the others between
two of their sentences, and has DRAIN_TIMEOUT_SECONDS for that; what is still there at the end, and
everything of a worker that is alone, is repeated once a worker is there again: a delay, no failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from app.serving.children import Child

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S: Final = 5.0
_MAX_LINE: Final = 64 * 1024

Report = dict[str, object]


def socket_name(port: int) -> str:
    """The socket's file name in the supervisor's folder: a machine may run several servers. Short,
    because the path of a Unix socket has about a hundred characters in all."""
    return f"{port}.sock"


class Rolling:
    """Restarts workers on request."""

    def __init__(self, workers: Sequence[Child], drain_s: float) -> None:
        self._workers = workers
        self._drain_s = drain_s
        self._busy = False
        self._requests: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Take requests on a Unix socket inside the block."""
        server = await asyncio.start_unix_server(self._accept, path, limit=_MAX_LINE)
        try:
            yield
        finally:
            server.close()
            for request in self._requests:
                request.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)

    async def restart(self, names: Sequence[str]) -> AsyncGenerator[Report, None]:
        """Restart the named workers, or all of them, one after the other; stops at the first that
        does not come back. Yields the reports of the module's docstring."""
        known = {child.spec.name: child for child in self._workers}
        if unknown := [name for name in names if name not in known]:
            has = ", ".join(known)
            yield {"error": f"no worker is called {', '.join(unknown)}; this server has {has}"}
            return
        if self._busy:
            yield {"error": "the workers are being restarted already"}
            return
        self._busy = True
        try:
            for count, name in enumerate(names or known):
                yield {"worker": name, "state": "restarting"}
                began = time.monotonic()
                if not await known[name].restart(self._drain_time(known[name])):
                    left = list(names or known)[count + 1 :]
                    text = f"{name} did not get ready again; see the log"
                    yield {"error": text + (f". Not restarted: {', '.join(left)}" if left else "")}
                    return
                seconds = round(time.monotonic() - began, 1)
                yield {"worker": name, "state": "ready", "seconds": seconds}
            yield {"done": len(names or known)}
        finally:
            self._busy = False

    def _drain_time(self, child: Child) -> float:
        """0 s for the only worker of its role and model: its streams have nowhere to go."""
        others = (each for each in self._workers if each is not child)
        alone = not any(_does(each) == _does(child) and each.ready.is_set() for each in others)
        return 0.0 if alone else self._drain_s

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                line = await reader.readline()
            async for report in self.restart(_names(line)):
                log.info("restarting workers", **report)
                writer.write(msgspec.json.encode(report) + b"\n")  # dropped if nobody is there
        except (TimeoutError, ValueError, OSError, msgspec.MsgspecError):
            log.warning("a request on the admin socket could not be read")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _does(worker: Child) -> tuple[object, object]:
    """Its role, and its model where the server has several (MODELS_FILE)."""
    return worker.spec.config["role"], worker.spec.config.get("model", "")


class _Request(msgspec.Struct):
    restart: list[str]


def _names(line: bytes) -> list[str]:
    return msgspec.json.decode(line, type=_Request).restart


def request_restart(path: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Ask the server whose socket is ``path``; yields its reports as they come. Blocks.

    Raises:
        OSError: it does not listen.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(msgspec.json.encode({"restart": list(names)}) + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                yield msgspec.json.decode(line)
