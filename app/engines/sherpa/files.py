"""Where the models of sherpa-onnx are on this machine, and how they get there.

A model of the catalogue is a plain folder in the folder of downloaded models, ``sherpa/NAME``, with
the published files under their own names; it is only read once it is whole, so it may be part of an
image, or lie on a disk that cannot be written. A start looks at presence and sizes only and, once a
model is whole, never at the network; checksums are for ``funspeech models verify``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import downloads, manifest
from app.engines.downloads import Place, names_of
from app.engines.manifest import File, Manifest
from app.engines.models import NO_SETTINGS, Model, ModelFiles, Pulled, Report, Verdict
from app.engines.reading import size_of
from app.engines.sherpa import catalogue, mirrors
from app.engines.sherpa.catalogue import Entry
from app.engines.sherpa.choice import Look, chosen, left_out, to_pull
from app.engines.sherpa.delivery import Delivery, NotOnMirrors, make_way
from app.engines.sherpa.fetch import FetchFailed
from app.engines.sherpa.kinds import ModelRole, find_model
from app.engines.sherpa.mirrors import Mirror
from app.engines.sherpa.settings import SherpaOptions, own_folder, setting_of
from app.engines.sherpa.voice_kinds import find_voice_model

log = structlog.get_logger(__name__)

_FOLDER: Final = "sherpa"
_NAME_CHARS: Final = 80


def folders(
    options: SherpaOptions, half: Role, progress: Callable[[str], None]
) -> dict[ModelRole, Path]:
    """The folders of the models to load for recognition or for synthesis. Models of the catalogue
    that are not here are downloaded first; ``progress`` is called every few seconds meanwhile.

    Raises:
        EngineNotUsable: the settings make no sense, or a model is missing or damaged; the text has
            the command that mends it.
    """
    models = _models(options, half)
    for name in left_out(options, half, _look(options.cache)):
        log.warning("a damaged model is left out", model=name, mend=f"funspeech models pull {name}")
    return {role: _ensure(role, model, options, progress) for role, model in models.items()}


def _models(options: SherpaOptions, half: Role) -> dict[ModelRole, str]:
    """What to load, with folders of the owner's looked for."""
    models = chosen(options, half, _look(options.cache))
    for role, model in models.items():
        if catalogue.find(model) is None:
            _existing(role, model)
    return models


def _look(cache: Path) -> Look:
    def look(name: str) -> downloads.State:
        entry = catalogue.find(name)
        return "absent" if entry is None else locate(entry, cache).state

    return look


def locate(entry: Entry, cache: Path) -> Place:
    """Where a model is, or belongs, and how whole it is."""
    return downloads.look(entry.model, cache / _FOLDER / entry.name)


def _ensure(
    role: ModelRole, model: str, options: SherpaOptions, progress: Callable[[str], None]
) -> Path:
    entry = catalogue.find(model)
    if entry is None:
        return _existing(role, model)
    place = locate(entry, options.cache)
    if downloads.check_usable(entry.model, place, options.cache, offline=options.offline):
        return place.folder
    sites = mirrors.parse(options.mirrors)
    return _fetch(entry, options.cache, sites, downloads.told(progress), again=False).folder


def _existing(role: ModelRole, model: str) -> Path:
    folder = own_folder(role, model)
    if downloads.folder_of(model) is None:
        names = ", ".join(entry.name for entry in catalogue.of_role(role))
        raise EngineNotUsable(
            f"{setting_of(role)}: there is no folder {model[:_NAME_CHARS]} and no model of that "
            f"name; the models are: {names}"
        )
    return folder


# Fetching


def _fetch(
    entry: Entry, cache: Path, sites: Sequence[Mirror], report: Report, *, again: bool
) -> Pulled:
    """Download what is not there, one process at a time. ``again``: a model that is whole, too, is
    compared with its checksums."""
    model = entry.model
    place = locate(entry, cache)
    if again and place.state == "complete" and _is_undamaged(entry, place.folder, report):
        return Pulled(place.folder, 0)  # the folder may be one that cannot be written to
    with downloads.writing(cache, model), downloads.alone(model, cache, report):
        place = locate(entry, cache)
        if place.state == "complete" and not again:
            return Pulled(place.folder, 0)  # another process has fetched it meanwhile
        folder, known = place.folder, _known(entry, place.folder)
        if known is not None and (known.source, known.revision) != (model.source, model.revision):
            for name in names_of(model):  # an earlier choice of ours under this name
                downloads.remove(model, folder / name)
        elif known is not None:
            damaged = downloads.damage(model, folder, known, report)
            if not damaged and place.state == "complete":
                return Pulled(folder, 0)
            for name in damaged.keys() & known.files.keys():
                downloads.remove(model, folder / name)
        return _download(entry, folder, sites, report)


