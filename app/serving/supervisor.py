"""``funspeech serve``: the process that starts, watches and ends all the others.

It holds what must survive their deaths: the listening sockets (one per API process, with
SO_REUSEPORT; a connection that comes while its process is being restarted waits in the socket) and
the workers' Unix sockets, in a private folder that is removed at the end. It is the only writer of
the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import SecretStr

from app.core.config import Config, ConfigError
from app.core.errors import EngineNotUsable
from app.engines import registry
from app.serving.children import Child, ChildSpec, StartFailed

log = structlog.get_logger(__name__)

STOP_GRACE_S: Final = 10.0
_UNIX_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class Running:
    """What is told to the owner once everything serves."""

    host: str
    port: int
    engines: tuple[tuple[str, str, str], ...]  # (role, engine, notice)


class Supervisor:
    """Runs a whole server for one config."""

    def __init__(
        self,
        config: Config,
        emit_line: Callable[[str, bytes], None],
        announce: Callable[[Running], None],
    ) -> None:
        """``emit_line(source, line)`` takes what the children print; ``announce`` is called once,
        when all of them are ready."""
        self._config = config
        self._emit_line = emit_line
        self._announce = announce
        self._stop = asyncio.Event()
        self.workers: list[Child] = []
        self.apis: list[Child] = []
        self.port = config.port

    def stop(self) -> None:
        """End everything; :meth:`run` returns then."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until :meth:`stop`.

        Raises:
            ConfigError: an address, or an engine, that cannot be had; the text says what to do.
            StartFailed: a process that cannot start.
        """
        _check_certificate(self._config)
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="funspeech-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            listeners = [stack.enter_context(each) for each in self._listen()]
            replicas = self._make_workers(folder, stack)
            self._make_apis(listeners, replicas)
            try:
                await self._supervise()
            except* StartFailed as failures:
                raise StartFailed("; ".join(str(each) for each in failures.exceptions)) from None

    async def _supervise(self) -> None:
        async with asyncio.TaskGroup() as group:
            children = [*self.workers, *self.apis]
            keeping = [group.create_task(child.keep()) for child in children]
            announcing = group.create_task(self._tell_ready())
            try:
                await self._stop.wait()
            finally:
                announcing.cancel()
                for child in children:
                    child.expect_end()
                # Clients first: their tasks need the workers to the end.
                await _stop_all(self.apis)
                await _stop_all(self.workers)
                for task in keeping:
                    task.cancel()

    async def _tell_ready(self) -> None:
        for child in [*self.workers, *self.apis]:
            await child.ready.wait()
        engines = []
        for child in self.workers:
            role, engine = str(child.spec.config["role"]), str(child.spec.config["engine"])
            entry = (role, engine, str(child.facts.get("notice", "")))
            if entry not in engines:
                engines.append(entry)
        self._announce(Running(self._config.host, self.port, tuple(engines)))

    # Sockets

    def _listen(self) -> list[socket.socket]:
        """One socket per API process, on the same port."""
        host, shared = self._config.host, self._config.workers > 1
        try:
            # Without SO_REUSEPORT, so that another server on this port is noticed.
            with _bound(host, self.port, shared=False) as probe:
                if self.port == 0 or not shared:
                    self.port = probe.getsockname()[1]
                if not shared:
                    return [probe.dup()]
            return [_bound(host, self.port, shared=True) for _ in range(self._config.workers)]
        except OSError as error:
            raise ConfigError(_explain(error, host, self.port)) from None

    # Processes

    def _make_workers(self, folder: Path, stack: contextlib.ExitStack) -> list[dict[str, str]]:
        replicas = []
        for role, devices in (
            ("asr", self._config.asr_devices()),
            ("tts", self._config.tts_devices()),
        ):
            engine = self._choose(role)
            if engine is None:
                continue
            for index, device in enumerate(devices):
                name, path = f"{role}-{index}", str(folder / f"{role}-{index}.sock")
                listener = stack.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(path)
                listener.listen(_UNIX_BACKLOG)
                listener.setblocking(False)
                self.workers.append(self._worker(name, role, engine, device, listener))
                replicas.append({"name": name, "role": role, "path": path})
        if not replicas:
            raise ConfigError(
                "no speech engine is installed; for engines to try out, "
                f"{registry.how_to_install('embedded')}"
            )
        return replicas

    def _choose(self, role: Any) -> str | None:
        wanted = self._config.asr_engine if role == "asr" else self._config.tts_engine
        try:
            return registry.choose(wanted, role)
        except EngineNotUsable as error:
            if wanted == "auto":
                log.warning("serving without this half", role=role, reason=str(error))
                return None
            raise ConfigError(f"{role.upper()}_ENGINE: {error}") from None

    def _worker(
        self, name: str, role: str, engine: str, device: str, listener: socket.socket
    ) -> Child:
        environment = {}
        if not registry.ENGINES[engine].gpu:
            if device.startswith("cuda"):
                log.warning("this engine runs on the CPU only", engine=engine, asked_for=device)
            device = "cpu"
        elif device.startswith("cuda:"):
            # The worker sees its card as the first one.
            environment["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:")
            device = "cuda:0"
        config = {
            "name": name,
            "role": role,
            "engine": engine,
            "device": device,
            "settings": self._config.engine_settings(engine),
            "max_streams": self._config.max_streams,
            "threads": self._config.inference_thread_pool_size,
            "log_level": self._config.log_level,
        }
        return self._child(ChildSpec(name, "app.serving.worker", config, [listener], environment))

    def _make_apis(
        self, listeners: Sequence[socket.socket], replicas: list[dict[str, str]]
    ) -> None:
        settings = {name: _plain(value) for name, value in self._config}
        for index, listener in enumerate(listeners):
            name = f"api-{index}"
            config = {"name": name, "settings": settings, "replicas": replicas}
            self.apis.append(self._child(ChildSpec(name, "app.main", config, [listener])))

    def _child(self, spec: ChildSpec) -> Child:
        return Child(spec, self._config.start_timeout_seconds, self._emit_line)


@asynccontextmanager
async def stopping_on_signals(supervisor: Supervisor) -> AsyncIterator[None]:
    """SIGTERM and SIGINT stop the supervisor inside the block."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for each in signals:
        loop.add_signal_handler(each, supervisor.stop)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


async def _stop_all(children: list[Child]) -> None:
    await asyncio.gather(*(child.stop(STOP_GRACE_S) for child in children))


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        # Listening here and not in the child, so that a port in use is found now.
        listener.listen(2048)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _check_certificate(config: Config) -> None:
    if config.ssl_certfile is None or config.ssl_keyfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            config.ssl_certfile, config.ssl_keyfile, password=lambda: b""
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "SSL_CERTFILE, SSL_KEYFILE: not a certificate and its key, both PEM and without a "
            f"password ({getattr(error, 'reason', None) or 'cannot be read'})"
        ) from None


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"PORT: {port} is in use; stop the other server or set PORT to a free one"
    if error.errno == errno.EACCES:
        return f"PORT: no permission to listen on {port}; set PORT to 1024 or more"
    return f"HOST: cannot listen on {host!r}: {error.strerror or error}"


def _plain(value: object) -> object:
    """A setting as JSON has it. Secrets are written out: this goes to our own child only."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value
