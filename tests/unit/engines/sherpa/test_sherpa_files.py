"""Models of the catalogue: fetched over real HTTP from mirrors on this machine, found, checked,
mended. Tiny models stand for the published ones."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from app.core.errors import EngineNotUsable
from app.engines import downloads, manifest
from app.engines.models import Advance
from app.engines.sherpa import catalogue
from app.engines.sherpa.files import MODEL_FILES, folders, locate
from app.engines.sherpa.settings import SherpaOptions
from tests.support.model_mirror import ModelMirror, mirroring
from tests.support.sherpa import published
from tests.support.sherpa.published import entry_of

Files = Mapping[str, bytes]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Files of tiny models by the names of those that they stand for."""
    names = ("zh-small", "sensevoice-int8", "punctuation-int8", "voice-zh-en")
    return {name: published.content(name, tmp_path_factory.mktemp(name)) for name in names}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hf(tiny: dict[str, dict[str, bytes]]) -> Iterator[ModelMirror]:
    files = {name: published.singles(entry_of(name), content) for name, content in tiny.items()}
    with mirroring({path: data for each in files.values() for path, data in each.items()}) as site:
        yield site


@pytest.fixture
def release(tiny: dict[str, dict[str, bytes]]) -> Iterator[ModelMirror]:
    files = {name: published.released(entry_of(name), content) for name, content in tiny.items()}
    with mirroring({path: data for each in files.values() for path, data in each.items()}) as site:
        yield site


