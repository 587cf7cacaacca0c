"""``funspeech serve`` as its users run it: processes, signals, ports."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.server import launch


@dataclass
class Served:
    """A running ``funspeech serve``."""

    process: asyncio.subprocess.Process
    banner: str
    http: str
    log_file: Path
    output: list[str] = field(default_factory=list)

    @property
    def ws(self) -> str:
        """URL that every SDK takes."""
        return self.http.replace("http", "ws", 1) + "/ws/v1"

    def children(self, module: str) -> list[psutil.Process]:
        """The processes that run ``app.serving.worker`` or ``app.main``."""
        return [
            child
            for child in psutil.Process(self.process.pid).children()
            if module in child.cmdline()
        ]

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def serving(folder: Path, **environment: str) -> AsyncIterator[Served]:
    """Serve on a free port with the fake engines, unless ``environment`` says otherwise."""
    log_file = folder / "funspeech.log"
    variables = {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "ASR_ENGINE": "fake",
        "TTS_ENGINE": "fake",
        "LOG_FILE": str(log_file),
        "VOICES_DIR": str(folder / "voices"),
        "DATA_DIR": str(folder / "data"),
        **environment,
    }
    process = await launch("app", "serve", folder=folder, variables=variables)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(60):
            while not (lines and "/stream/v1/tts" in lines[-1]):
                line = await process.stdout.readline()
                if not line:
                    raise AssertionError("the server ended:\n" + "".join(lines))
                lines.append(line.decode())
        banner = "".join(lines)
        address = re.search(r"serves at (\S+)", banner)
        assert address is not None
        served = Served(process, banner, address.group(1), log_file, lines)
        reading = asyncio.create_task(_read_on(process.stdout, lines))
        try:
            yield served
        finally:
            await served.stop()
            await reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read_on(output: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await output.readline():
        lines.append(line.decode())
