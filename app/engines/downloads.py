"""What downloads of models have in common, wherever they come from: where a model is and how whole,
one process at a time, room on the disk, and what is told meanwhile.

Links are followed for reading: caches are made of them, and a model may lie on another disk. Where
a file has to be replaced, its link goes and what that leads to stays as it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from app.core.errors import EngineNotUsable
from app.core.paths import expanded
from app.engines import manifest
from app.engines.manifest import Manifest
from app.engines.models import Advance, Model, Report, Verdict
from app.engines.reading import size_of

log = structlog.get_logger(__name__)

_SPARE_BYTES: Final = 64 * 1024 * 1024
"""Room that a download leaves on the disk."""
_MB: Final = 1_000_000
_PROGRESS_S: Final = 2.0
_LOG_S: Final = 30.0
_LOCK_POLL_S: Final = 0.5

GO_ON: Final = "what has come is kept, go on with the same command"
_NO_RIGHT: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

State = Literal["absent", "unfinished", "damaged", "complete"]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for a model, and what is wrong with what is in it: nothing if ``complete``.
    ``damaged`` was complete once (it has a manifest), ``unfinished`` not that we know of."""

    folder: Path
    state: State
    faults: tuple[str, ...] = ()


def names_of(model: Model) -> tuple[str, ...]:
    """All files that a model may have."""
    return (*model.files, *model.extra_files)


def look(model: Model, folder: Path) -> Place:
    """What a folder has of a model, by presence and sizes."""
    known = manifest.read(folder, names_of(model))
    if known is not None:
        faults = tuple(manifest.wrong_sizes(folder, known, model.files).values())
        return Place(folder, "damaged" if faults else "complete", faults)
    missing = [name for name in model.files if not size_of(folder / name)]
    if not missing:
        return Place(folder, "complete")
    lacking = tuple(f"{name} is missing" for name in missing)
    return Place(folder, "unfinished" if _has_entries(folder) else "absent", lacking)


def verdict_of(place: Place) -> Verdict:
    """What the commands are told of it; checksums were not looked at."""
    if place.state == "absent":
        return Verdict(None, ("it is not here",), checked=False)
    damaged = place.state == "damaged"
    return Verdict(place.folder, place.faults, checked=False, damaged=damaged)


def best(places: Iterable[Place]) -> Place:
    """The one that has most of a model; the first of those that are alike."""
    order: tuple[State, ...] = ("complete", "damaged", "unfinished", "absent")
    return min(places, key=lambda place: order.index(place.state))


def _has_entries(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def folder_of(text: str) -> Path | None:
    """A folder of the owner's; None if there is none of that name."""
    try:
        folder = expanded(text)
    except ValueError:
        return None
    return folder if os.path.isdir(folder) else None  # Path.is_dir would raise some errors


# Before a start


def check_usable(model: Model, place: Place, cache: Path, *, offline: bool) -> bool:
    """Whether a start finds the model whole; False: it has to be downloaded first.

    Raises:
        EngineNotUsable: it is damaged, or may not be downloaded; the text has the command that
            mends it.
    """
    if place.state == "complete":
        return True
    if place.state == "damaged":
        raise EngineNotUsable(
            f"model {model.name} in {place.folder} is damaged: {', '.join(place.faults)}; mend it "
            f"with: funspeech models pull {model.name}"
        )
    if offline:
        raise EngineNotUsable(
            f"model {model.name} is not in {cache}, and OFFLINE forbids to download it; where "
            "there is internet, OFFLINE=false funspeech models pull fetches all that is needed"
        )
    return False


def failed(model: Model, reason: object, remedy: str = GO_ON) -> EngineNotUsable:
    """What to raise for a download that cannot go on now. ``remedy``: what its owner can do."""
    return EngineNotUsable(f"model {model.name} could not be downloaded: {reason}; {remedy}")


# While files change


def damage(model: Model, folder: Path, known: Manifest, report: Report) -> dict[str, str]:
    """What is wrong with the files by their checksums: a line by file."""
    total = sum(file.size for file in known.files.values())
    return manifest.damage(
        folder,
        known,
        model.files,
        lambda done: report(Advance(model.name, "checking", done, total)),
    )


def remove(model: Model, path: Path) -> None:
    """Take a file away that is to be replaced.

    Raises:
        EngineNotUsable: there is a folder in its place.
        OSError: it cannot be taken away.
    """
    if path.is_dir() and not path.is_symlink():
        raise EngineNotUsable(
            f"model {model.name} has a folder where a file belongs: {path}; move that folder away"
        )
    path.unlink(missing_ok=True)


def lacking_room(folder: Path, wanted_bytes: int) -> str:
    """Why so many bytes more do not fit on the disk; empty if they do."""
    free = shutil.disk_usage(folder).free
    if wanted_bytes + _SPARE_BYTES <= free:
        return ""
    return (
        f"{folder} has {free // _MB:,} MB free, and {wanted_bytes // _MB:,} MB are needed: free "
        "some space, or set MODELSCOPE_CACHE to another disk"
    )


@contextlib.contextmanager
def writing(cache: Path, model: Model) -> Iterator[None]:
    """Failures to write are the owner's to mend."""
    try:
        yield
    except OSError as error:
        where = error.filename or cache
        raise EngineNotUsable(
            f"model {model.name} cannot be put into {cache}: {error.strerror}: {where}; "
            f"{_remedy(error)}set MODELSCOPE_CACHE to another folder"
        ) from None


def _remedy(error: OSError) -> str:
    if error.errno in _NO_RIGHT:
        return "let the user of the server write there, or "
    return "free some space, or " if error.errno in _NO_ROOM else ""


@contextlib.contextmanager
def alone(model: Model, cache: Path, report: Report) -> Iterator[None]:
    """Hold the model's lock: replicas that start together download once. The lock goes with the
    process that holds it, however that ends."""
    folder = cache / ".lock"
    folder.mkdir(parents=True, exist_ok=True)
    # Whatever is in its place is neither followed, emptied nor waited for.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(
        folder / f"funspeech-{model.name}.lock",
        "rb+",
        buffering=0,
        opener=lambda path, _: os.open(path, flags, 0o644),
    ) as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report(Advance(model.name, "waiting for another process", 0, model.size_bytes))
                time.sleep(_LOCK_POLL_S)
        yield


def told(progress: Callable[[str], None]) -> Report:
    """A report for a start: to the supervisor every few seconds, to the log now and then."""
    told_at: dict[str, float] = {}  # by what was being done
    logged_at: dict[str, float] = {}

    def report(advance: Advance) -> None:
        now, mb, total = time.monotonic(), advance.done // _MB, advance.total // _MB
        if now - told_at.get(advance.doing, -_PROGRESS_S) >= _PROGRESS_S:
            told_at[advance.doing] = now
            progress(f"{advance.doing} {advance.model}, {mb:,} of {total:,} MB")
        if now - logged_at.get(advance.doing, -_LOG_S) >= _LOG_S:
            logged_at[advance.doing] = now
            log.info(f"model: {advance.doing}", model=advance.model, mb=mb, of_mb=total)

    return report
