"""``funspeech serve`` under test: started on a free port, with its own settings, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from app.core.config import Config
from benchmarks.measure import CpuMeter, role_of, tree

ROOT: Final = Path(__file__).resolve().parents[1]
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0

FAKE: Final = {"ASR_ENGINE": "fake", "TTS_ENGINE": "fake"}
EMBEDDED: Final = {"ASR_ENGINE": "embedded", "TTS_ENGINE": "embedded"}


class ServerEnded(Exception):
    """The server did not start; the text is the end of what it printed."""


@dataclass
class Served:
    """A server. ``began``: when it was started (``time.monotonic``)."""

    process: asyncio.subprocess.Process
    port: int
    began: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    output: deque[str] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def http(self) -> str:
        """Base URL of the REST doors."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """URL that NLS clients take."""
        return f"ws://127.0.0.1:{self.port}/ws/v1"

    def cpu(self) -> CpuMeter:
        """Count the CPU time of all its processes from now on."""
        return CpuMeter(self.process.pid)

    def api(self) -> psutil.Process:
        """The API process (the first of them)."""
        return next(each for each in tree(self.process.pid) if role_of(each) == "api")


@asynccontextmanager
async def started(within_s: float = START_TIMEOUT_S, /, **settings: str) -> AsyncIterator[Served]:
    """A server that is ready, with one API process; ``settings``: variables of the config.

    Raises:
        ServerEnded: it did not get ready.
    """
    async with starting(**settings) as served:
        yield await _until_ready(served, within_s)


@asynccontextmanager
async def starting(**settings: str) -> AsyncIterator[Served]:
    """A server that has just been started; ``ready`` is set once it says that it serves."""
    with tempfile.TemporaryDirectory(prefix="funspeech-bench-") as name:
        folder = Path(name)
        port = free_port()
        variables = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "LOG_FILE": str(folder / "funspeech.log"),
            "VOICES_DIR": str(folder / "voices"),
            "DATA_DIR": str(folder / "data"),
            **settings,
        }
        began = time.monotonic()
        process = await launch("app", "serve", folder=folder, variables=variables)
        served = Served(process, port, began)
        reading = asyncio.create_task(_read(served))
        try:
            yield served
        finally:
            await end(process)
            await reading


async def launch(
    *module: str, folder: Path, variables: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    """``python -m`` a module in ``folder``, without the settings of this process' environment."""
    ours = {name.upper() for name in Config.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *module,
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), **(variables or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM; what is left after a while is killed, with its children."""
    if process.returncode is not None:
        return
    family = tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        await process.wait()


async def listening(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until somebody listens on ``port``.

    Raises:
        ServerEnded: the process has ended, or START_TIMEOUT_S are over.
    """
    until = time.monotonic() + START_TIMEOUT_S
    while process.returncode is None and time.monotonic() < until:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.005)
    raise ServerEnded(f"nothing listens on port {port}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def _until_ready(served: Served, within_s: float) -> Served:
    ready = asyncio.create_task(served.ready.wait())
    ended = asyncio.create_task(served.process.wait())
    await asyncio.wait((ready, ended), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    for waiting in (ready, ended):
        waiting.cancel()
    if not served.ready.is_set():
        raise ServerEnded("the server did not get ready:\n" + "".join(served.output))
    return served


async def _read(served: Served) -> None:
    assert served.process.stdout is not None
    while line := await served.process.stdout.readline():
        served.output.append(line.decode(errors="replace"))
        if b"FunSpeech serves at" in line:
            served.ready.set()
