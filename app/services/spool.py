"""Recordings of clients on disk, for as long as they are worked on."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from app.core.errors import EngineFailed, RecordingsFull
from app.services.fetch import FetchLimits, fetch
from app.services.temporary_file import TemporaryFile

log = structlog.get_logger(__name__)


class Spool:
    """Files in ``folder``, ``max_bytes`` of them together: uploads must not fill the disk. What a
    killed process leaves there goes with the folder, which is the supervisor's."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self.used = 0
        """Bytes that are there, or may come."""

    @asynccontextmanager
    async def kept(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[Path]:
        """All of ``pieces`` as a file, complete when the block begins, and gone after it.

        Raises:
            RecordingsFull: there is no room for it now.
            EngineFailed: it cannot be written, or not be read inside the block.
        """
        file, size = TemporaryFile(self._folder, "upload"), 0
        with _disk_errors():
            try:
                await file.open()
                async for piece in pieces:
                    self._take(len(piece))
                    size += len(piece)
                    await file.write(piece)
                await file.close()
                yield file.path
            finally:
                try:
                    await file.remove()
                finally:
                    self.used -= size  # not before: until then it takes the disk

    @asynccontextmanager
    async def fetched(self, url: str, limits: FetchLimits) -> AsyncIterator[Path]:
        """What a URL gives, see :func:`~app.services.fetch.fetch`. There must be room for all that
        may come.

        Raises:
            RecordingsFull, EngineFailed: as :meth:`kept`.
            InvalidRequest, AudioTooLong: as ``fetch``.
        """
        self._take(limits.max_bytes)
        try:
            with _disk_errors():
                async with fetch(url, limits=limits, folder=self._folder) as path:
                    yield path
        finally:
            self.used -= limits.max_bytes

    def _take(self, size: int) -> None:
        if self.used + size > self._max_bytes:
            raise RecordingsFull
        self.used += size


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error("a recording cannot be kept on disk", reason=error.strerror)
        raise EngineFailed from None
