"""``funspeech serve``: the process that starts, watches and ends all the others.

It holds what must survive their deaths: the listening sockets (one per API process, with
SO_REUSEPORT; a connection that comes while its process is being restarted waits in the socket) and
the workers' Unix sockets, in a private folder that is removed at the end. It is the only writer of
the log. SIGTERM and SIGINT stop it, SIGHUP has it read again what may change while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from pydantic import SecretStr

from app.core.config import Config, ConfigError
from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import registry
from app.serving import certificate
from app.serving.children import Child, ChildSpec, StartFailed
from app.serving.descriptors import raise_limit
from app.serving.listeners import listen
from app.serving.models_file import recognition_models
from app.serving.quota import counting
from app.serving.rolling import Rolling, socket_name
from app.serving.runtime_folder import runtime_folder

log = structlog.get_logger(__name__)

METRICS_DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The metrics library's name for the folder of each process' figures (``app/core/metrics.py``)."""

STOP_GRACE_S: Final = 10.0
"""A child that should have ended is killed after this time; an API process has its drain first."""
_UNIX_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class Running:
    """What is told to the owner once everything serves."""

    host: str
    port: int
    engines: tuple[tuple[Role, str, str], ...]  # (role, engine, notice)
    models: tuple[tuple[str, str, str], ...] = ()  # (label, engine, notice), of MODELS_FILE


