"""A whole server inside the test's event loop: real sockets, real worker protocol, real HTTP; only
the supervisor and its processes are left out (tests/integration/test_processes.py has those).

WORKERS in the environment is the number of API servers that share the port and the workers, as in
production: `make test` runs these tests with 1 and with 2.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.api.drain import Drain
from app.api.server import Server, build_server
from app.core.config import Config
from app.core.speech import Role
from app.engines import registry
from app.engines.base import Recognizer, Synthesizer
from app.main import build_drain, running_app
from app.serving.decoding.server import DecodeServer
from app.serving.quota import Quota, counting
from app.serving.replica import Replica
from app.serving.worker.server import WorkerServer

FAKE_SETTINGS: dict[str, object] = {
    "FAKE_ASR_DELAY_MS": 0,
    "FAKE_ASR_ITEM_MS": 0,
    "FAKE_ASR_BATCH": 0,
    "FAKE_ASR_SCRIPT": "",
    "FAKE_TTS_DELAY_MS": 0,
}


@functools.cache
def embedded_recognizer() -> Recognizer:
    """Loaded once: building its decoders takes seconds."""
    return registry.load("embedded").recognizer("cpu", {}, lambda text: None)


@functools.cache
def embedded_synthesizer() -> Synthesizer:
    """Loaded once: the library has one global state."""
    return registry.load("embedded").synthesizer("cpu", {}, lambda text: None)


@dataclass
class Live:
    """A running server and what a test may look into."""

    host: str
    port: int
    workers: list[WorkerServer] = field(default_factory=list)
    sockets: list[tuple[str, Role, str, str]] = field(default_factory=list)
    """Of each worker: name, role, path and model."""
    decoder: DecodeServer | None = None
    apis: list[tuple[Drain, Server]] = field(default_factory=list)
    quota: Quota | None = None
    """Counts the tasks of the appkeys that have a limit."""
    replicas: list[list[Replica]] = field(default_factory=list)
    """Of each API server, its ends of the connections to the workers."""
    own_ports: list[int] = field(default_factory=list)
    """Of each API server, a port that it does not share, for a test that has to choose."""

    def begin_drain(self) -> None:
        """What SIGTERM does in an API process, in all of them."""
        for drain, server in self.apis:
            drain.begin(server)

    @property
    def http(self) -> str:
        """Base URL of the REST doors."""
        return f"http://{self.host}:{self.port}"

    def cut(self, worker: WorkerServer) -> None:
        """Break all connections to a worker off, as its death would; it serves new ones."""
        for connection in list(worker._connections):
            transport = connection.link._transport
            assert transport is not None
            transport.abort()

    @property
    def ws(self) -> str:
        """URL that every SDK takes."""
        return f"ws://{self.host}:{self.port}/ws/v1"

    def ws_of(self, api: int) -> str:
        """The same, of one of the API servers."""
        return f"ws://{self.host}:{self.own_ports[api]}/ws/v1"


def _recognizer(name: str, settings: dict[str, object]) -> Recognizer:
    if name == "embedded":
        return embedded_recognizer()
    return registry.load(name).recognizer("cpu", settings, lambda text: None)


def _synthesizer(name: str, settings: dict[str, object]) -> Synthesizer:
    if name == "embedded":
        return embedded_synthesizer()
    return registry.load(name).synthesizer("cpu", settings, lambda text: None)


@asynccontextmanager
async def live_server(
    folder: Path,
    *,
    asr: str | Recognizer | None = "fake",
    tts: str | Synthesizer | None = "fake",
    replicas: int = 1,
    apis: int | None = None,
    max_streams: int = 0,
    second_pass_budget_ms: int = 600,
    engine_settings: Mapping[str, object] | None = None,
    models: Mapping[str, str | Recognizer] | None = None,
    **settings: Any,
) -> AsyncIterator[Live]:
    """A server on a free port of 127.0.0.1. ``asr`` and ``tts``: an engine's name, an engine, or
    None for none; ``apis``: how many API servers, if it is not left to WORKERS; ``settings``:
    fields of the config; ``engine_settings``: FAKE_*; ``models``: as MODELS_FILE, an
    engine or its name for each label, with as many replicas as the server's own."""
    config = Config.model_validate(
        {
            "host": "127.0.0.1",
            "port": 0,
            "data_dir": folder / "data",
            "voices_dir": folder / "voices",
            **settings,
        }
    )
    fake = {**FAKE_SETTINGS, **(engine_settings or {})}
    count = int(os.environ.get("WORKERS", "1")) if apis is None else apis
    live = Live("127.0.0.1", 0)
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        serving: list[asyncio.Task[None]] = []
        recognizers = {**({} if asr is None else {"": asr}), **(models or {})}
        for index in range(replicas):
            for label, heard_by in recognizers.items():
                engine = _recognizer(heard_by, fake) if isinstance(heard_by, str) else heard_by
                worker = WorkerServer(
                    f"asr-{label}-{index}" if label else f"asr-{index}",
                    "test",
                    "cpu",
                    recognizer=engine,
                    max_streams=max_streams,
                    second_pass_budget_ms=second_pass_budget_ms,
                )
                serving.append(_host(group, live, worker, folder, label))
            if tts is not None:
                speaker = _synthesizer(tts, fake) if isinstance(tts, str) else tts
                worker = WorkerServer(f"tts-{index}", "test", "cpu", synthesizer=speaker)
                serving.append(_host(group, live, worker, folder))
        serving.append(_host_decoder(group, live, folder, config.max_decode_seconds))
        quota = folder / "quota.sock"
        live.quota = await stack.enter_async_context(counting(quota))
        servers = [await _serve(stack, group, live, config, quota) for _ in range(count)]
        try:
            yield live
        finally:
            for server, running in servers:
                server.should_exit = True
                await running
            for task in serving:
                task.cancel()


