"""The decode process' socket: one connection per API process, and the tasks of each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from app.audio.pcm import Int16
from app.core.errors import BadAudio, SpeechError
from app.serving.decoding.jobs import FileJob, Job, StreamJob, file_path
from app.serving.decoding.protocol import (
    MAX_PCM_BYTES,
    Cancel,
    Credit,
    Data,
    Discard,
    Done,
    End,
    Failed,
    Open,
    Pcm,
    Taken,
    ToDecoder,
    Turn,
    Welcome,
)
from app.serving.decoding.turns import Turns
from app.serving.link import Link

log = structlog.get_logger(__name__)

TELL_TIMEOUT_S: Final = 2.0
"""For an API process to take in whose turn it is: the others do not wait longer for one that is
stopped."""

ABANDONED_AFTER_S: Final = 600.0
"""A file of a process that died is wanted again within seconds, or never."""


class DecodeServer:
    """Decodes for API processes. ``folder`` holds the files; ``threads`` run codecs; ``wall_s``:
    the time that one task may take."""

    def __init__(self, folder: Path, threads: int, wall_s: float) -> None:
        self.folder = folder
        self.wall_s = wall_s
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.turns = Turns()
        self._connections: set[_Connection] = set()

    def work(self) -> dict[Hashable, int]:
        """The steps that run (``app/serving/control.py``). Any thread."""
        jobs = [job for each in self._connections.copy() for job in each.running()]
        return {job: job.steps for job in jobs if job.stepping}

    async def serve(self, listener: socket.socket) -> None:
        """Accept API processes until cancelled."""
        server = await asyncio.get_running_loop().create_unix_server(self._accept, sock=listener)
        try:
            while True:
                await asyncio.to_thread(self._remove_abandoned)
                await asyncio.sleep(ABANDONED_AFTER_S / 2)
        finally:
            server.close()
            for connection in list(self._connections):
                connection.link.close()
            self.executor.shutdown(wait=False, cancel_futures=True)

    def forget(self, connection: _Connection) -> None:
        """``connection`` is closed, and its tasks are cancelled."""
        self._connections.discard(connection)

    def _accept(self) -> Link:
        connection = _Connection(self)
        self._connections.add(connection)
        return connection.link

    def _remove_abandoned(self) -> None:
        oldest = time.time() - ABANDONED_AFTER_S
        running = [job for each in self._connections.copy() for job in each.running()]
        used = {job.path for job in running if isinstance(job, FileJob)}
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if path not in used and path.stat().st_mtime < oldest:
                    path.unlink()


class _Connection:
    """One API process and its tasks."""

    def __init__(self, server: DecodeServer) -> None:
        self._server = server
        self._jobs: dict[int, tuple[Job, asyncio.Task[None]]] = {}
        self.link = Link(
            ToDecoder, self._receive, self._lost, on_open=lambda: self.link.send(Welcome())
        )

    def running(self) -> list[Job]:
        """The tasks. Any thread."""
        return [job for job, _ in self._jobs.copy().values()]

    def _receive(self, message: ToDecoder) -> None:
        if isinstance(message, Open):
            self._open(message)
            return
        if isinstance(message, Discard):
            with contextlib.suppress(OSError):
                file_path(self._server.folder, message.spool).unlink()
            return
        found = self._jobs.get(message.task)
        if found is None:
            return
        job, running = found
        match message:
            case Data(_, data):
                job.take(data)
            case End():
                job.end()
            case Credit(_, pcm_bytes):
                job.credit(pcm_bytes)
            case Cancel():
                running.cancel()

    def _open(self, opened: Open) -> None:
        server = self._server
        sink = _Sink(self.link, opened.task)
        common = (opened, sink, server.executor, server.turns, server.wall_s)
        try:
            job = FileJob(*common, server.folder) if opened.spool else StreamJob(*common)
        except ValueError:
            log.exception("cannot open a task", task_id=opened.log_id)
            sink.failed(BadAudio())
            return
        running = asyncio.get_running_loop().create_task(job.run())
        self._jobs[opened.task] = (job, running)
        running.add_done_callback(lambda _: self._jobs.pop(opened.task, None))

    def _lost(self) -> None:
        for _, running in self._jobs.values():
            running.cancel()
        self._server.forget(self)


class _Sink:
    """Turns a task's answers into messages."""

    def __init__(self, link: Link, task: int) -> None:
        self._link = link
        self._task = task
        self._preamble: bytes = b""

    async def turn(self, *, running: bool) -> None:
        """See ``jobs.py``. What follows may be the end of this process, and what it had written but
        the socket had not taken, since the other side was slow, would die with it."""
        self._link.send(Turn(self._task, running))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await self._link.flushed()

    def taken(self, consumed: int, restart: int, samples: int, preamble: bytes = b"") -> None:
        """See ``jobs.py``."""
        self._link.send(Taken(self._task, consumed, restart, samples, preamble))

    def pcm(self, samples: Int16, sample_rate: int) -> None:
        """See ``jobs.py``."""
        data = samples.astype("<i2", copy=False).tobytes()
        for start in range(0, len(data), MAX_PCM_BYTES):
            self._link.send(Pcm(self._task, sample_rate, data[start : start + MAX_PCM_BYTES]))

    def done(self, channels: int) -> None:
        """See ``jobs.py``. Flushed: nobody must ask for the file again, which is removed now."""
        self._link.send(Done(self._task, channels))
        self._link.flush()

    def failed(self, error: SpeechError) -> None:
        """See ``jobs.py``. Flushed as well."""
        self._link.send(Failed(self._task, type(error).__name__, error.text))
        self._link.flush()