@dataclass(frozen=True, slots=True)
class _Offered:
    """One model of the server: of a role, with its label ("" for the server's own) and the settings
    that hold for it."""

    role: Role
    model: str
    config: Config

    @property
    def name(self) -> str:
        """What its workers' names begin with."""
        return f"{self.role}-{self.model}" if self.model else self.role

    @property
    def devices(self) -> list[str]:
        """One for each of its workers."""
        return self.config.asr_devices() if self.role == "asr" else self.config.tts_devices()


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
        self.decoders: list[Child] = []
        self.port = config.port
        self._metrics = Path()
        self._quota_socket = Path()
        self._gone: dict[str, asyncio.Event] = {}  # by the worker's name; set when one has ended

    def stop(self) -> None:
        """End everything; :meth:`run` returns then."""
        if self._stop.is_set():
            # Asked twice: the API processes do not wait for their clients any more.
            for child in self.apis:
                child.terminate()
        self._stop.set()

    def reload(self) -> None:
        """Serve the certificate that its files hold now; if it is no good, go on with the old one
        and log an error. Open connections are not touched."""
        log.info("reloading")
        try:
            self._check_certificate()
        except ConfigError as error:
            log.error("the certificate is not renewed", reason=str(error))
            return
        for child in self.apis:
            child.reload()

    async def run(self) -> None:
        """Serve until :meth:`stop`.

        Raises:
            ConfigError: an address, or an engine, that cannot be had; the text says what to do.
            StartFailed: a process that cannot start.
        """
        self._check_certificate()
        raise_limit(self._config.max_connections)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(runtime_folder())
            self._metrics = folder / "metrics"
            self._metrics.mkdir()
            self._quota_socket = folder / "quota.sock"
            os.environ[METRICS_DIRECTORY_VARIABLE] = str(self._metrics)
            listeners = [
                stack.enter_context(each)
                for each in listen(self._config.host, self.port, self._config.workers)
            ]
            self.port = listeners[0].getsockname()[1]
            replicas = self._make_workers(folder, stack)
            decoding = self._make_decoder(folder, stack)
            self._make_apis(listeners, replicas, decoding)
            rolling = Rolling(self.workers, self._config.drain_timeout_seconds)
            try:
                async with (
                    rolling.listening(folder / socket_name(self.port)),
                    counting(self._quota_socket),
                ):
                    await self._supervise()
            except* StartFailed as failures:
                raise StartFailed("; ".join(str(each) for each in failures.exceptions)) from None

    def _check_certificate(self) -> None:
        if self._config.ssl_certfile is not None and self._config.ssl_keyfile is not None:
            certificate.check(self._config.ssl_certfile, self._config.ssl_keyfile)

    async def _supervise(self) -> None:
        async with asyncio.TaskGroup() as group:
            children = [*self.workers, *self.apis]
            keeping = [group.create_task(child.keep()) for child in children]
            keeping.append(group.create_task(self._keep_decoder()))
            announcing = group.create_task(self._tell_ready())
            showing = [group.create_task(self._show_ready(child)) for child in self.workers]
            try:
                await self._stop.wait()
            finally:
                for task in [announcing, *showing]:
                    task.cancel()
                # Clients first: their tasks need the workers to the end, also one that dies now.
                for child in self.apis:
                    child.expect_end()
                    # Ours too, so that clients are refused once the API process has closed its own.
                    for listener in child.spec.inherited:
                        listener.close()
                drain_s = self._config.drain_delay_seconds + self._config.drain_timeout_seconds
                await _stop_all(self.apis, drain_s + STOP_GRACE_S)
                await _stop_all([*self.workers, *self.decoders], STOP_GRACE_S)
                for task in keeping:
                    task.cancel()

    async def _tell_ready(self) -> None:
        for child in [*self.workers, *self.apis]:
            await child.ready.wait()
        engines: dict[tuple[Role, str, str], None] = {}
        models: dict[tuple[str, str, str], None] = {}
        for child in self.workers:
            role: Role = "asr" if child.spec.config["role"] == "asr" else "tts"
            engine, notice = str(child.spec.config["engine"]), str(child.facts.get("notice", ""))
            if label := str(child.spec.config["model"]):
                models[label, engine, notice] = None
            else:
                engines[role, engine, notice] = None
        self._announce(Running(self._config.host, self.port, tuple(engines), tuple(models)))

    async def _show_ready(self, worker: Child) -> None:
        """Keep the metric of the worker's state."""
        # Imported here: it looks for its folder in the environment, and costs the start time.
        from app.core import metrics

        name = worker.spec.name
        ready, gone = metrics.REPLICA_READY.labels(name), asyncio.Event()
        self._gone[name] = gone
        while True:
            ready.set(0)
            await worker.ready.wait()
            ready.set(1)
            await gone.wait()
            gone.clear()

    # Processes

    def _make_workers(self, folder: Path, stack: contextlib.ExitStack) -> list[dict[str, str]]:
        models = recognition_models(self._config)
        offered = [_Offered("asr", label, config) for label, config in models.items()]
        chosen = [
            (each, engine)
            for each in [*offered, _Offered("tts", "", self._config)]
            if (engine := _choose(each)) is not None
        ]
        if not chosen:
            raise ConfigError(
                "no speech engine is installed; for engines to try out, "
                f"{registry.how_to_install('embedded')}"
            )
        replicas: list[dict[str, str]] = []
        for each, engine in chosen:
            # All models of a role share the machine.
            together = sum(len(other.devices) for other, _ in chosen if other.role == each.role)
            for index, device in enumerate(each.devices):
                name = f"{each.name}-{index}"
                # Not by its name, which may be long: a socket's path may not.
                path = str(folder / f"{each.role}-{len(replicas)}.sock")
                listener = _unix_listener(path, stack)
                self.workers.append(self._worker(name, each, engine, device, listener, together))
                replicas.append(
                    {"name": name, "role": each.role, "model": each.model, "path": path}
                )
        return replicas

    def _worker(
        self,
        name: str,
        offered: _Offered,
        engine: str,
        device: str,
        listener: socket.socket,
        replicas: int,
    ) -> Child:
        environment = {}
        if registry.ENGINES[engine].auto_on_card is None:
            if device.startswith("cuda"):
                log.warning("this engine runs on the CPU only", engine=engine, asked_for=device)
            device = "cpu"
        elif device.startswith("cuda:"):
            # The worker sees its card as the first one.
            environment["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:")
            device = "cuda:0"
        config = {
            "name": name,
            "role": offered.role,
            "model": offered.model,
            "engine": engine,
            "device": device,
            "settings": {**offered.config.engine_settings(engine), "REPLICAS": replicas},
            "max_streams": offered.config.max_streams,
            "threads": self._config.inference_thread_pool_size,
            "second_pass_budget_ms": offered.config.asr_second_pass_budget_ms,
            "log_level": self._config.log_level,
            "metrics": str(self._metrics),
        }
        return self._child(ChildSpec(name, "app.serving.worker", config, [listener], environment))

    def _make_decoder(self, folder: Path, stack: contextlib.ExitStack) -> str:
        """The decode process; returns the path of its socket."""
        files, path = folder / "files", str(folder / "decode.sock")
        files.mkdir()
        config = {
            "name": "decode",
            "folder": str(files),
            "threads": self._config.inference_threads(),
            "wall_s": self._config.max_decode_seconds,
            "log_level": self._config.log_level,
            "metrics": str(self._metrics),
        }
        spec = ChildSpec("decode", "app.serving.decoding", config, [_unix_listener(path, stack)])
        self.decoders.append(self._child(spec))
        return path

    async def _keep_decoder(self) -> None:
        """Not before the others: the first tasks do not need it, and it would slow them down."""
        for child in [*self.workers, *self.apis]:
            await child.ready.wait()
        for child in self.decoders:
            await child.keep()

    def _make_apis(
        self,
        listeners: Sequence[socket.socket],
        replicas: list[dict[str, str]],
        decoding: str,
    ) -> None:
        settings = {name: _plain(value) for name, value in self._config}
        for index, listener in enumerate(listeners):
            name = f"api-{index}"
            config = {
                "name": name,
                "settings": settings,
                "replicas": replicas,
                "decoding": decoding,
                "metrics": str(self._metrics),
                "quota": str(self._quota_socket),
            }
            self.apis.append(self._child(ChildSpec(name, "app.main", config, [listener])))

    def _child(self, spec: ChildSpec) -> Child:
        child = Child(
            spec,
            self._config.start_timeout_seconds,
            self._config.hang_timeout_seconds,
            self._emit_line,
        )
        child.on_restart = self._replaced
        return child

    def _replaced(self, name: str, planned: bool) -> None:
        """A process has ended, and another is about to be started in its place."""
        # Imported here: it looks for its folder in the environment, and costs the start time.
        from app.core import metrics

        metrics.RESTARTS.labels(name, str(planned).lower()).inc()
        if (gone := self._gone.get(name)) is not None:
            gone.set()
        metrics.forget_process(name, self._metrics)


