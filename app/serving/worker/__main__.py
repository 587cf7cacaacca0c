"""``python -m app.serving.worker CONTROL_FD LISTENER_FD``: started by the supervisor only."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from pathlib import Path

import msgspec
import uvloop

from app.core import logs, metrics, native_output
from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import registry
from app.serving.control import Control
from app.serving.worker.server import WorkerServer


class WorkerConfig(msgspec.Struct, kw_only=True):
    """What a worker is told. ``settings`` are the engine's own; ``max_streams`` and
    ``threads`` (of a synthesis worker) 0 are its choice; ``second_pass_budget_ms``: see
    :class:`app.serving.worker.refining.Refiner`. ``measured``: what the worker before this one
    has found out (``calibration.py``); nothing at the first start."""

    name: str
    role: Role
    engine: str
    device: str
    settings: dict[str, object]
    max_streams: int = 0
    threads: int = 0
    second_pass_budget_ms: int
    log_level: str = "INFO"
    metrics: str  # the folder of all processes' figures
    measured: tuple[tuple[int, float], ...] = ()


async def _serve(config: WorkerConfig, control: Control, listener: socket.socket) -> None:
    family = registry.load(config.engine)
    control.progress(f"loading {config.engine}")
    arguments = (config.device, config.settings, control.progress)
    recognizer = family.recognizer(*arguments) if config.role == "asr" else None
    synthesizer = family.synthesizer(*arguments) if config.role == "tts" else None
    server = WorkerServer(
        config.name,
        config.engine,
        config.device,
        recognizer=recognizer,
        synthesizer=synthesizer,
        max_streams=config.max_streams,
        threads=config.threads,
        second_pass_budget_ms=config.second_pass_budget_ms,
    )
    control.follow(asyncio.get_running_loop(), server.work, drain=server.drain)
    await server.calibrate(control.progress, known=config.measured)
    serving = asyncio.ensure_future(server.serve(listener))
    engine = recognizer or synthesizer
    # Models and libraries stay: the collector need not walk through them in the middle of a step.
    gc.collect()
    gc.freeze()
    if registry.ENGINES[config.engine].prints_texts:
        native_output.drop()
    control.ready(
        notice=engine.capabilities.notice if engine else "", keep={"measured": server.measured}
    )
    await serving


def main() -> None:
    """Load one engine and serve it until the supervisor ends this process."""
    # A terminal's signals are for the supervisor: it decides what ends when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control = Control(int(sys.argv[1]))
    config = msgspec.convert(control.read_config(), WorkerConfig)
    logs.setup_child(config.name, config.log_level, fd=native_output.own_stderr())
    metrics.name_process(config.name, Path(config.metrics))
    control.watch()
    listener = socket.socket(fileno=int(sys.argv[2]))
    try:
        uvloop.run(_serve(config, control, listener))
    except EngineNotUsable as error:
        control.fatal(str(error))
        sys.exit(3)


if __name__ == "__main__":
    main()
