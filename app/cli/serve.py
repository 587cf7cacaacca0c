"""``funspeech serve``: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from app import __version__
from app.cli.address import local_url
from app.cli.better import ROLES, better_engine, choose_engine, wanted
from app.core import config as configuration
from app.core.errors import EngineNotUsable
from app.core.log_sink import LogSink, discard
from app.core.speech import Role
from app.engines import registry
from app.serving.children import StartFailed
from app.serving.supervisor import Running, Supervisor, stopping_on_signals

log = structlog.get_logger(__name__)

_NAMES: Final[Mapping[Role, str]] = {"asr": "recognition", "tts": "synthesis"}


def serve() -> None:
    """Serve with the settings of the environment and .env; see .env.example."""
    try:
        config = configuration.load()
        sink = LogSink(
            level=config.log_level,
            file=config.log_file,
            max_bytes=config.log_max_bytes,
            backups=config.log_backup_count,
            json_lines=config.log_json,
        )
    except configuration.ConfigError as error:
        sys.exit(f"funspeech: {error}")
    sink.install()
    for warning in config.warnings:
        log.warning(warning)
    try:
        check_engines(config)
        asyncio.run(_run(config, sink))
    except (configuration.ConfigError, StartFailed) as error:
        sink.close()
        sys.exit(f"funspeech: {error}")
    sink.close()


def check_engines(config: configuration.Config) -> None:
    """Stop before anything starts where ``auto`` cannot choose because a setting is wrong: half a
    server would hide it. That no engine is installed for a half is the supervisor's to tell.

    Raises:
        ConfigError: a setting has a value that cannot be; the text says which.
    """
    for role in ROLES:
        if wanted(config, role)[0] == "auto":
            try:
                choose_engine(config, role)
            except registry.NotInstalled:
                continue
            except EngineNotUsable as error:
                raise configuration.ConfigError(str(error)) from None


async def _run(config: configuration.Config, sink: LogSink) -> None:
    supervisor = TellingSupervisor(
        config,
        sink.emit_line,
        lambda running: announce(config, running),
        lambda: reread(config, sink),
    )
    async with stopping_on_signals(supervisor):
        await supervisor.run()


class TellingSupervisor(Supervisor):
    """Says in the log that a stop was asked for, and rereads what is not the supervisor's own."""

    def __init__(
        self,
        config: configuration.Config,
        emit_line: Callable[[str, bytes], None],
        announce: Callable[[Running], None],
        reread: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, emit_line, announce)
        self._reread = reread

    def reload(self) -> None:
        """See :meth:`Supervisor.reload`."""
        self._reread()
        super().reload()

    def stop(self) -> None:
        """See :meth:`Supervisor.stop`."""
        log.info("stopping")
        super().stop()


def reread(config: configuration.Config, sink: LogSink) -> None:
    """Go on in a new log file if the old one was moved, and name the settings that were changed
    since the start: they take effect with the next one."""
    sink.reopen()
    try:
        names = configuration.changed(config, configuration.load())
    except configuration.ConfigError as error:
        log.error("the changed settings would stop the next start", reason=str(error))
        return
    if names:
        log.warning("changed settings need a restart", settings=names)


def announce(config: configuration.Config, running: Running) -> None:
    """Tell the owner that everything serves: at length on standard output, and in the log."""
    engines = {role: engine for role, engine, _ in running.engines}
    address = shown_address(config, running)
    log.info("serving", version=__version__, address=address, engines=engines)
    try:
        print(banner(config, running), flush=True)
    except OSError:
        discard(sys.stdout)  # nobody is there to read it; the server goes on


def shown_address(config: configuration.Config, running: Running) -> str:
    """The address that people are told: PUBLIC_URL, else the one on this machine."""
    if config.public_url:
        return config.public_url
    return local_url(running.host, running.port, tls=config.ssl_certfile is not None)


def banner(config: configuration.Config, running: Running) -> str:
    """What the owner sees once the server serves."""
    base = shown_address(config, running)
    lines = ["", f"FunSpeech serves at {base}"]
    lines.append(f"  NLS SDKs     url = {base.replace('http', 'ws', 1)}/ws/v1")
    lines.append(f"  health       {base}/health")
    if config.debug:
        lines.append(f"  API docs     {base}/docs")
    for role, engine, notice in running.engines:
        lines.append(f"  {_NAMES[role]:<12} {engine}" + (f": {notice}" if notice else ""))
        if better := better_engine(config, role, engine):
            lines.append(f"{'':<15}for better {_NAMES[role]}: {better}")
    for role in sorted(set(ROLES) - {role for role, _, _ in running.engines}):
        lines.append(f"  {_NAMES[role]:<12} none: {_why_none(config, role)}")
    for label, engine, notice in running.models:
        lines.append(f"  model {label}: {engine}" + (f": {notice}" if notice else ""))
    lines += ["", "Try it:", *_examples(config, running, base), ""]
    return "\n".join(lines)


def _why_none(config: configuration.Config, role: Role) -> str:
    """Why there is no engine for a role that is not served."""
    try:
        choose_engine(config, role)
    except EngineNotUsable as error:
        return str(error)
    return "it was not installed at the start; restart"


def _examples(config: configuration.Config, running: Running, base: str) -> list[str]:
    """A curl command for each half that runs."""
    running_roles = {role for role, _, _ in running.engines}
    curl = "  curl"
    if config.ssl_certfile is not None and not config.public_url:
        curl += " --insecure"  # a certificate is seldom made for an address of this machine
    appkey = ""
    if config.apptoken is not None:
        curl += " -H 'X-NLS-Token: <APPTOKEN>'"
    elif config.appkey is not None:
        appkey = "appkey=<APPKEY>&"
    asr = f"{curl} --data-binary @examples/hello.wav '{base}/stream/v1/asr?{appkey}format=wav'"
    tts = f"{curl} '{base}/stream/v1/tts?{appkey}format=wav&text=hello' -o hello.wav"
    return [line for role, line in (("asr", asr), ("tts", tts)) if role in running_roles]
