"""Tiny models in the place of published ones, as mirrors have those: under the published names and
paths, with their own checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from app.engines.sherpa import catalogue
from app.engines.sherpa.catalogue import Entry
from tests.support.model_mirror import archived
from tests.support.sherpa import matcha, punctuation, sense_voice, zipformer1

_BUILDERS: Final[dict[str, Callable[[Path], Path]]] = {
    "zh-large": zipformer1.transducer,
    "zh-small": zipformer1.transducer,
    "sensevoice-int8": sense_voice.sense_voice,
    "punctuation-int8": punctuation.ct_transformer,
    "voice-zh-en": matcha.matcha,
}


def entry_of(name: str) -> Entry:
    """The model of this name."""
    entry = catalogue.find(name)
    assert entry is not None
    return entry


def content(name: str, folder: Path) -> dict[str, bytes]:
    """The files of a tiny model that stands for one of the catalogue; ``folder`` is to build in."""
    entry, built = entry_of(name), _BUILDERS[name](folder)
    found = {}
    for item in entry.files:
        if path := _stand_in(item.name, built):
            found[item.name] = path.read_bytes()
        elif item.name == "bpe.vocab":
            found[item.name] = "▁A\t-1\n".encode()
    return found


def _stand_in(name: str, built: Path) -> Path | None:
    """What the builder calls encoder.onnx is published as encoder-….int8.onnx, and so on."""
    if (built / name).exists() or not name.endswith(".onnx"):
        return built / name if (built / name).exists() else None
    kind = name.partition("-")[0].partition(".")[0]
    return built / ("vocoder.onnx" if kind == "vocos" else f"{kind}.onnx")


def singles(entry: Entry, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a site like Hugging Face has."""
    found = {}
    for item in entry.files:
        if item.hf and item.name in files:
            owner, repository, path = item.hf.split("/", 2)
            found[f"/{owner}/{repository}/resolve/main/{path}"] = files[item.name]
    return found


def released(entry: Entry, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the releases of sherpa-onnx have: the archive, the files that it is without, and a list
    of checksums."""
    assert entry.archive is not None
    tag, _, name = entry.archive.path.partition("/")
    alone = {item.release: files[item.name] for item in entry.files if item.release}
    packed = {n: data for n, data in files.items() if n not in ("bpe.vocab", *map(_name, alone))}
    archive = archived(name.removesuffix(".tar.bz2"), {"test_wavs/0.wav": b"RIFF", **packed})
    return {
        f"/{entry.archive.path}": archive,
        f"/{tag}/checksum.txt": f"other 0\n{name} {_sum(archive)}\n".encode(),
        **{f"/{path}": data for path, data in alone.items()},
    }


def with_sums(entry: Entry, files: Mapping[str, bytes], archive: bytes = b"") -> Entry:
    """The entry with the checksums of these files in the place of the published ones, where those
    are known; without ``archive`` the sum of that is not. Files that are not given have none."""
    items = tuple(
        msgspec.structs.replace(
            item, sha256=_sum(files[item.name]) if item.sha256 and item.name in files else ""
        )
        for item in entry.files
    )
    packed = entry.archive
    if packed is not None:
        packed = msgspec.structs.replace(packed, sha256=_sum(archive) if archive else "")
    return msgspec.structs.replace(entry, files=items, archive=packed)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
