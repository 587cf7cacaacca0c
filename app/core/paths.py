"""Paths as the owner of the server writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MOST_BYTES: Final = 4095
_MOST_BYTES_OF_A_NAME: Final = 255
"""Linux's limits (limits.h)."""


def expanded(text: str | Path) -> Path:
    """A path, with the home directory in place of ``~`` or ``~user``. The disk is not asked.

    Raises:
        ValueError: there is no such home directory, or no file can have such a name; the text says
            what is accepted.
    """
    path = Path(text)
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError(f"must be a path, and {path.parts[0]} is no home directory here") from None
    if "\0" in str(path):
        raise ValueError("must be a path, without a NUL character")
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _MOST_BYTES_OF_A_NAME or len(os.fsencode(path)) > _MOST_BYTES:
        raise ValueError("must be a path, and this is longer than one can be")
    return path
