"""What a downloaded model consists of, written beside it: ``.funspeech.json``.

The sizes and SHA-256 sums are those that the publisher told at the time of the download, or of what
came where none were told. The file is written last, so a folder that has it was complete once. Only
``funspeech`` writes it: folders that somebody else made have none.

A folder may have come from somebody else, so what the manifest says is not trusted: only the
model's own files are looked at, and no file that is damaged is touched but those.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from app.engines.reading import read_bytes, size_of

NAME: Final = ".funspeech.json"
_MOST_BYTES: Final = 1_000_000
_BLOCK_BYTES: Final = 4 * 1024 * 1024


class File(msgspec.Struct, frozen=True):
    """One file: its size in bytes, and its SHA-256 in hexadecimal digits."""

    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``source`` and ``revision``: which model at its publisher's; ``files`` by their relative
    paths. ``recorded``: those of them whose sums nobody had told: they are of what came."""

    source: str
    revision: str
    files: dict[str, File]
    recorded: tuple[str, ...] = ()


def read(folder: Path, names: Collection[str]) -> Manifest | None:
    """The manifest of a folder, with those of its files that the model has (``names``); None if
    there is none, or none that can be read."""
    try:
        found = msgspec.json.decode(read_bytes(folder / NAME, _MOST_BYTES), type=Manifest)
    except (OSError, ValueError):
        return None
    files = {name: file for name, file in found.files.items() if name in names}
    recorded = tuple(name for name in found.recorded if name in files)
    return Manifest(found.source, found.revision, files, recorded)


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


def wrong_sizes(folder: Path, manifest: Manifest, names: Iterable[str]) -> dict[str, str]:
    """What is wrong with these files by presence and size: a line by file."""
    faults = {}
    for name in names:
        file = manifest.files.get(name)
        fault = _wrong_size(folder / name, name, None if file is None else file.size)
        if fault:
            faults[name] = fault
    return faults


def damage(
    folder: Path, manifest: Manifest, names: Iterable[str], advance: Callable[[int], None]
) -> dict[str, str]:
    """The same by checksums, of these files and all that the manifest has. ``advance`` is told the
    bytes that have been read so far, every few milliseconds."""
    faults = wrong_sizes(folder, manifest, dict.fromkeys((*names, *manifest.files)))
    before = 0
    for name, file in manifest.files.items():
        if name not in faults and not _is_same(folder / name, file, advance, before):
            faults[name] = f"{name} is damaged: it is not what was downloaded"
        before += file.size
        advance(before)
    return faults


def _is_same(path: Path, file: File, advance: Callable[[int], None], before: int) -> bool:
    return sha256(path, lambda done: advance(before + done)) == file.sha256


def sha256(path: Path, advance: Callable[[int], None] = lambda done: None) -> str:
    """The SHA-256 of a file in hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            advance(stream.tell())
    return digest.hexdigest()


def _wrong_size(path: Path, name: str, size: int | None) -> str:
    """``size``: what it should have; None: that is not known."""
    found = size_of(path)
    if found is None:
        return f"{name} is no plain file" if path.exists() else f"{name} is missing"
    if size is None:
        return f"{name} has no checksum"
    return "" if found == size else f"{name} has {found:,} bytes instead of {size:,}"
