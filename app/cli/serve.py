"""``funspeech serve``: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import sys

import structlog

from app.core import config as configuration
from app.core.log_sink import LogSink
from app.serving.children import StartFailed
from app.serving.supervisor import Running, Supervisor, stopping_on_signals

log = structlog.get_logger(__name__)


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
        asyncio.run(_run(config, sink))
    except (configuration.ConfigError, StartFailed) as error:
        sink.close()
        sys.exit(f"funspeech: {error}")
    sink.close()


async def _run(config: configuration.Config, sink: LogSink) -> None:
    supervisor = Supervisor(
        config, sink.emit_line, lambda running: print(banner(config, running), flush=True)
    )
    async with stopping_on_signals(supervisor):
        await supervisor.run()


def banner(config: configuration.Config, running: Running) -> str:
    """What the owner sees once the server serves."""
    scheme = "https" if config.ssl_certfile else "http"
    reachable = "127.0.0.1" if running.host in ("0.0.0.0", "::", "") else running.host
    base = config.public_url or f"{scheme}://{reachable}:{running.port}"
    token = " -H 'X-NLS-Token: <APPTOKEN>'" if config.apptoken else ""
    names = {"asr": "recognition", "tts": "synthesis"}
    lines = ["", f"FunSpeech serves at {base}"]
    lines.append(f"  NLS SDKs     url = {base.replace('http', 'ws', 1)}/ws/v1")
    lines.append(f"  health       {base}/health")
    if config.debug:
        lines.append(f"  API docs     {base}/docs")
    for role, engine, notice in running.engines:
        lines.append(f"  {names[role]:<12} {engine}" + (f": {notice}" if notice else ""))
    lines += [
        "",
        "Try it:",
        f"  curl{token} --data-binary @examples/hello.wav '{base}/stream/v1/asr?format=wav'",
        f"  curl{token} '{base}/stream/v1/tts?format=wav&text=hello' -o hello.wav",
        "",
    ]
    return "\n".join(lines)
