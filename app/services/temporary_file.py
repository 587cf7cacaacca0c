"""A file for the time of one request."""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO


class TemporaryFile:
    """A file of a random name in ``folder`` that only this user may read. It is written and
    removed by one thread of its own.

    One thread does all in the order in which it was asked, so nothing that was cancelled in the
    middle of a write can write, or even create the file, after it has been removed.
    """

    def __init__(self, folder: Path, purpose: str) -> None:
        self.path = folder / f"{purpose}-{secrets.token_hex(16)}"
        self._thread = ThreadPoolExecutor(1, purpose)
        self._file: BinaryIO | None = None

    async def open(self) -> None:
        """Create it. Raises OSError."""
        await self._do(self._open)

    async def write(self, data: bytes) -> None:
        """Append ``data``. Raises OSError."""
        assert self._file is not None
        await self._do(self._file.write, data)

    async def close(self) -> None:
        """Everything is written. Raises OSError."""
        await self._do(self._close)

    async def remove(self) -> None:
        """No more of it, in whatever state it is. It happens even if this is cancelled."""
        removed = asyncio.wrap_future(self._thread.submit(self._remove))
        self._thread.shutdown(wait=False)
        await asyncio.shield(removed)

    async def _do(self, work: Callable[..., Any], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _open(self) -> None:
        private = functools.partial(os.open, mode=0o600)
        self._file = open(self.path, "xb", opener=private)  # noqa: SIM115  # closed by another call

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _remove(self) -> None:
        try:
            self._close()  # may fail where the disk is full; it must not leave the file behind
        finally:
            self.path.unlink(missing_ok=True)