def _known(entry: Entry, folder: Path) -> Manifest | None:
    """The manifest of a folder, with the catalogue's checksums before its own: the folder may have
    come from somebody else."""
    found = manifest.read(folder, names_of(entry.model))
    if found is None:
        return None
    files = dict(found.files)
    for item in entry.files:
        size = size_of(folder / item.name)
        if item.sha256 and (item.name in files or size):
            known = files.get(item.name)
            files[item.name] = File(known.size if known else size or 0, item.sha256)
    return msgspec.structs.replace(found, files=files)


def _is_undamaged(entry: Entry, folder: Path, report: Report) -> bool:
    known = _known(entry, folder)
    model = entry.model
    if known is None or (known.source, known.revision) != (model.source, model.revision):
        return False
    try:
        return not downloads.damage(model, folder, known, report)
    except OSError:
        return False  # told where it is mended


def _download(entry: Entry, folder: Path, sites: Sequence[Mirror], report: Report) -> Pulled:
    folder.mkdir(parents=True, exist_ok=True)
    make_way(entry, folder)
    before = manifest.read(folder, names_of(entry.model))
    manifest.remove(folder)
    delivery = Delivery(entry, folder, report)
    delivery.check_present()
    try:
        delivery.bring(sites)
    except NotOnMirrors as error:
        remedy = "name a place like the releases of sherpa-onnx in SHERPA_MIRRORS, too: release=URL"
        raise downloads.failed(entry.model, error, remedy) from None
    except FetchFailed as error:
        raise downloads.failed(entry.model, error) from None
    _check(entry, folder, delivery)
    delivery.clear()
    manifest.write(folder, _manifest(entry.model, folder, before, delivery))
    return Pulled(folder, delivery.fetched)


def _check(entry: Entry, folder: Path, delivery: Delivery) -> None:
    """Whether the runtime can work with what is there now. If not, what came without a checksum is
    taken away again: the next attempt must not take it for good."""
    try:
        if entry.role == "voice":
            find_voice_model(folder)
        else:
            find_model(folder, entry.role)
    except EngineNotUsable as error:
        if not delivery.came:
            raise
        for item in entry.files:
            if item.name not in delivery.published:
                downloads.remove(entry.model, folder / item.name)
        raise EngineNotUsable(
            f"model {entry.name}: what the mirror has is not that model ({error}); name another "
            "one in SHERPA_MIRRORS"
        ) from None


def _manifest(model: Model, folder: Path, before: Manifest | None, delivery: Delivery) -> Manifest:
    """``before``: that of files which were there already."""
    there = [name for name in names_of(model) if size_of(folder / name)]
    files, recorded = dict[str, File](), list[str]()
    for name in there:
        files[name] = File(size_of(folder / name) or 0, manifest.sha256(folder / name))
        known = before.files.get(name) if before and name not in before.recorded else None
        if name not in delivery.published and known != files[name]:
            recorded.append(name)
    return Manifest(model.source, model.revision, files, tuple(recorded))


# For the registry


class _SherpaFiles:
    """See :class:`app.engines.models.ModelFiles`."""

    def models(self) -> Sequence[Model]:
        return tuple(entry.model for entry in catalogue.ENTRIES)

    def needed(self, settings: Mapping[str, object], role: Role, *, on_card: bool) -> Sequence[str]:
        return tuple(_models(SherpaOptions.parse(settings), role).values())

    def to_pull(
        self, settings: Mapping[str, object], role: Role, *, on_card: bool
    ) -> Sequence[str]:
        options = SherpaOptions.parse(settings)
        _models(options, role)
        return to_pull(options, role, _look(options.cache))

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
        known = _known(entry, found.folder)
        if known is None:
            return found
        faults = downloads.damage(entry.model, found.folder, known, report).values()
        note = ""
        if known.recorded:
            note = f"as it was downloaded: no checksum was published of {', '.join(known.recorded)}"
        return Verdict(found.folder, tuple(faults), checked=True, note=note, damaged=bool(faults))

    def pull(
        self,
        model: str,
        cache: Path,
        report: Report,
        settings: Mapping[str, object] = NO_SETTINGS,
    ) -> Pulled:
        entry = catalogue.find(model)
        if entry is None:
            verdict = _verdict_of_own(model)
            if verdict.folder is None or verdict.faults:
                raise EngineNotUsable(f"{model[:_NAME_CHARS]}: {'; '.join(verdict.faults)}")
            return Pulled(verdict.folder, 0)
        sites = mirrors.parse(SherpaOptions.parse(settings).mirrors)
        return _fetch(entry, cache, sites, report, again=True)


def _verdict_of_own(model: str) -> Verdict:
    folder = downloads.folder_of(model)
    if folder is None:
        return Verdict(None, ("there is no model and no folder of this name",), checked=False)
    if any(size_of(path) for path in folder.glob("*.onnx")):
        return Verdict(folder, (), checked=False)
    return Verdict(folder, ("it has no .onnx file",), checked=False, damaged=True)


MODEL_FILES: Final[ModelFiles] = _SherpaFiles()