@asynccontextmanager
async def stopping_on_signals(supervisor: Supervisor) -> AsyncIterator[None]:
    """SIGTERM and SIGINT stop the supervisor inside the block. SIGHUP has it reload, or stop it
    when it means that its terminal was closed, unless nohup wants it to survive that."""
    loop = asyncio.get_running_loop()
    survives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN or not _has_terminal()

    def hung_up() -> None:
        if survives or _has_terminal():
            supervisor.reload()
        else:
            supervisor.stop()

    handlers = {
        signal.SIGTERM: supervisor.stop,
        signal.SIGINT: supervisor.stop,
        signal.SIGHUP: hung_up,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _unix_listener(path: str, stack: contextlib.ExitStack) -> socket.socket:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen(_UNIX_BACKLOG)
    listener.setblocking(False)
    return listener


def _choose(offered: _Offered) -> str | None:
    """The engine of a model; None where the server can do without.

    Raises:
        ConfigError: the settings ask for one that cannot be had; the text says what to do.
    """
    role, config = offered.role, offered.config
    wanted = config.asr_engine if role == "asr" else config.tts_engine
    try:
        return registry.choose(wanted, role, config.engine_settings, offered.devices)
    except EngineNotUsable as error:
        if offered.model:
            raise ConfigError(f"MODELS_FILE: [{offered.model}]: {error}") from None
        if wanted == "auto":
            log.warning("serving without this half", role=role, reason=str(error))
            return None
        raise ConfigError(f"{role.upper()}_ENGINE: {error}") from None


async def _stop_all(children: list[Child], grace_s: float) -> None:
    await asyncio.gather(*(child.stop(grace_s) for child in children))


def _plain(value: object) -> object:
    """A setting as JSON has it. Secrets are written out: this goes to our own child only."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value
