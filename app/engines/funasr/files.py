"""Where FunASR's models are on this machine, and how they get there.

A model is a plain folder in the folder of downloaded models, ``models/OWNER/NAME``. Folders that
modelscope itself has made there, now or years ago, are used as they are. A start looks at presence
and sizes only and, once a model is complete, never at the network; checksums are for
``funspeech models verify``.

Links are followed for reading: caches are made of them, and a model may lie on another disk. Where
a file has to be replaced, its link goes and what that leads to stays as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog

from app.core.errors import EngineNotUsable
from app.core.paths import expanded
from app.engines.funasr import catalogue, manifest
from app.engines.funasr.download import DownloadFailed, Listed, Request, download, parts_of
from app.engines.funasr.manifest import File, Manifest
from app.engines.funasr.reading import size_of
from app.engines.models import Advance, Model, ModelFiles, Pulled, Report, Verdict

log = structlog.get_logger(__name__)

_ESSENTIAL: Final = ("config.yaml", "model.pt")
"""What a folder of the owner's must have to be a model at all."""
_SPARE_BYTES: Final = 64 * 1024 * 1024
"""Room that a download leaves on the disk."""
_MB: Final = 1_000_000
_NAME_CHARS: Final = 80
_PROGRESS_S: Final = 2.0
_LOG_S: Final = 30.0
_LOCK_POLL_S: Final = 0.5

State = Literal["absent", "unfinished", "damaged", "complete"]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for a model, and what is wrong with what is in it: nothing if ``complete``.
    ``damaged`` was complete once (it has a manifest), ``unfinished`` not that we know of."""

    folder: Path
    state: State
    faults: tuple[str, ...] = ()


def ensure(model: str, *, cache: Path, offline: bool, progress: Callable[[str], None]) -> Path:
    """The folder of a model: of the catalogue, which is downloaded if it is not there yet, or the
    owner's own. For a worker that loads; ``progress`` is called every few seconds meanwhile.

    Raises:
        EngineNotUsable: it is missing or damaged; the text has the command that mends it.
    """
    entry = catalogue.find(model)
    if entry is None:
        return _own_folder(model)
    place = locate(entry, cache)
    if place.state == "complete":
        return place.folder
    if place.state == "damaged":
        raise EngineNotUsable(
            f"model {entry.name} in {place.folder} is damaged: {', '.join(place.faults)}; mend it "
            f"with: funspeech models pull {entry.name}"
        )
    if offline:
        raise EngineNotUsable(
            f"model {entry.name} is not in {cache}, and OFFLINE forbids to download it; where "
            "there is internet, OFFLINE=false funspeech models pull fetches all that is needed"
        )
    return _fetch(entry, cache, _told(progress), again=False).folder


def locate(model: Model, cache: Path) -> Place:
    """Where a model is: the best of the places where it may be, else where it belongs."""
    places = [_look(model, folder) for folder in _candidates(model, cache)]
    order: tuple[State, ...] = ("complete", "damaged", "unfinished", "absent")
    return min(places, key=lambda place: order.index(place.state))


def _candidates(model: Model, cache: Path) -> Iterator[Path]:
    """Where we put it, and where the versions of modelscope do (modelscope 1.40,
    hub/utils/utils.py, tells the older ones)."""
    owner, _, name = model.source.partition("/")
    safe = name.replace(".", "___")
    yield cache / "models" / owner / safe
    yield cache / "hub" / "models" / owner / safe
    yield cache / "hub" / owner / name
    yield cache / owner / name
    snapshots = cache / "models" / f"{owner}--{name}" / "snapshots"
    yield from (snapshots / revision for revision in dict.fromkeys((model.revision, "master")))


def _look(model: Model, folder: Path) -> Place:
    known = manifest.read(folder, _names(model))
    if known is not None:
        faults = tuple(manifest.wrong_sizes(folder, known, model.files).values())
        return Place(folder, "damaged" if faults else "complete", faults)
    missing = [name for name in model.files if not size_of(folder / name)]
    if not missing:
        return Place(folder, "complete")
    there = _has_entries(folder)
    lacking = [f"{name} is missing" for name in missing]
    return Place(folder, "unfinished" if there else "absent", tuple(lacking))


def _names(model: Model) -> tuple[str, ...]:
    return (*model.files, *model.extra_files)


def _has_entries(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _own_folder(model: str) -> Path:
    folder = _folder_of(model)
    if folder is None:
        names = ", ".join(entry.name for entry in catalogue.MODELS)
        raise EngineNotUsable(
            f"there is no model and no folder {model[:_NAME_CHARS]!r}; the models are: {names}"
        )
    missing = _missing_from(folder)
    if missing:
        raise EngineNotUsable(f"the folder {folder} is no model: it has no {', no '.join(missing)}")
    return folder


def _folder_of(model: str) -> Path | None:
    """A folder of the owner's; None if there is none of that name."""
    try:
        folder = expanded(model)
    except ValueError:
        return None
    return folder if os.path.isdir(folder) else None  # Path.is_dir would raise some errors


