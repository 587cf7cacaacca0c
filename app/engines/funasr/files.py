"""Where FunASR's models are on this machine, and how they get there.

A model is a plain folder in the folder of downloaded models, ``models/OWNER/NAME``. Folders that
modelscope itself has made there, now or years ago, are used as they are. A start looks at presence
and sizes only and, once a model is complete, never at the network; checksums are for
``funspeech models verify``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import downloads, manifest
from app.engines.downloads import Place, folder_of, names_of
from app.engines.funasr import catalogue
from app.engines.funasr.download import DownloadFailed, Listed, Request, download, parts_of
from app.engines.manifest import File, Manifest
from app.engines.models import NO_SETTINGS, Advance, Model, ModelFiles, Pulled, Report, Verdict
from app.engines.reading import size_of

_ESSENTIAL: Final = ("config.yaml", "model.pt")
"""What a folder of the owner's must have to be a model at all."""
_NAME_CHARS: Final = 80


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
    if downloads.check_usable(entry, place, cache, offline=offline):
        return place.folder
    return _fetch(entry, cache, downloads.told(progress), again=False).folder


def locate(model: Model, cache: Path) -> Place:
    """Where a model is: the best of the places where it may be, else where it belongs."""
    return downloads.best(downloads.look(model, folder) for folder in _candidates(model, cache))


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


def _own_folder(model: str) -> Path:
    folder = folder_of(model)
    if folder is None:
        names = ", ".join(entry.name for entry in catalogue.MODELS)
        raise EngineNotUsable(
            f"there is no model and no folder {model[:_NAME_CHARS]!r}; the models are: {names}"
        )
    missing = _missing_from(folder)
    if missing:
        raise EngineNotUsable(f"the folder {folder} is no model: it has no {', no '.join(missing)}")
    return folder


def _missing_from(folder: Path) -> list[str]:
    return [name for name in _ESSENTIAL if not size_of(folder / name)]


# Fetching


def _fetch(model: Model, cache: Path, report: Report, *, again: bool) -> Pulled:
    """Download what is not there, one process at a time. ``again``: a model that is complete, too,
    is compared with its checksums, or with the hub where we know none."""
    with downloads.writing(cache, model), downloads.alone(model, cache, report):
        place = locate(model, cache)
        if place.state == "complete" and not again:
            return Pulled(place.folder, 0)  # another process has fetched it meanwhile
        known = manifest.read(place.folder, names_of(model))
        if known is not None and known.revision == model.revision:
            damaged = downloads.damage(model, place.folder, known, report)
            if not damaged and place.state == "complete":
                return Pulled(place.folder, 0)
            for name in damaged.keys() & known.files.keys():
                downloads.remove(model, place.folder / name)
        return _download(model, place.folder, cache, report)


def _download(model: Model, folder: Path, cache: Path, report: Report) -> Pulled:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names_of(model):
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
        raise downloads.failed(model, error) from None
    files = {
        file.path: File(file.size, file.sha256 or manifest.sha256(folder / file.path))
        for file in listed
    }
    recorded = tuple(file.path for file in listed if not file.sha256)
    manifest.write(folder, Manifest(model.source, model.revision, files, recorded))
    # What came is another file than before: it is renamed when it is whole.
    came = [file for file in listed if _inode(folder / file.path) != before[file.path]]
    return Pulled(folder, sum(file.size for file in came))


def _make_way(model: Model, path: Path) -> None:
    """Take away what a file cannot come in the place of, and links that the client would write
    through."""
    if os.path.lexists(path) and size_of(path) is None:
        downloads.remove(model, path)
    for part in parts_of(path):
        if os.path.lexists(part) and (part.is_symlink() or size_of(part) is None):
            downloads.remove(model, part)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _check_room(folder: Path, listed: Sequence[Listed]) -> None:
    wanted = sum(file.size for file in listed if not _is_whole(folder / file.path, file.size))
    if lacking := downloads.lacking_room(folder, wanted):
        raise DownloadFailed(lacking)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


# For the registry


class _FunasrFiles:
    """See :class:`app.engines.models.ModelFiles`."""

    def models(self) -> Sequence[Model]:
        return catalogue.MODELS

    def needed(self, settings: Mapping[str, object], role: Role, *, on_card: bool) -> Sequence[str]:
        found = catalogue.needed(settings, on_card=on_card)
        for name in found:
            if catalogue.find(name) is None:
                _own_folder(name)
        return found

    def to_pull(
        self, settings: Mapping[str, object], role: Role, *, on_card: bool
    ) -> Sequence[str]:
        return self.needed(settings, role, on_card=on_card)

    def inspect(self, model: str, cache: Path) -> Verdict:
        entry = catalogue.find(model)
        if entry is None:
            return _verdict_of_own(model)
        return downloads.verdict_of(locate(entry, cache))

    def verify(self, model: str, cache: Path, report: Report) -> Verdict:
        found = self.inspect(model, cache)
        entry = catalogue.find(model)
        if entry is None or found.folder is None:
            return found
        known = manifest.read(found.folder, names_of(entry))
        if known is None:
            return found
        faults = downloads.damage(entry, found.folder, known, report).values()
        return Verdict(found.folder, tuple(faults), checked=True, damaged=bool(faults))

    def pull(
        self,
        model: str,
        cache: Path,
        report: Report,
        settings: Mapping[str, object] = NO_SETTINGS,
    ) -> Pulled:
        entry = catalogue.find(model)
        if entry is None:
            return Pulled(_own_folder(model), 0)
        return _fetch(entry, cache, report, again=True)


def _verdict_of_own(model: str) -> Verdict:
    folder = folder_of(model)
    if folder is None:
        return Verdict(None, ("there is no model and no folder of this name",), checked=False)
    faults = tuple(f"{name} is missing" for name in _missing_from(folder))
    return Verdict(folder, faults, checked=False, damaged=bool(faults))


MODEL_FILES: Final[ModelFiles] = _FunasrFiles()
