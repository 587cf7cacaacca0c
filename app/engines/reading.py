"""Files of a model's folder, which may hold anything: what is no plain file is not opened (a FIFO
would never end), and of what is far larger than it can be no more is read."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

_LFS: Final = b"version https://git-lfs.github.com/spec/"


def size_of(path: Path) -> int | None:
    """A plain file's size in bytes, also behind a link; None if there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def check_file(path: Path) -> None:
    """Whether a plain file is there, and not just Git's note of where it is (Git LFS).

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no plain file")
    with path.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            raise ValueError(
                "it is the pointer that Git LFS leaves in place of the file: 'git lfs pull' there, "
                "or fetch the model anew"
            )


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """A file's content.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no plain file, or larger than ``most_bytes``.
    """
    check_file(path)
    with path.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    return content
