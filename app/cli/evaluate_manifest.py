"""Which clips ``funspeech eval`` streams, and what was said in them.

A manifest is a file of JSON lines, the two-column files of Kaldi and FunASR (``wav.scp`` and, with
the labels, ``text`` beside it), or a folder of sound files, each with a .txt of its name if it has
a label.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from app.audio.sniff import FORMATS
from app.core.speech import format_name

_AUDIO_KEYS: Final = ("audio", "source", "audio_filepath", "wav")
"""Ours, FunASR's, NeMo's, WeNet's."""
_TEXT_KEYS: Final = ("text", "target", "txt")
_ID_KEYS: Final = ("id", "key")
_LABEL_FILES: Final = ("text", "text.txt")
_SCP: Final = ".scp"


class BadManifest(Exception):
    """There is nothing in it to stream; the text says why."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording. ``text``: what was said in it; None: nobody has written that down."""

    id: str
    path: Path
    text: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The clips, and a line for each entry that is none."""

    clips: Sequence[Clip]
    faults: Sequence[str]


def read_manifest(path: Path) -> Manifest:
    """Find the clips of a manifest; relative paths start in its folder.

    Raises:
        BadManifest: it cannot be read, or has no clip.
    """
    faults: list[str] = []
    try:
        clips = list(_unique(_clips(path, faults), faults))
    except OSError as error:
        raise BadManifest(f"{error.filename or path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadManifest(f"{path} is no manifest: it is not UTF-8 text") from error
    if not clips:
        raise BadManifest(faults[0] if faults else f"{path} has no clips")
    return Manifest(clips, faults)


def _clips(path: Path, faults: list[str]) -> Iterator[Clip]:
    if path.is_dir():
        scp = path / f"wav{_SCP}"
        return _columns(scp, faults) if scp.is_file() else _folder(path, faults)
    if path.suffix == _SCP:
        return _columns(path, faults)
    return _json_lines(path, faults)


def _unique(clips: Iterator[Clip], faults: list[str]) -> Iterator[Clip]:
    """Those that are there, under different names."""
    seen = set()
    for clip in clips:
        if clip.id in seen:
            faults.append(f"{clip.id} occurs twice; the first one counts")
        elif not os.path.isfile(clip.path):  # Path.is_file raises some errors: a name too long
            faults.append(f"{clip.path}: no such file")
        else:
            seen.add(clip.id)
            yield clip


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    text = path.read_text(encoding="utf-8-sig")
    return ((number, line.strip()) for number, line in _numbered(text) if line.strip())


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines, which also cuts at separators that may be part of a text.
    return enumerate(text.split("\n"), 1)


# --- JSON lines ------------------------------------------------------------------------------


def _json_lines(path: Path, faults: list[str]) -> Iterator[Clip]:
    for number, line in _lines(path):
        try:
            entry = msgspec.json.decode(line, type=dict[str, object])
            clip = _entry(entry, path.parent)
        except (msgspec.MsgspecError, RecursionError):
            faults.append(f"{path} line {number}: not a JSON object")
        except ValueError as error:
            faults.append(f"{path} line {number}: {error}")
        else:
            yield clip


def _entry(entry: dict[str, object], folder: Path) -> Clip:
    """Raises ValueError: a field is missing or has a wrong type."""
    audio = _field(entry, _AUDIO_KEYS)
    if not audio:
        raise ValueError(f"{_AUDIO_KEYS[0]!r} is missing")
    return Clip(_field(entry, _ID_KEYS) or audio, folder / audio, _field(entry, _TEXT_KEYS))


def _field(entry: dict[str, object], names: Sequence[str]) -> str | None:
    value = next((entry[name] for name in names if name in entry), None)
    if isinstance(value, int):  # a number as the id
        value = str(value)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{names[0]!r} must be a text")


# --- wav.scp and text ------------------------------------------------------------------------


def _columns(path: Path, faults: list[str]) -> Iterator[Clip]:
    labels = _labels(path.parent)
    for number, line in _lines(path):
        name, _, audio = line.partition(" ") if "\t" not in line else line.partition("\t")
        audio = audio.strip()
        if not audio:
            faults.append(f"{path} line {number}: not 'ID PATH'")
        elif audio.endswith("|"):
            faults.append(f"{path} line {number}: a command; only files are read")
        else:
            yield Clip(name.strip(), path.parent / audio, labels.get(name.strip()))


def _labels(folder: Path) -> dict[str, str]:
    """The texts beside a wav.scp, by id; empty if it has none."""
    path = next((folder / name for name in _LABEL_FILES if (folder / name).is_file()), None)
    if path is None:
        return {}
    columns = (line.split(maxsplit=1) for _, line in _lines(path))
    return {name: "".join(text) for name, *text in columns}


# --- a folder --------------------------------------------------------------------------------


def _folder(folder: Path, faults: list[str]) -> Iterator[Clip]:
    for path in sorted(folder.rglob("*")):
        if format_name(path.suffix) not in FORMATS or not path.is_file():
            continue
        label = path.with_suffix(".txt")
        try:
            labelled = os.path.isfile(label)
            text = label.read_text(encoding="utf-8-sig").strip() if labelled else None
        except UnicodeDecodeError:
            faults.append(f"{label}: not UTF-8 text")
            continue
        except OSError as error:
            faults.append(f"{label}: {error.strerror}")
            continue
        yield Clip(str(path.relative_to(folder)), path, text)
