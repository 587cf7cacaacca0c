"""A model's folder: which of its files is meant, and what to say of one that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.core.errors import EngineNotUsable
from app.engines.reading import read_bytes

_INT8: Final = ".int8.onnx"
_MOST_TEXT_BYTES: Final = 64 * 1024 * 1024
"""Of tokens.txt, a lexicon or bpe.vocab: the largest that are published have a tenth of it."""
_REASON_CHARS: Final = 300
_SHOWN: Final = 4


def unusable(path: Path, reason: object) -> EngineNotUsable:
    """The error of a file that cannot be used, in one line."""
    return EngineNotUsable(f"{path} is not usable: {' '.join(str(reason).split())}")


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """While the runtime loads ``path``: what it raises over a file, in one line.

    Raises:
        EngineNotUsable: it refuses the model.
    """
    try:
        yield
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        lines = str(error).strip().splitlines() or ["the runtime does not say why"]
        raise unusable(path, lines[0][:_REASON_CHARS]) from error


def onnx_paths(folder: Path) -> list[Path]:
    """The plain ``.onnx`` files of a folder, by name.

    Raises:
        EngineNotUsable: there is no such folder.
    """
    if not folder.is_dir():
        raise EngineNotUsable(f"there is no folder {folder}")
    return [path for path in sorted(folder.glob("*.onnx")) if path.is_file()]


def the_file(folder: Path, paths: Sequence[Path], names: str) -> Path:
    """The only int8 file of ``paths``, or the only file at all; ``names``: the patterns that they
    were found by, for people.

    Raises:
        EngineNotUsable: there is none, or more than one.
    """
    small = [path for path in paths if path.name.endswith(_INT8)]
    choice = small or paths
    if not choice:
        raise EngineNotUsable(f"{folder} has no {names}")
    if len(choice) > 1:
        found = ", ".join(path.name for path in choice[:_SHOWN])
        raise EngineNotUsable(f"{folder} has several files to choose from: {found}")
    return choice[0]


def lines_of(path: Path) -> list[bytes]:
    """The lines of a text file, without empty ones at its end. As bytes: what else Unicode takes
    for a space or the end of a line may be a symbol.

    Raises:
        EngineNotUsable: it cannot be read, is no plain file, or is far too large.
    """
    try:
        return read_bytes(path, _MOST_TEXT_BYTES).rstrip().split(b"\n")
    except OSError as error:
        raise unusable(path, error.strerror or error) from None
    except ValueError as error:
        raise unusable(path, error) from None
