"""Jobs, put together for an API process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.access.store import Store
from app.jobs.runner import MAX_RUNNING, Runner
from app.jobs.store import JobStore
from app.jobs.transcription import FETCH_TIMEOUT_S, MAX_FILE_BYTES, Transcriber
from app.services.fetch import FetchLimits
from app.services.files import Recogniser
from app.services.spool import Spool


@asynccontextmanager
async def running_jobs(
    store: Store, recognition: Recogniser, folder: Path, *, allow_private_urls: bool
) -> AsyncIterator[Runner]:
    """The runner, which runs what it accepts inside the block. ``store``: in the same database.
    ``folder``: where recordings lie meanwhile."""
    limits = FetchLimits(MAX_FILE_BYTES, FETCH_TIMEOUT_S, allow_private_urls)
    transcriber = Transcriber(recognition, Spool(folder, MAX_RUNNING * MAX_FILE_BYTES), limits)
    runner = Runner(JobStore(store.engine), transcriber)
    async with runner.running():
        yield runner
