"""The bare echo of ``echo.py`` in a process of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import server


@dataclass(frozen=True, slots=True)
class Echo:
    """A running echo server."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def ws(self) -> str:
        """Its URL."""
        return f"ws://127.0.0.1:{self.port}/"


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    """The echo server, listening.

    Raises:
        ServerEnded: it did not start.
    """
    port = server.free_port()
    with tempfile.TemporaryDirectory(prefix="funspeech-bench-") as folder:
        process = await server.launch("benchmarks.echo", str(port), folder=Path(folder))
        try:
            await server.listening(port, process)
            yield Echo(process, port)
        finally:
            await server.end(process)