def _host_decoder(
    group: asyncio.TaskGroup, live: Live, folder: Path, wall_s: float
) -> asyncio.Task[None]:
    (folder / "files").mkdir(exist_ok=True)
    live.decoder = DecodeServer(folder / "files", threads=2, wall_s=wall_s)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "decode.sock"))
    listener.listen(8)
    listener.setblocking(False)
    return group.create_task(live.decoder.serve(listener))


async def _serve(
    stack: AsyncExitStack, group: asyncio.TaskGroup, live: Live, config: Config, quota: Path
) -> tuple[Server, asyncio.Task[None]]:
    """One API server, with connections of its own to the workers, on the port of the others."""
    replicas = [Replica(*each) for each in live.sockets]
    drain = build_drain(config)
    app = await stack.enter_async_context(
        running_app(
            config, replicas, drain, str(quota.parent / "decode.sock"), quota_socket=str(quota)
        )
    )
    for replica in replicas:
        await asyncio.wait_for(replica.ready.wait(), 10)
    listener = socket.create_server((live.host, live.port), reuse_port=True)
    live.port = listener.getsockname()[1]
    own = socket.create_server((live.host, 0))
    started = asyncio.Event()
    server = build_server(app, max_message_bytes=config.max_message_bytes, on_started=started.set)
    running = group.create_task(server.serve(sockets=[listener, own]))
    await started.wait()
    live.apis.append((drain, server))
    live.replicas.append(replicas)
    live.own_ports.append(own.getsockname()[1])
    return server, running


def _host(
    group: asyncio.TaskGroup, live: Live, worker: WorkerServer, folder: Path, model: str = ""
) -> asyncio.Task[None]:
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / f"{worker.hello.name}.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.setblocking(False)
    live.workers.append(worker)
    live.sockets.append((worker.hello.name, worker.hello.role, path, model))
    return group.create_task(worker.serve(listener))
