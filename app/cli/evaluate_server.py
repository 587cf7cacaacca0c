"""A server of one's own for ``funspeech eval``: on a free port of this machine, with a token that
nobody else knows, and with some settings changed.

It is the supervisor of ``funspeech serve``, run inside this process, so that its children end with
us whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from app.cli.address import local_url
from app.cli.target import Target
from app.core import config as configuration
from app.core.config import Config, ConfigError
from app.core.log_sink import LogSink
from app.serving.children import StartFailed
from app.serving.supervisor import Running, Supervisor

_HOST: Final = "127.0.0.1"
_OURS: Final[dict[str, object]] = {
    "host": _HOST,
    "port": 0,
    "public_url": "",
    "ssl_certfile": None,
    "ssl_keyfile": None,
    "appkey": None,
    "max_tasks_per_appkey": 0,
    "drain_delay_seconds": 0.0,
    "drain_timeout_seconds": 0.0,
    # Speech is not evaluated, and its models would only take memory.
    "tts_engine": "fake",
    "tts_gpus": "",
}
_FIXED: Final = frozenset(_OURS) | {"apptoken", "log_file"}


class ServerEnded(Exception):
    """It did not start, or does not run any more; the text says why."""


def changed(config: Config, settings: Mapping[str, str]) -> Config:
    """``config`` with ``settings`` (variables and their values as in .env) in the place of its own;
    an empty value is the default.

    Raises:
        ConfigError: no such setting, one that is fixed here, or a malformed value.
    """
    for name in settings:
        if name.lower() not in Config.model_fields or not name.isupper():
            raise ConfigError(f"{name} is not a setting; .env.example has them all")
        if name.lower() in _FIXED:
            raise ConfigError(f"{name} cannot be chosen here: the server is for this command only")
    checked = configuration.load(env_file=None, environ=settings)
    return config.model_copy(
        update={name.lower(): getattr(checked, name.lower()) for name in settings}
    )


@contextmanager
def logging_to_file(config: Config) -> Iterator[LogSink]:
    """The log of these servers: only a file, of its own, since a server may be writing LOG_FILE.

    Raises:
        ConfigError: it cannot be written.
    """
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sink = LogSink(
            level=config.log_level,
            file=log_file(config),
            max_bytes=config.log_max_bytes,
            backups=config.log_backup_count,
            json_lines=config.log_json,
            console=nowhere,
        )
        sink.install()
        try:
            yield sink
        finally:
            sink.close()


def log_file(config: Config) -> Path:
    """``logs/funspeech-eval.log``, where LOG_FILE is ``logs/funspeech.log``."""
    return config.log_file.with_stem(f"{config.log_file.stem}-eval")


class Server:
    """A server that is ready."""

    def __init__(self, supervisor: Supervisor, target: Target, running: Running) -> None:
        """``running``: what it has announced."""
        self._supervisor = supervisor
        self.target = target
        recognition = (entry[1:] for entry in running.engines if entry[0] == "asr")
        self.engine, self.notice = next(recognition, ("", ""))

    def cpu_s(self) -> dict[int, float] | None:
        """CPU time so far of each process that has to do with recognition, by its id; None where
        the system does not tell (it does on Linux)."""
        children = [*self._supervisor.workers, *self._supervisor.apis, *self._supervisor.decoders]
        pids = [child.pid for child in children if child.pid is not None]
        try:
            return {pid: _process_cpu_s(pid) for pid in pids}
        except (OSError, ValueError, IndexError):
            return None

    @property
    def restarts(self) -> list[str]:
        """The names of processes that died and were started again."""
        children = [*self._supervisor.workers, *self._supervisor.apis]
        return [child.spec.name for child in children if child.restarts]


@asynccontextmanager
async def serving(config: Config, sink: LogSink) -> AsyncIterator[Server]:
    """A server with these settings, for as long as the block runs.

    Raises:
        ServerEnded: at the beginning or the end of the block.
    """
    token = secrets.token_hex(16)
    ours = config.model_copy(update={**_OURS, "apptoken": SecretStr(token)})
    ready = asyncio.Event()
    announced: list[Running] = []

    def announce(running: Running) -> None:
        announced.append(running)
        ready.set()

    supervisor = Supervisor(ours, sink.emit_line, announce)
    running = asyncio.create_task(supervisor.run())
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        if announced:
            url = local_url(_HOST, announced[0].port, tls=False)
            yield Server(supervisor, Target(url, token, "eval"), announced[0])
    finally:
        waiting.cancel()
        supervisor.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        try:
            await running
        except (ConfigError, StartFailed) as error:
            raise ServerEnded(str(error)) from None


def spent(before: Mapping[int, float] | None, after: Mapping[int, float] | None) -> float | None:
    """CPU seconds between two looks at :meth:`Server.cpu_s`."""
    if before is None or after is None:
        return None
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _process_cpu_s(pid: int) -> float:
    """User and system time (proc(5), /proc/pid/stat, fields 14 and 15)."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
