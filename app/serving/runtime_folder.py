"""The supervisor's private folder for Unix sockets, and the removal of abandoned ones.

A supervisor that is killed cannot remove its folder. So each folder holds a file that its
supervisor has locked (flock) for as long as it lives; the next supervisor of the same user removes
the folders whose lock is free. A folder without that file is never touched: it is not ours, or one
that is just being made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.core.config import ConfigError

PREFIX: Final = "funspeech-"
_LOCK: Final = "lock"
LONGEST_TMPDIR: Final = (107 if sys.platform == "linux" else 103) - 31
"""Bytes: what the system allows for a socket's path, less our folder's name (19) and a file's
(12)."""


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A new folder that only this user can enter; it is removed at the end of the block.

    Raises:
        ConfigError: the folder for temporary files cannot hold it.
    """
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR:
        raise ConfigError(
            f"TMPDIR: {tempfile.gettempdir()!r} is too long for Unix sockets; "
            f"use a path of at most {LONGEST_TMPDIR} bytes"
        )
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder / "new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It gets its name locked, so that nobody sees a free lock on a folder in use.
        (folder / "new").rename(folder / _LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> None:
    """Remove the folders of supervisors of this user that are no more."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            _remove_if_free(folder)


def find(name: str) -> Path | None:
    """The file ``name`` in the folder of a supervisor of this user; None if there is none."""
    return next((folder / name for folder in _folders() if (folder / name).exists()), None)


def _folders() -> list[Path]:
    found = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                found.append(folder)
    return found


def _remove_if_free(folder: Path) -> None:
    """Raises OSError: it has no lock file of ours, or a supervisor holds it."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
