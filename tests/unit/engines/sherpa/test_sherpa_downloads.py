"""What a pull trusts, and what it touches: the catalogue's checksums before a folder's own, nothing
of a model that is whole, and no file that the lock's name leads to."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app.core.errors import EngineNotUsable
from app.engines import downloads, manifest
from app.engines.sherpa import catalogue, mirrors
from app.engines.sherpa.files import MODEL_FILES
from tests.support.model_mirror import ModelMirror, mirroring
from tests.support.sherpa import published
from tests.support.sherpa.published import entry_of

NAME = "sensevoice-int8"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a tiny model that stands for the published one."""
    return published.content(NAME, tmp_path_factory.mktemp(NAME))


@pytest.fixture
def site(tiny: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelMirror]:
    entry = published.with_sums(entry_of(NAME), tiny)
    assert all(item.sha256 for item in entry.files if item.name in tiny)
    entries = tuple(entry if each.name == NAME else each for each in catalogue.ENTRIES)
    monkeypatch.setattr(catalogue, "ENTRIES", entries)
    with mirroring(published.singles(entry, tiny)) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def pull(site: ModelMirror, cache: Path) -> int:
    given = {"SHERPA_MIRRORS": f"hf={site.url}"}
    return MODEL_FILES.pull(NAME, cache, lambda advance: None, given).fetched


def refused(site: ModelMirror, cache: Path) -> str:
    with pytest.raises(EngineNotUsable) as raised:
        pull(site, cache)
    assert str(raised.value).isprintable()
    return str(raised.value)


def faults(cache: Path) -> tuple[str, ...]:
    return MODEL_FILES.verify(NAME, cache, lambda advance: None).faults


# Manifests of somebody else's


@pytest.mark.parametrize("told", ["another sum", "nothing"])
def test_the_catalogue_s_checksum_counts_before_the_folder_s(
    told: str, site: ModelMirror, cache: Path, tiny: Mapping[str, bytes]
) -> None:
    pull(site, cache)
    tokens = cache / "sherpa" / NAME / "tokens.txt"
    other = tiny["tokens.txt"][::-1]
    tokens.write_bytes(other)
    known = manifest.read(tokens.parent, tiny)
    assert known is not None
    if told == "nothing":
        del known.files["tokens.txt"]
    else:
        found = manifest.File(len(other), hashlib.sha256(other).hexdigest())
        known.files["tokens.txt"] = found
    manifest.write(tokens.parent, known)

    assert faults(cache) == ("tokens.txt is damaged: it is not what was downloaded",)
    assert pull(site, cache) == len(other)
    assert tokens.read_bytes() == tiny["tokens.txt"]
    assert faults(cache) == ()


# What is whole


def test_a_model_that_is_whole_is_not_touched(site: ModelMirror, cache: Path) -> None:
    pull(site, cache)
    shutil.rmtree(cache / ".lock")
    before = {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}
    site.asked.clear()
    assert pull(site, cache) == 0
    assert {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))} == before
    assert site.asked == []


def test_a_file_that_cannot_be_read_is_told(
    site: ModelMirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(site, cache)

    def unreadable(path: Path, advance: object = None) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(manifest, "sha256", unreadable)
    assert "Permission denied" in refused(site, cache)


# The lock


def lock_of(cache: Path) -> Path:
    (cache / ".lock").mkdir(parents=True)
    return cache / ".lock" / f"funspeech-{NAME}.lock"


def test_a_lock_that_is_a_link_is_not_followed(
    site: ModelMirror, cache: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    lock_of(cache).symlink_to(outside)
    assert f"funspeech-{NAME}.lock" in refused(site, cache)
    assert outside.read_bytes() == b"precious"


def test_what_is_in_the_lock_s_place_stays_as_it_is(site: ModelMirror, cache: Path) -> None:
    lock = lock_of(cache)
    lock.write_bytes(b"precious")
    assert pull(site, cache) > 0
    assert lock.read_bytes() == b"precious"


@pytest.mark.timeout(30)
def test_a_fifo_in_the_lock_s_place_holds_nothing_up(cache: Path) -> None:
    os.mkfifo(lock_of(cache))
    with downloads.alone(entry_of(NAME).model, cache, lambda advance: None):
        pass


# The setting


@pytest.mark.parametrize("text", [",", " , ,, "])
def test_a_list_without_a_mirror(text: str) -> None:
    with pytest.raises(EngineNotUsable, match="SHERPA_MIRRORS has no hf=URL"):
        mirrors.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "hf=http://user:secret@h/?x",
        "http://user:secret@h",
        "hf=ftp://user:secret@h",
        "hf=http://user:secret@",
        "hf=http://user:secret@xn--0",
    ],
)
def test_passwords_of_mirrors_are_not_shown(text: str) -> None:
    with pytest.raises(EngineNotUsable, match=r"^SHERPA_MIRRORS: ") as raised:
        mirrors.parse(text)
    assert "secret" not in str(raised.value)
    assert str(raised.value).isprintable()