@pytest.fixture(autouse=True)
def sums(
    tiny: dict[str, dict[str, bytes]], release: ModelMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksums of the catalogue are those of the tiny files; of the single files of zh-small
    none is known, as of some that are published."""
    entries = []
    for entry in catalogue.ENTRIES:
        if entry.name in tiny and entry.archive is not None:
            archive = release.files[f"/{entry.archive.path}"]
            files = {} if entry.name == "zh-small" else tiny[entry.name]
            entry = published.with_sums(entry, files, archive)
        entries.append(entry)
    monkeypatch.setattr(catalogue, "ENTRIES", tuple(entries))


def without_archive_sums(monkeypatch: pytest.MonkeyPatch, tiny: Mapping[str, Files]) -> None:
    entries = [
        published.with_sums(entry, tiny[entry.name]) if entry.name in tiny else entry
        for entry in catalogue.ENTRIES
    ]
    monkeypatch.setattr(catalogue, "ENTRIES", tuple(entries))


class Heard:
    """What is told meanwhile."""

    def __init__(self) -> None:
        self.advances: list[Advance] = []

    def report(self, advance: Advance) -> None:
        self.advances.append(advance)

    def doings(self) -> list[str]:
        return list(dict.fromkeys(advance.doing for advance in self.advances))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def settings(*mirrors: str) -> dict[str, object]:
    return {"SHERPA_MIRRORS": ",".join(mirrors)}


def pull(name: str, cache: Path, *mirrors: str, heard: Heard | None = None) -> int:
    report = heard.report if heard else lambda advance: None
    pulled = MODEL_FILES.pull(name, cache, report, settings(*mirrors))
    assert pulled.folder == cache / "sherpa" / name
    return pulled.fetched


def refused(name: str, cache: Path, *mirrors: str) -> str:
    with pytest.raises(EngineNotUsable) as raised:
        pull(name, cache, *mirrors)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def content(folder: Path) -> dict[str, bytes]:
    """All files but the manifest."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    del found[manifest.NAME]
    return found


def place(name: str, cache: Path) -> str:
    return locate(entry_of(name), cache).state


def verdict(name: str, cache: Path) -> tuple[tuple[str, ...], bool, str]:
    found = MODEL_FILES.verify(name, cache, lambda advance: None)
    return found.faults, found.checked, found.note


# Fetching


def test_single_files(
    hf: ModelMirror, cache: Path, tiny: Mapping[str, Files], heard: Heard
) -> None:
    fetched = pull("zh-small", cache, f"hf={hf.url}", heard=heard)
    assert content(cache / "sherpa" / "zh-small") == tiny["zh-small"]
    assert fetched == sum(map(len, tiny["zh-small"].values()))
    assert place("zh-small", cache) == "complete"
    assert heard.doings() == ["downloading"]
    done = [advance.done for advance in heard.advances]
    assert done == sorted(done) and done[-1] == fetched
    assert all(advance.done <= advance.total for advance in heard.advances)


def test_an_archive(
    release: ModelMirror, cache: Path, tiny: Mapping[str, Files], heard: Heard
) -> None:
    pull("zh-small", cache, f"release={release.url}", heard=heard)
    files = {name: data for name, data in tiny["zh-small"].items() if name != "bpe.vocab"}
    assert content(cache / "sherpa" / "zh-small") == files
    assert heard.doings() == ["downloading", "checking", "unpacking"]
    assert verdict("zh-small", cache) == ((), True, "")


def test_an_archive_and_what_it_lacks(
    release: ModelMirror, cache: Path, tiny: Mapping[str, Files], heard: Heard
) -> None:
    pull("voice-zh-en", cache, f"release={release.url}", heard=heard)
    assert content(cache / "sherpa" / "voice-zh-en") == tiny["voice-zh-en"]
    coming = [advance for advance in heard.advances if advance.doing == "downloading"]
    assert {advance.total for advance in coming} == {entry_of("voice-zh-en").model.size_bytes}
    assert coming == sorted(coming, key=lambda advance: advance.done)
    options = SherpaOptions(cache=cache, offline=True)
    folder = folders(options, "tts", lambda text: None)["voice"]
    assert folder == cache / "sherpa" / "voice-zh-en"


def test_the_next_mirror_is_asked_for_what_the_first_lacks(
    hf: ModelMirror, release: ModelMirror, cache: Path
) -> None:
    encoder = next(path for path in hf.files if "k2fsa" in path and "joiner" in path)
    hf.statuses[encoder] = 404
    pull("zh-small", cache, f"hf={hf.url}", f"release={release.url}")
    assert place("zh-small", cache) == "complete"
    assert release.asked_for(".tar.bz2") == [0]


def test_optional_files_may_be_missing(hf: ModelMirror, cache: Path) -> None:
    del hf.files[next(path for path in hf.files if "k2fsa" in path and "bpe.vocab" in path)]
    pull("zh-small", cache, f"hf={hf.url}")
    assert place("zh-small", cache) == "complete"
    assert "bpe.vocab" not in content(cache / "sherpa" / "zh-small")


def test_a_damaged_optional_file_is_mended_too(hf: ModelMirror, cache: Path) -> None:
    pull("zh-small", cache, f"hf={hf.url}")
    path = cache / "sherpa" / "zh-small" / "bpe.vocab"
    good = path.read_bytes()
    path.write_bytes(good[::-1])
    pull("zh-small", cache, f"hf={hf.url}")
    assert path.read_bytes() == good


def test_a_site_with_both_is_asked_for_both(
    hf: ModelMirror, release: ModelMirror, cache: Path, tiny: Mapping[str, Files]
) -> None:
    """ModelScope: one of the files is not there, but the archive is."""
    entry = entry_of("zh-small")
    assert entry.archive is not None
    tag, _, name = entry.archive.path.partition("/")
    files = {
        path.replace("/main/", "/master/"): data
        for path, data in published.singles(entry, tiny["zh-small"]).items()
        if "joiner" not in path
    }
    archive = release.files[f"/{entry.archive.path}"]
    files[f"/csukuangfj/{tag}/resolve/master/{name}"] = archive
    with mirroring(files) as site:
        pull("zh-small", cache, f"modelscope={site.url}")
    assert content(cache / "sherpa" / "zh-small").items() <= tiny["zh-small"].items()


def test_nothing_of_earlier_attempts_is_left(
    hf: ModelMirror, release: ModelMirror, cache: Path, tiny: Mapping[str, Files]
) -> None:
    path = next(path for path in hf.files if "exp/32/encoder" in path)
    hf.cut_at[path], hf.goes_down = 1000, True
    refused("zh-small", cache, f"hf={hf.url}")
    archive = next(path for path in release.files if "zipformer-small" in path)
    release.cut_at[archive], release.goes_down = 1000, True
    refused("zh-small", cache, f"release={release.url}")
    hf.down = False
    pull("zh-small", cache, f"hf={hf.url}")
    assert content(cache / "sherpa" / "zh-small") == tiny["zh-small"]


def test_another_model_under_the_same_name_is_fetched_anew(
    hf: ModelMirror, cache: Path, tiny: Mapping[str, Files]
) -> None:
    pull("zh-small", cache, f"hf={hf.url}")
    folder = cache / "sherpa" / "zh-small"
    known = manifest.read(folder, tiny["zh-small"])
    assert known is not None
    manifest.write(folder, manifest.Manifest("owner/older", "main", known.files))
    assert place("zh-small", cache) == "complete"
    assert pull("zh-small", cache, f"hf={hf.url}") == sum(map(len, tiny["zh-small"].values()))


def test_what_has_no_checksum_is_told(hf: ModelMirror, cache: Path) -> None:
    pull("zh-small", cache, f"hf={hf.url}")
    faults, checked, note = verdict("zh-small", cache)
    assert (faults, checked) == ((), True)
    assert "no checksum was published of encoder-epoch-99-avg-1.int8.onnx" in note
    pull("sensevoice-int8", cache, f"hf={hf.url}")
    assert verdict("sensevoice-int8", cache) == ((), True, "")


def test_a_release_tells_checksums(
    release: ModelMirror,
    cache: Path,
    tiny: Mapping[str, Files],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_archive_sums(monkeypatch, tiny)
    pull("punctuation-int8", cache, f"release={release.url}")
    assert verdict("punctuation-int8", cache) == ((), True, "")

    sums = "/punctuation-models/checksum.txt"
    release.files[sums] = release.files[sums].replace(b"tar.bz2 ", b"tar.bz2 00")[:-3] + b"\n"
    shutil.rmtree(cache)
    assert "has another checksum" in refused("punctuation-int8", cache, f"release={release.url}")

    del release.files[sums]
    pull("punctuation-int8", cache, f"release={release.url}")
    assert "no checksum was published of model.int8.onnx" in verdict("punctuation-int8", cache)[2]


def test_a_start_downloads_what_it_needs_and_then_asks_nobody(hf: ModelMirror, cache: Path) -> None:
    told: list[str] = []
    options = SherpaOptions(cache=cache, mirrors=f"hf={hf.url}")
    found = folders(options, "asr", told.append)
    assert found == {"streaming": cache / "sherpa" / "zh-small"}
    assert told[0].startswith("downloading zh-small, 0 of ")
    hf.asked.clear()
    assert folders(options, "asr", told.append) == found
    assert hf.asked == []


def test_a_pulled_folder_may_be_read_only(hf: ModelMirror, cache: Path, tmp_path: Path) -> None:
    pull("zh-small", cache, f"hf={hf.url}")
    image = tmp_path / "image"
    shutil.copytree(cache / "sherpa", image / "sherpa")
    before = {path: path.stat().st_mtime_ns for path in image.rglob("*")}
    for path in [*image.rglob("*"), image]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    options = SherpaOptions(cache=image, offline=True)
    try:
        assert folders(options, "asr", lambda text: None) == {
            "streaming": image / "sherpa" / "zh-small"
        }
        assert {path: path.stat().st_mtime_ns for path in image.rglob("*")} == before
    finally:
        for path in [image, *image.rglob("*")]:
            path.chmod(0o755)


# Broken off


@pytest.mark.parametrize("kind", ["hf", "release"])
def test_the_next_run_fetches_only_the_rest(
    kind: str, hf: ModelMirror, release: ModelMirror, cache: Path, tiny: Mapping[str, Files]
) -> None:
    site, part = (hf, "exp/32/encoder") if kind == "hf" else (release, "zipformer-small")
    path = next(path for path in site.files if part in path)
    half = len(site.files[path]) // 2
    site.cut_at[path], site.goes_down = half, True
    text = refused("zh-small", cache, f"{kind}={site.url}")
    assert "what has come is kept, go on with the same command" in text
    assert place("zh-small", cache) == "unfinished"

    site.down = False
    pull("zh-small", cache, f"{kind}={site.url}")
    assert site.asked_for(path) == [0, half, half]  # the second to the site that had gone down
    assert content(cache / "sherpa" / "zh-small").items() <= tiny["zh-small"].items()


def test_a_ctrl_c_leaves_what_has_come(hf: ModelMirror, cache: Path) -> None:
    path = next(path for path in hf.files if "k2fsa" in path and "encoder" in path)
    half = len(hf.files[path]) // 2
    hf.held[path] = half

    def report(advance: Advance) -> None:
        if advance.done >= half:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MODEL_FILES.pull("zh-small", cache, report, settings(f"hf={hf.url}"))
    assert manifest.read(cache / "sherpa" / "zh-small", ()) is None
    hf.released.set()
    pull("zh-small", cache, f"hf={hf.url}")
    assert hf.asked_for(path) == [0, half]


def test_an_archive_that_had_come_is_not_fetched_again(release: ModelMirror, cache: Path) -> None:
    def report(advance: Advance) -> None:
        if advance.doing == "unpacking":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MODEL_FILES.pull("zh-small", cache, report, settings(f"release={release.url}"))
    pull("zh-small", cache, f"release={release.url}")
    assert release.asked_for(".tar.bz2") == [0]
    assert place("zh-small", cache) == "complete"


# What cannot be had


def test_all_reasons_are_told(hf: ModelMirror, release: ModelMirror, cache: Path) -> None:
    hf.down = True
    release.files.clear()
    text = refused("zh-small", cache, f"hf={hf.url}", f"release={release.url}")
    assert text.startswith("model zh-small could not be downloaded: ")
    assert "127.0.0.1 answers 503" in text and "127.0.0.1 answers 404" in text


def test_no_mirror_has_it(hf: ModelMirror, cache: Path) -> None:
    text = refused("punctuation-int8", cache, f"hf={hf.url}")
    assert "no mirror of SHERPA_MIRRORS has model.int8.onnx" in text
    assert text.endswith("release=URL") and "what has come" not in text


@pytest.mark.parametrize(
    "number, remedy",
    [
        (errno.EACCES, "let the user of the server write there, or set MODELSCOPE_CACHE"),
        (errno.ENOSPC, "free some space, or set MODELSCOPE_CACHE"),
        (errno.EIO, "tokens; set MODELSCOPE_CACHE"),
    ],
)
def test_what_to_do_where_nothing_can_be_written(number: int, remedy: str, cache: Path) -> None:
    model = entry_of("zh-small").model
    with pytest.raises(EngineNotUsable) as raised, downloads.writing(cache, model):
        raise OSError(number, os.strerror(number), "tokens")
    assert os.strerror(number) in str(raised.value) and remedy in str(raised.value)


def test_bad_mirrors(cache: Path) -> None:
    assert refused("zh-small", cache, "elsewhere").startswith("SHERPA_MIRRORS: ")


def test_offline_is_one_line_with_the_command(hf: ModelMirror, cache: Path) -> None:
    options = SherpaOptions(cache=cache, offline=True, mirrors=f"hf={hf.url}")
    with pytest.raises(EngineNotUsable, match="OFFLINE=false funspeech models pull"):
        folders(options, "asr", lambda text: None)
    assert hf.asked == [] and not cache.exists()


@pytest.mark.parametrize("wrong", ["joiner", "tokens"])
def test_what_is_another_model_is_told_and_not_kept(
    wrong: str, hf: ModelMirror, release: ModelMirror, cache: Path
) -> None:
    path = next(path for path in hf.files if "k2fsa" in path and wrong in path)
    good, hf.files[path] = hf.files[path], b"version https://git-lfs.github.com/spec/v1\n"
    text = refused("zh-small", cache, f"hf={hf.url}")
    assert "what the mirror has is not that model" in text and "SHERPA_MIRRORS" in text
    hf.files[path] = good
    pull("zh-small", cache, f"hf={hf.url}")
    assert place("zh-small", cache) == "complete"


def test_an_archive_without_the_files(release: ModelMirror, cache: Path) -> None:
    entry = entry_of("zh-small")
    other = entry_of("sensevoice-int8")
    assert entry.archive is not None and other.archive is not None
    broken = published.with_sums(entry, {}, release.files[f"/{other.archive.path}"])
    release.files[f"/{entry.archive.path}"] = release.files[f"/{other.archive.path}"]
    entries = tuple(broken if e.name == "zh-small" else e for e in catalogue.ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "ENTRIES", entries)
        text = refused("zh-small", cache, f"release={release.url}")
    assert "has no encoder-epoch-99-avg-1.int8.onnx" in text
    assert not list((cache / "sherpa" / "zh-small").glob("*.tar.bz2"))


def test_a_full_disk_is_told_before_anything_is_fetched(
    release: ModelMirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache.parent)._replace(free=70_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    text = refused("zh-small", cache, f"release={release.url}")
    assert "70 MB free, and 518 MB are needed" in text
    assert release.asked_for(".tar.bz2") == []


def test_room_is_left_for_unpacking_what_nobody_knows_the_size_of(
    release: ModelMirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = entry_of("voices-zh-en").archive
    assert archive is not None and not any(item.size for item in entry_of("voices-zh-en").files)
    usage = shutil.disk_usage(cache.parent)._replace(free=archive.size + 70_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    text = refused("voices-zh-en", cache, f"release={release.url}")
    assert f"{2 * archive.size // 1_000_000} MB are needed" in text


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("x")
    assert "MODELSCOPE_CACHE" in refused("zh-small", tmp_path / "cache", "hf=http://127.0.0.1:1")


def link_out(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


@pytest.mark.parametrize("put", [link_out, lambda path, outside: os.mkfifo(path)])
@pytest.mark.parametrize("ending", [".incomplete", ".incomplete.json"])
def test_nothing_is_written_through_links(
    put: Callable[[Path, Path], None],
    ending: str,
    hf: ModelMirror,
    cache: Path,
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    folder = cache / "sherpa" / "zh-small"
    folder.mkdir(parents=True)
    put(folder / f"tokens.txt{ending}", outside)
    pull("zh-small", cache, f"hf={hf.url}")
    assert outside.read_bytes() == b"precious"


def test_a_folder_in_the_place_of_a_file(hf: ModelMirror, cache: Path) -> None:
    (cache / "sherpa" / "zh-small" / "tokens.txt").mkdir(parents=True)
    assert "folder where a file belongs" in refused("zh-small", cache, f"hf={hf.url}")


# Damage, and folders of the owner's


def test_damage_is_found_by_verify_and_mended_by_pull(
    hf: ModelMirror, cache: Path, tiny: Mapping[str, Files]
) -> None:
    pull("zh-small", cache, f"hf={hf.url}")
    joiner = cache / "sherpa" / "zh-small" / "joiner-epoch-99-avg-1.int8.onnx"
    data = bytearray(joiner.read_bytes())
    data[len(data) // 2] ^= 1
    joiner.write_bytes(data)
    faults, checked, _ = verdict("zh-small", cache)
    assert checked and faults == (f"{joiner.name} is damaged: it is not what was downloaded",)
    hf.asked.clear()
    assert pull("zh-small", cache, f"hf={hf.url}") == joiner.stat().st_size
    assert len(hf.asked) == 1
    assert content(joiner.parent) == tiny["zh-small"]
    assert pull("zh-small", cache, f"hf={hf.url}") == 0


def test_a_missing_file_stops_the_start_with_the_command(hf: ModelMirror, cache: Path) -> None:
    pull("zh-small", cache, f"hf={hf.url}")
    (cache / "sherpa" / "zh-small" / "tokens.txt").unlink()
    with pytest.raises(EngineNotUsable, match=r"is damaged: .*models pull zh-small$"):
        folders(SherpaOptions(cache=cache), "asr", lambda text: None)


def test_files_that_were_put_there_by_hand(
    hf: ModelMirror, cache: Path, tiny: Mapping[str, Files]
) -> None:
    folder = cache / "sherpa" / "sensevoice-int8"
    folder.mkdir(parents=True)
    for name, data in tiny["sensevoice-int8"].items():
        (folder / name).write_bytes(data)
    assert place("sensevoice-int8", cache) == "complete"
    assert verdict("sensevoice-int8", cache) == ((), False, "")
    (folder / "tokens.txt").write_bytes(b"x" * 10)
    assert pull("sensevoice-int8", cache, f"hf={hf.url}") > 0  # the catalogue has its checksum
    assert verdict("sensevoice-int8", cache) == ((), True, "")


def test_folders_of_the_owner_s(tmp_path: Path, cache: Path, tiny: Mapping[str, Files]) -> None:
    mine = tmp_path / "mine"
    with pytest.raises(EngineNotUsable, match=r"SHERPA_OFFLINE_MODEL: there is no folder .*sensev"):
        folders(SherpaOptions(cache=cache, offline_model=str(mine)), "asr", lambda text: None)
    mine.mkdir()
    assert MODEL_FILES.inspect(str(mine), cache).faults == ("it has no .onnx file",)
    with pytest.raises(EngineNotUsable, match=r"it has no \.onnx file"):
        MODEL_FILES.pull(str(mine), cache, lambda advance: None)
    (mine / "model.onnx").write_bytes(tiny["sensevoice-int8"]["model.int8.onnx"])
    assert MODEL_FILES.inspect(str(mine), cache).faults == ()
    assert MODEL_FILES.pull(str(mine), cache, lambda advance: None).folder == mine
    found = folders(SherpaOptions(cache=cache, offline_model=str(mine)), "asr", lambda text: None)
    assert found == {"offline": mine}


@pytest.mark.parametrize("name", ["no-such", "x" * 5000, "a\0b", "~nobody-of-this-name/x"])
def test_names_that_are_nothing(name: str, cache: Path) -> None:
    assert MODEL_FILES.inspect(name, cache).faults
    assert MODEL_FILES.verify(name, cache, lambda advance: None).faults
    with pytest.raises(EngineNotUsable) as raised:
        folders(SherpaOptions(cache=cache, streaming_model=name), "asr", lambda text: None)
    assert len(str(raised.value)) < 400


def test_needed_names_what_a_start_would_load(hf: ModelMirror, cache: Path) -> None:
    def needed(half: str, **more: object) -> tuple[str, ...]:
        given = {"MODELSCOPE_CACHE": str(cache), **more}
        return tuple(MODEL_FILES.needed(given, half, on_card=False))  # type: ignore[arg-type]  # asr, tts

    assert needed("asr") == ("zh-small",)
    assert needed("tts") == ("voice-zh-en",)
    assert needed("asr", ASR_MODEL_MODE="offline") == ("sensevoice-int8",)
    pull("sensevoice-int8", cache, f"hf={hf.url}")
    assert needed("asr") == ("sensevoice-int8",)
    pull("zh-small", cache, f"hf={hf.url}")
    assert needed("asr") == ("zh-small", "sensevoice-int8")
    mine = cache / "mine"
    mine.mkdir()
    assert needed("asr", SHERPA_STREAMING_MODEL=str(mine)) == (str(mine), "sensevoice-int8")
    with pytest.raises(EngineNotUsable, match="SHERPA_STREAMING_MODEL: there is no folder zh-smal"):
        needed("asr", SHERPA_STREAMING_MODEL="zh-smal")
    with pytest.raises(EngineNotUsable, match="SHERPA_MIRRORS: "):
        needed("asr", SHERPA_MIRRORS="hf:huggingface")
    with pytest.raises(EngineNotUsable, match="SHERPA_VOICE_MODEL"):
        needed("tts", SHERPA_VOICE_MODEL="zh-small")


def test_interim_results_are_pulled_where_the_choice_is_ours(
    hf: ModelMirror, cache: Path, tmp_path: Path
) -> None:
    def wanted(**more: object) -> tuple[str, ...]:
        given = {"MODELSCOPE_CACHE": str(cache), **more}
        return tuple(MODEL_FILES.to_pull(given, "asr", on_card=False))

    assert wanted() == ("zh-small",)
    pull("sensevoice-int8", cache, f"hf={hf.url}")
    assert wanted() == ("zh-small", "sensevoice-int8")
    assert wanted(SHERPA_OFFLINE_MODEL=str(tmp_path)) == ("zh-small", str(tmp_path))
    assert wanted(SHERPA_STREAMING_MODEL="none") == ("sensevoice-int8",)
    assert wanted(ASR_MODEL_MODE="offline") == ("sensevoice-int8",)
    pull("zh-small", cache, f"hf={hf.url}")
    assert wanted() == ("zh-small", "sensevoice-int8")