def _missing_from(folder: Path) -> list[str]:
    return [name for name in _ESSENTIAL if not size_of(folder / name)]


# Fetching


def _fetch(model: Model, cache: Path, report: Report, *, again: bool) -> Pulled:
    """Download what is not there, one process at a time. ``again``: a model that is complete, too,
    is compared with its checksums, or with the hub where we know none."""
    with _writing(cache, model), _alone(model, cache, report):
        place = locate(model, cache)
        if place.state == "complete" and not again:
            return Pulled(place.folder, 0)  # another process has fetched it meanwhile
        known = manifest.read(place.folder, _names(model))
        if known is not None and known.revision == model.revision:
            damaged = _damage(model, place.folder, known, report)
            if not damaged and place.state == "complete":
                return Pulled(place.folder, 0)
            for name in damaged.keys() & known.files.keys():
                _remove(model, place.folder / name)
        return _download(model, place.folder, cache, report)


def _download(model: Model, folder: Path, cache: Path, report: Report) -> Pulled:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _names(model):
        _make_way(model, folder / name)
    manifest.remove(folder)
    request = Request(
        source=model.source,
        revision=model.revision,
        folder=str(folder),
        cache=str(cache),
        required=model.files,
        extra=model.extra_files,
    )
    before: dict[str, int] = {}

    def begin(listed: Sequence[Listed]) -> None:
        _check_room(folder, listed)
        before.update((file.path, _inode(folder / file.path)) for file in listed)

    def advance(done: int, total: int) -> None:
        report(Advance(model.name, "downloading", done, total or model.size_bytes))

    try:
        listed = download(request, begin, advance)
    except DownloadFailed as error:
        raise EngineNotUsable(
            f"model {model.name} could not be downloaded: {error}; what has come is kept, go on "
            f"with: funspeech models pull {model.name}"
        ) from None
    files = {
        file.path: File(file.size, file.sha256 or manifest.sha256(folder / file.path))
        for file in listed
    }
    manifest.write(folder, Manifest(model.source, model.revision, files))
    # What came is another file than before: it is renamed when it is whole.
    came = [file for file in listed if _inode(folder / file.path) != before[file.path]]
    return Pulled(folder, sum(file.size for file in came))


def _make_way(model: Model, path: Path) -> None:
    """Take away what a file cannot come in the place of, and links that the client would write
    through."""
    if os.path.lexists(path) and size_of(path) is None:
        _remove(model, path)
    for part in parts_of(path):
        if os.path.lexists(part) and (part.is_symlink() or size_of(part) is None):
            _remove(model, part)


