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
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "funspeech-"
_LOCK: Final = "lock"


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A new folder that only this user can enter; it is removed at the end of the block."""
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
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                _remove_if_free(folder)


def _remove_if_free(folder: Path) -> None:
    """Raises OSError: it has no lock file of ours, or a supervisor holds it."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
