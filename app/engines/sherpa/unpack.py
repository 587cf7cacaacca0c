"""Takes the files of a model out of an archive (.tar.bz2), without a place for anything else in it.

Only plain files of the wanted names in the archive's outermost folder are written, under those
names; links, devices, other paths and owners in the archive have no effect. It is read as a stream
and only as far as it takes.
"""

from __future__ import annotations

import bz2
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Final, Self

from app.engines.sherpa.fetch import sync

_BLOCK_BYTES: Final = 1024 * 1024
_REASON_CHARS: Final = 100
_MOST_MEMBERS: Final = 10_000
_MOST_HEADER_BYTES: Final = 64 * 1024
_LONG_HEADERS: Final = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
"""What tarfile reads into memory whole before it names the member that it is about."""


class UnpackFailed(Exception):
    """The archive cannot be read. The text says why, in one line."""


class _Header(tarfile.TarInfo):
    """A header, refused where it announces more of itself than names can take."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As usual, or raises UnpackFailed."""
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _LONG_HEADERS and header.size > _MOST_HEADER_BYTES):
            raise UnpackFailed(f"it has a header of {header.size:,} bytes")
        return header


class _Counted(io.BufferedReader):
    """A file that tells how far it has been read."""

    def __init__(self, stream: io.RawIOBase, advance: Callable[[int], None]) -> None:
        super().__init__(stream)
        self._advance = advance

    def read(self, size: int | None = -1) -> bytes:
        """As usual."""
        self._advance(self.tell())
        return super().read(size)


def unpack(
    archive: Path,
    folder: Path,
    names: Collection[str],
    *,
    most_bytes: int,
    advance: Callable[[int], None],
) -> frozenset[str]:
    """Put those of the files that the archive has into ``folder``; returns their names.

    ``most_bytes``: more than all that is read may not have, unpacked. ``advance`` is told how many
    bytes of the archive have been read, every few milliseconds.

    Raises:
        UnpackFailed: it is none, damaged, larger than that, or of very many parts.
        OSError: a file cannot be written.
    """
    wanted, found, left = set(names), set[str](), most_bytes
    try:
        with (
            _Counted(io.FileIO(archive), advance) as stream,
            bz2.BZ2File(stream) as plain,  # tarfile's own would unpack at once what is tiny packed
            tarfile.open(mode="r|", fileobj=plain, tarinfo=_Header) as members,
        ):
            for count, member in enumerate(members):
                if count >= _MOST_MEMBERS:
                    raise UnpackFailed(f"it has more than {_MOST_MEMBERS:,} parts")
                left -= member.size
                if left < 0 or member.size < 0:
                    raise UnpackFailed(f"it has more than {most_bytes:,} bytes")
                name = member.name.removeprefix("./").partition("/")[2]
                source = members.extractfile(member) if member.isreg() else None
                if name in wanted and source is not None:
                    _write(source, folder / name)
                    wanted.discard(name)
                    found.add(name)
                if not wanted:
                    break
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        # tarfile takes numbers of a header as they come, and follows headers of headers.
        raise _damaged(error) from None
    except OSError as error:
        if error.errno is None:  # bz2's way to say that it is none
            raise _damaged(error) from None
        raise
    return frozenset(found)


def _damaged(error: Exception) -> UnpackFailed:
    return UnpackFailed(f"it is damaged, or no archive ({str(error)[:_REASON_CHARS]})")


def _write(source: IO[bytes], path: Path) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.incomplete")
    try:
        with part.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)
            target.flush()
            os.fsync(target.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)
