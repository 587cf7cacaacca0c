"""Composition root of an API process: the front doors on the services. No logic.

``python -m app.main CONTROL_FD LISTENER_FD`` is such a process; only the supervisor starts it.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app import __version__
from app.access.running import Access, running_access
from app.api import catalogue, errors, health, index, metrics, pop, rest_asr, rest_flash, rest_tts
from app.api.doors import FETCH_TIMEOUT_S, Doors, Limits
from app.api.drain import Drain, RequestDoor
from app.api.nls_ws import WebSocketDoor
from app.api.requests import Boundary
from app.api.server import build_server
from app.core import logs
from app.core import metrics as figures
from app.core.config import Config
from app.jobs.runner import Runner
from app.jobs.running import running_jobs
from app.services.fetch import FetchLimits
from app.services.recognition import RecognitionService
from app.services.synthesis import SynthesisService
from app.serving import certificate
from app.serving.control import Control
from app.serving.decoding.client import Decoding
from app.serving.leases import leasing
from app.serving.pool import Pool
from app.serving.replica import Replica
from app.storage.errors import StorageError
from app.voices.aliases import Aliases, AliasFileError
from app.voices.catalogue import VoiceCatalogue

STOP_GRACE_S = 1
"""Requests that still run after the drain have this long."""


def build_drain(config: Config) -> Drain:
    """How this process will end."""
    return Drain(config.drain_delay_seconds, config.drain_timeout_seconds)


def build_app(
    config: Config,
    pool: Pool,
    recognition: RecognitionService,
    synthesis: SynthesisService,
    voices: VoiceCatalogue,
    access: Access,
    drain: Drain,
    fetch_folder: Path,
    metrics_directory: Path | None = None,
    jobs: Runner | None = None,
) -> ASGIApp:
    """The ASGI application. The services are started and stopped by the caller."""
    doors = Doors(
        recognition=recognition,
        synthesis=synthesis,
        pool=pool,
        voices=voices,
        access=access.policy,
        store=access.store,
        projects=access.projects,
        jobs=jobs,
        token_s=round(config.token_hours * 3600),
        fetch=FetchLimits(config.max_audio_bytes, FETCH_TIMEOUT_S, config.allow_private_urls),
        fetch_folder=fetch_folder,
        limits=Limits(
            max_text_chars=config.max_text_chars,
            max_long_text_chars=config.max_long_text_chars,
            max_flash_bytes=config.max_flash_bytes,
            max_flash_ms=config.max_flash_seconds * 1000,
            max_audio_bytes=config.max_audio_bytes,
            max_audio_ms=config.max_audio_seconds * 1000,
            idle_timeout_s=config.idle_timeout_seconds,
            max_connections=config.max_connections,
        ),
        debug=config.debug,
        cors_origins=config.cors_origins,
        token_in_message=config.ws_token_in_message,
        asr_model_mode=config.asr_model_mode,
        drain=drain,
        metrics_directory=metrics_directory,
    )
    return WebSocketDoor(RequestDoor(mount(doors), drain), doors)


def mount(doors: Doors) -> FastAPI:
    """The web application: all routes but the NLS WebSocket doors."""
    app = FastAPI(
        title="FunSpeech",
        version=__version__,
        description="Speech recognition and synthesis behind the NLS protocol.",
        docs_url="/docs" if doors.debug else None,
        openapi_url="/openapi.json" if doors.debug else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    app.add_middleware(Boundary)
    if doors.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=doors.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-NLS-RequestId", "task_id"],
        )
    # The index comes last: it answers the WebSocket paths that nobody else knows.
    for module in (health, catalogue, metrics, rest_asr, rest_flash, rest_tts, pop, index):
        app.include_router(module.router(doors))
    return app


@asynccontextmanager
async def running_app(
    config: Config,
    replicas: Sequence[Replica],
    drain: Drain,
    decoding_socket: str,
    metrics_directory: Path | None = None,
    quota_socket: str = "",
) -> AsyncIterator[ASGIApp]:
    """The application with its services, connected to the workers, the decode process, the
    database and the quota inside the block.

    Raises:
        AliasFileError, StorageError: what they need cannot be had; the text is one line for the
            owner.
    """
    voices = VoiceCatalogue(Aliases(config.voices_dir))
    await asyncio.to_thread(voices.refresh)
    pool = Pool(replicas, lambda engine: voices.set_engine(engine.voices, engine.any_voice))
    threshold = config.asr_nearfield_rms_threshold if config.asr_enable_nearfield_filter else None
    decoding = Decoding(decoding_socket)
    # Beside the sockets, in the private folder of the supervisor, which is removed at the end.
    fetch_folder = Path(decoding_socket).parent / "fetched"
    await asyncio.to_thread(fetch_folder.mkdir, exist_ok=True)
    async with (
        # The outermost: what the services count until their end is saved.
        running_access(config) as access,
        pool.running(),
        decoding.running(),
        leasing(quota_socket, access.max_tasks) as lease,
    ):
        recognition = RecognitionService(
            pool,
            decoding,
            threshold,
            log_gate=config.asr_nearfield_filter_log_enabled,
            max_file_bytes=config.max_audio_bytes,
            lease=lease,
            account=access.ledger.record,
        )
        synthesis = SynthesisService(
            pool, voices, config.inference_threads(), lease=lease, account=access.ledger.record
        )
        try:
            async with running_jobs(
                access.store,
                recognition,
                fetch_folder,
                allow_private_urls=config.allow_private_urls,
            ) as jobs:
                yield build_app(
                    config,
                    pool,
                    recognition,
                    synthesis,
                    voices,
                    access,
                    drain,
                    fetch_folder,
                    metrics_directory,
                    jobs,
                )
        finally:
            synthesis.close()


def _ready(control: Control) -> None:
    # What was loaded until now stays: the collector need not walk through it again and again, which
    # was a sixth of this process' CPU time with 100 streams.
    gc.collect()
    gc.freeze()
    control.ready()


async def _serve(told: dict[str, Any], control: Control, listener: socket.socket) -> None:
    config = Config.model_validate(told["settings"])
    replicas = [
        Replica(each["name"], each["role"], each["path"], each["model"])
        for each in told["replicas"]
    ]
    drain = build_drain(config)
    folder = Path(told["metrics"])
    async with running_app(config, replicas, drain, told["decoding"], folder, told["quota"]) as app:
        server = build_server(
            app,
            max_message_bytes=config.max_message_bytes,
            ssl_certfile=config.ssl_certfile,
            ssl_keyfile=config.ssl_keyfile,
            stop_grace_s=STOP_GRACE_S,
            on_started=lambda: _ready(control),
        )

        def reload() -> None:
            context, cert, key = server.config.ssl, config.ssl_certfile, config.ssl_keyfile
            if context is not None and cert is not None and key is not None:
                certificate.renew(context, cert, key)

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, drain.begin, server)
        control.follow(loop, reload=reload)
        await server.serve(sockets=[listener])


def main() -> None:
    """Serve one socket until the supervisor ends this process."""
    # A terminal's signals are for the supervisor: it decides what ends when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control = Control(int(sys.argv[1]))
    told = control.read_config()
    logs.setup_child(told["name"], told["settings"]["log_level"])
    figures.name_process(told["name"], Path(told["metrics"]))
    control.watch()
    try:
        uvloop.run(_serve(told, control, socket.socket(fileno=int(sys.argv[2]))))
    except (AliasFileError, StorageError) as error:
        control.fatal(str(error))
        sys.exit(3)


if __name__ == "__main__":
    main()