def _remove(model: Model, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        raise EngineNotUsable(
            f"model {model.name} has a folder where a file belongs: {path}; move that folder away"
        )
    path.unlink(missing_ok=True)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _check_room(folder: Path, listed: Sequence[Listed]) -> None:
    wanted = sum(file.size for file in listed if not _is_whole(folder / file.path, file.size))
    free = shutil.disk_usage(folder).free
    if wanted + _SPARE_BYTES > free:
        raise DownloadFailed(
            f"{folder} has {free // _MB:,} MB free, and {wanted // _MB:,} MB are needed: free some "
            "space, or set MODELSCOPE_CACHE to another disk"
        )


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _damage(model: Model, folder: Path, known: Manifest, report: Report) -> dict[str, str]:
    total = sum(file.size for file in known.files.values())
    return manifest.damage(
        folder,
        known,
        model.files,
        lambda done: report(Advance(model.name, "checking", done, total)),
    )


@contextlib.contextmanager
def _writing(cache: Path, model: Model) -> Iterator[None]:
    """Failures to write are the owner's to mend."""
    try:
        yield
    except OSError as error:
        where = error.filename or cache
        raise EngineNotUsable(
            f"model {model.name} cannot be put into {cache}: {error.strerror}: {where}; let the "
            "user of the server write there, or set MODELSCOPE_CACHE to another folder"
        ) from None


@contextlib.contextmanager
def _alone(model: Model, cache: Path, report: Report) -> Iterator[None]:
    """Hold the model's lock: replicas that start together download once. The lock goes with the
    process that holds it, however that ends."""
    folder = cache / ".lock"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"funspeech-{model.name}.lock").open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report(Advance(model.name, "waiting for another process", 0, model.size_bytes))
                time.sleep(_LOCK_POLL_S)
        yield


def _told(progress: Callable[[str], None]) -> Report:
    """A report for a start: to the supervisor every few seconds, to the log now and then."""
    told: dict[str, float] = {}  # when, by what was being done
    logged: dict[str, float] = {}

    def report(advance: Advance) -> None:
        now, mb, total = time.monotonic(), advance.done // _MB, advance.total // _MB
        if now - told.get(advance.doing, -_PROGRESS_S) >= _PROGRESS_S:
            told[advance.doing] = now
            progress(f"{advance.doing} {advance.model}, {mb:,} of {total:,} MB")
        if now - logged.get(advance.doing, -_LOG_S) >= _LOG_S:
            logged[advance.doing] = now
            log.info(f"model: {advance.doing}", model=advance.model, mb=mb, of_mb=total)

    return report


# For the registry


class _FunasrFiles:
    """See :class:`app.engines.models.ModelFiles`."""

    def models(self) -> Sequence[Model]:
        return catalogue.MODELS

    def needed(self, settings: Mapping[str, object], *, on_card: bool) -> Sequence[str]:
        return catalogue.needed(settings, on_card=on_card)

    def inspect(self, model: str, cache: Path) -> Verdict:
        entry = catalogue.find(model)
        if entry is None:
            return _verdict_of_own(model)
        place = locate(entry, cache)
        if place.state == "absent":
            return Verdict(None, ("it is not here",), checked=False)
        return Verdict(place.folder, place.faults, checked=False)

    def verify(self, model: str, cache: Path, report: Report) -> Verdict:
        found = self.inspect(model, cache)
        entry = catalogue.find(model)
        if entry is None or found.folder is None:
            return found
        known = manifest.read(found.folder, _names(entry))
        if known is None:
            return found
        faults = _damage(entry, found.folder, known, report).values()
        return Verdict(found.folder, tuple(faults), checked=True)

    def pull(self, model: str, cache: Path, report: Report) -> Pulled:
        entry = catalogue.find(model)
        if entry is None:
            return Pulled(_own_folder(model), 0)
        return _fetch(entry, cache, report, again=True)


def _verdict_of_own(model: str) -> Verdict:
    folder = _folder_of(model)
    if folder is None:
        return Verdict(None, ("there is no model and no folder of this name",), checked=False)
    faults = tuple(f"{name} is missing" for name in _missing_from(folder))
    return Verdict(folder, faults, checked=False)


MODEL_FILES: Final[ModelFiles] = _FunasrFiles()
