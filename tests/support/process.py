"""``funspeech serve`` as its users run it: processes, signals, ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.server import launch
from tests.support.rawsocket import RawSocket, handshake


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

    @property
    def host(self) -> str:
        """The address that it serves at."""
        return str(urlsplit(self.http).hostname)

    @property
    def port(self) -> int:
        """The port that its API processes share."""
        port = urlsplit(self.http).port
        assert port is not None
        return port

    def process_at(self, client_port: int) -> int:
        """The API process that serves the connection from this port."""
        for child in self.children("app.main"):
            for each in child.net_connections("tcp"):
                if each.raddr and each.raddr.port == client_port:
                    return child.pid
        raise AssertionError(f"no process has accepted the connection from port {client_port}")

    def children(self, module: str) -> list[psutil.Process]:
        """The processes that run ``app.serving.worker`` or ``app.main``."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                if module in child.cmdline():
                    found.append(child)
        return found

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def serving(folder: Path, **environment: str) -> AsyncIterator[Served]:
    """Serve on a free port with the fake engines and, as the tests with ``live_server``, with the
    WORKERS of our environment, unless ``environment`` says otherwise."""
    log_file = folder / "funspeech.log"
    variables = {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "ASR_ENGINE": "fake",
        "TTS_ENGINE": "fake",
        "WORKERS": os.environ.get("WORKERS", "1"),
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


async def counted(served: Served, name: str, token: str = "") -> float:
    """What ``/metrics`` says of a counter, all its labels together."""
    async with httpx.AsyncClient(base_url=served.http, timeout=30) as http:
        answer = await http.get("/metrics", headers={"X-NLS-Token": token})
    assert answer.status_code == 200
    return sum(
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == f"funspeech_{name}"
    )


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what other processes make true; fail if that never happens. A look costs
    milliseconds, so it is not as eager as :func:`tests.support.rawsocket.until`."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.1)


@asynccontextmanager
async def connected(served: Served, clients: int) -> AsyncIterator[dict[int, list[RawSocket]]]:
    """So many WebSockets, by the process that serves them: the kernel spreads them, so there are
    as many attempts as it takes until each process has its half."""
    pids = [process.pid for process in served.children("app.main")]
    ours: dict[int, list[RawSocket]] = {pid: [] for pid in pids}
    spare: list[RawSocket] = []
    try:
        async with asyncio.timeout(60):
            while min(map(len, ours.values())) < clients // len(pids):
                client = await handshake(served)
                mine = ours[served.process_at(client.local_port)]
                (mine if len(mine) < clients // len(pids) else spare).append(client)
        yield ours
    finally:
        for client in [*spare, *(each for mine in ours.values() for each in mine)]:
            client.abort(reset=False)


async def _read_on(output: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await output.readline():
        lines.append(line.decode())
