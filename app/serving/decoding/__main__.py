"""``python -m app.serving.decoding CONTROL_FD LISTENER_FD``: started by the supervisor only."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import msgspec
import structlog
import uvloop

from app.audio.ffmpeg_memory import bound_allocations
from app.core import logs, metrics
from app.serving.control import Control
from app.serving.decoding.server import DecodeServer

log = structlog.get_logger(__name__)

NICENESS = 5
"""Live streams come first: they are in the other processes."""


class DecodingConfig(msgspec.Struct, kw_only=True):
    """What the process is told; see :class:`DecodeServer`."""

    name: str
    folder: str
    threads: int
    wall_s: float
    log_level: str
    metrics: str  # the folder of all processes' figures


async def _serve(config: DecodingConfig, control: Control, listener: socket.socket) -> None:
    if not await asyncio.to_thread(bound_allocations):
        log.warning("FFmpeg's memory is not bounded")
    server = DecodeServer(Path(config.folder), config.threads, config.wall_s)
    control.follow(asyncio.get_running_loop(), server.work)
    control.ready()
    await server.serve(listener)


def main() -> None:
    """Decode until the supervisor ends this process."""
    # A terminal's signals are for the supervisor: it decides what ends when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control = Control(int(sys.argv[1]))
    config = msgspec.convert(control.read_config(), DecodingConfig)
    logs.setup_child(config.name, config.log_level)
    metrics.name_process(config.name, Path(config.metrics))
    control.watch()
    # A crash here is somebody's file: no image of the memory, which holds others' audio too.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    uvloop.run(_serve(config, control, socket.socket(fileno=int(sys.argv[2]))))


if __name__ == "__main__":
    main()
