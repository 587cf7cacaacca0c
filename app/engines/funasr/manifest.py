"""What a downloaded model consists of, written beside it: ``.funspeech.json``.

The sizes and SHA-256 sums are those of the hub's file list at the time of the download, or of what
came where the list has none. The file is written last, so a folder that has it was complete once.
Only ``funspeech`` writes it: folders that modelscope made have none.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

NAME: Final = ".funspeech.json"
_BLOCK_BYTES: Final = 4 * 1024 * 1024


class File(msgspec.Struct, frozen=True):
    """One file: its size in bytes, and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """``source`` and ``revision``: which model at the hub; ``files`` by their relative paths."""

    source: str
    revision: str
    files: dict[str, File]


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if it has none, or none that can be read."""
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None


def write(folder: Path, manifest: Manifest) -> None:
    """Put the manifest there, whole or not at all. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{NAME}.", delete=False) as stream:
        stream.write(text)
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, folder / NAME)


def remove(folder: Path) -> None:
    """Take the manifest away: what follows changes the files. Raises OSError."""
    (folder / NAME).unlink(missing_ok=True)


def wrong_sizes(folder: Path, manifest: Manifest, names: Iterable[str]) -> list[str]:
    """What is wrong with these files, one line each, by presence and size."""
    faults = []
    for name in names:
        if name not in manifest.files:
            faults.append(f"{name} is missing")
            continue
        fault = _wrong_size(folder / name, name, manifest.files[name].size)
        if fault:
            faults.append(fault)
    return faults


def damage(folder: Path, manifest: Manifest, advance: Callable[[int], None]) -> dict[str, str]:
    """What is wrong with the files by their checksums: a line by file. ``advance`` is told the
    bytes that have been read so far, every few milliseconds."""
    faults = {}
    before = 0
    for name, file in manifest.files.items():
        fault = _wrong_size(folder / name, name, file.size)
        if not fault and sha256(folder / name, lambda n, b=before: advance(b + n)) != file.sha256:  # type: ignore[misc]  # mypy cannot infer a default
            fault = f"{name} is damaged: it is not what was downloaded"
        if fault:
            faults[name] = fault
        before += file.size
        advance(before)
    return faults


def sha256(path: Path, advance: Callable[[int], None] = lambda done: None) -> str:
    """The SHA-256 of a file in hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            advance(stream.tell())
    return digest.hexdigest()


def _wrong_size(path: Path, name: str, size: int) -> str:
    try:
        found = path.stat().st_size
    except OSError:
        return f"{name} is missing"
    return "" if found == size else f"{name} has {found:,} bytes instead of {size:,}"
