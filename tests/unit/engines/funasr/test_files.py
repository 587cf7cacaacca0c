"""Model files: downloaded by the real client from a hub on this machine, found, checked, mended."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.core.errors import EngineNotUsable
from app.engines import manifest
from app.engines.funasr import catalogue, download
from app.engines.funasr.files import MODEL_FILES, ensure, locate
from app.engines.models import Advance, Model, Report, Verdict
from tests.support.model_hub import ModelHub, running

ROOT = Path(__file__).parents[4]
WEIGHTS = random.Random(5).randbytes(3_000_000)
CONTENT = {
    "config.yaml": b"model: FsmnVADStreaming\n",
    "model.pt": WEIGHTS,
    "am.mvn": b"<Nnet>\n" * 100,
    "README.md": b"# fsmn-vad\n",
    "example/vad_example.wav": b"RIFF" * 100,
}


def vad() -> Model:
    model = catalogue.find("fsmn-vad")
    assert model is not None
    return model


def ours(cache: Path) -> Path:
    """Where we put it."""
    return cache / "models" / vad().source


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelHub]:
    with running({vad().source: CONTENT}) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Heard:
    """What a download tells."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.advances: list[Advance] = []

    def progress(self, text: str) -> None:
        self.texts.append(text)

    def report(self, advance: Advance) -> None:
        self.advances.append(advance)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def start(cache: Path, *, offline: bool = False) -> Path:
    """As a worker does when it loads the model."""
    return ensure("fsmn-vad", cache=cache, offline=offline, progress=lambda text: None)


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CONTENT[name])
    return folder


# Downloading


def test_the_first_start_downloads_and_the_next_touches_no_network(
    hub: ModelHub, cache: Path, heard: Heard
) -> None:
    folder = ensure("fsmn-vad", cache=cache, offline=False, progress=heard.progress)
    assert folder == ours(cache)
    for name in vad().files:
        assert (folder / name).read_bytes() == CONTENT[name]
    assert not (folder / "example").exists()
    assert heard.texts[0] == "downloading fsmn-vad, 0 of 1 MB"
    assert "v2.0.4" in hub.revisions

    hub.requests.clear()
    assert start(cache) == start(cache, offline=True) == folder
    assert hub.requests == []


def test_a_connection_that_breaks_goes_on_where_it_was(hub: ModelHub, cache: Path) -> None:
    hub.cut_at["model.pt"] = 1_000_000
    folder = start(cache)
    assert (folder / "model.pt").read_bytes() == WEIGHTS
    assert hub.ranges["model.pt"] == [0, 1_000_000]


def test_a_killed_download_goes_on_where_it_was(hub: ModelHub, cache: Path) -> None:
    hub.held, hub.cut_at["model.pt"] = threading.Event(), 2_000_000
    with pytest.raises(KeyboardInterrupt):
        MODEL_FILES.pull("fsmn-vad", cache, interrupt_at(2_000_000))
    assert locate(vad(), cache).state == "unfinished"
    assert manifest.read(ours(cache), vad().files) is None

    pulled = MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None)
    assert (pulled.folder / "model.pt").read_bytes() == WEIGHTS
    first, second = hub.ranges["model.pt"]
    assert (first, second) == (0, 2_000_000)


def interrupt_at(done: int) -> Report:
    """A report that is a Ctrl-C as soon as so much is there."""

    def report(advance: Advance) -> None:
        if advance.doing == "downloading" and advance.done >= done:
            raise KeyboardInterrupt

    return report


def test_the_log_of_a_start_tells_how_much_there_is_to_come(cache: Path) -> None:
    with capture_logs() as logs:
        ensure("fsmn-vad", cache=cache, offline=False, progress=lambda text: None)
    first = next(each for each in logs if each["event"] == "model: downloading")
    assert (first["log_level"], first["model"]) == ("info", "fsmn-vad")
    assert first["mb"] <= first["of_mb"]
    assert first["of_mb"] in (1, 3)  # the catalogue's size, until the hub has told its own


def test_progress_tells_the_bytes(hub: ModelHub, cache: Path, heard: Heard) -> None:
    hub.held, hub.cut_at["model.pt"] = threading.Event(), 2_000_000

    def report(advance: Advance) -> None:
        heard.report(advance)
        if advance.done >= 2_000_000 and hub.held is not None:
            hub.held.set()

    fetched = MODEL_FILES.pull("fsmn-vad", cache, report).fetched
    assert fetched == sum(len(data) for name, data in CONTENT.items() if "/" not in name)
    done = [advance.done for advance in heard.advances]
    assert done == sorted(done)
    assert {advance.total for advance in heard.advances} <= {fetched, vad().size_bytes}


def test_two_processes_at_once_download_once(hub: ModelHub, cache: Path) -> None:
    hub.held, hub.cut_at["model.pt"] = threading.Event(), 1_000_000
    code = (
        "import sys; from pathlib import Path; from app.engines.funasr.files import ensure\n"
        "told = lambda text: print(text, flush=True)\n"
        "print(ensure('fsmn-vad', cache=Path(sys.argv[1]), offline=False, progress=told))"
    )

    def worker() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", code, str(cache)]
        return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    with worker() as first:
        assert hub.reached.wait(60)
        with worker() as second:
            assert second.stdout is not None
            for line in second.stdout:
                if line.startswith("waiting for another process"):
                    break
            hub.held.set()
            rest = second.stdout.read()
        assert first.stdout is not None
        found = first.stdout.read()
    assert first.returncode == second.returncode == 0
    assert found.split()[-1] == rest.split()[-1] == str(ours(cache))
    assert hub.fetched().count("config.yaml") == 1
    assert (ours(cache) / "model.pt").read_bytes() == WEIGHTS


def test_a_download_ends_with_the_process_that_wants_it(hub: ModelHub, cache: Path) -> None:
    hub.held, hub.cut_at["model.pt"] = threading.Event(), 1_000_000
    code = (
        "import sys; from pathlib import Path; from app.engines.funasr.files import ensure\n"
        "ensure('fsmn-vad', cache=Path(sys.argv[1]), offline=False, progress=print)"
    )
    argv = [sys.executable, "-c", code, str(cache)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert hub.reached.wait(60)
        process.kill()
    hub.held.set()
    # The lock is free at once, and the partial file is nobody's any more.
    folder = MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None).folder
    assert (folder / "model.pt").read_bytes() == WEIGHTS


# What cannot be had


def test_offline_is_one_line_with_the_command_and_asks_nobody(hub: ModelHub, cache: Path) -> None:
    with pytest.raises(EngineNotUsable) as raised:
        start(cache, offline=True)
    text = str(raised.value)
    assert "OFFLINE=false funspeech models pull" in text and "\n" not in text
    assert hub.requests == [] and not cache.exists()


def test_a_hub_that_refuses_is_one_line_with_the_command(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound, but it does not listen
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{refusing.getsockname()[1]}")
        with pytest.raises(EngineNotUsable) as raised:
            start(cache)
    text = str(raised.value)
    assert text.startswith("model fsmn-vad could not be downloaded: ") and "\n" not in text
    assert "no connection to the hub (Connection refused)" in text
    assert text.endswith("what has come is kept, go on with the same command")


def test_a_hub_without_the_model(hub: ModelHub, cache: Path) -> None:
    hub.repositories.clear()
    with pytest.raises(EngineNotUsable, match=r"could not be downloaded: .*404"):
        start(cache)


def test_a_hub_that_lacks_a_file(hub: ModelHub, cache: Path) -> None:
    del hub.repositories[vad().source]["am.mvn"]
    with pytest.raises(EngineNotUsable, match=r"at v2\.0\.4 has no am\.mvn"):
        start(cache)
    assert hub.fetched() == []


def test_a_hub_that_sends_nothing_is_given_up(hub: ModelHub, tmp_path: Path) -> None:
    hub.held, hub.cut_at["model.pt"] = threading.Event(), 1_000_000
    request = download.Request(
        source=vad().source,
        revision="master",
        folder=str(tmp_path / "model"),
        cache=str(tmp_path),
        required=vad().files,
        extra=(),
    )
    (tmp_path / "model").mkdir()
    with pytest.raises(download.DownloadFailed, match="nothing has come"):
        download.download(
            request, lambda listed: None, lambda done, total: None, poll_s=0.05, stall_s=1.5
        )


@pytest.mark.parametrize("lie", [{"Size": -5}, {"Sha256": 5}])
def test_a_list_that_makes_no_sense_is_refused_at_once(
    hub: ModelHub, cache: Path, lie: dict[str, object]
) -> None:
    hub.listed["model.pt"] = lie
    with pytest.raises(EngineNotUsable, match="the hub's file list makes no sense"):
        start(cache)


def test_nothing_is_written_into_the_home_directory(tmp_path: Path, cache: Path) -> None:
    start(cache)
    assert not (tmp_path / "home").exists()


def test_a_full_disk_is_told_before_anything_is_fetched(
    hub: ModelHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache.parent)._replace(free=50_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(EngineNotUsable, match="50 MB free, and 3 MB are needed"):
        start(cache)
    assert hub.fetched() == []


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    cache = tmp_path / "file"
    cache.write_text("x")
    with pytest.raises(EngineNotUsable, match=r"cannot be put into .*MODELSCOPE_CACHE"):
        start(cache)


def test_a_name_that_is_nothing(cache: Path) -> None:
    with pytest.raises(EngineNotUsable, match=r"no folder 'sensvoice'; .*, sensevoice"):
        ensure("sensvoice", cache=cache, offline=False, progress=lambda text: None)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 5000, "a\0b"])
def test_a_name_that_no_folder_can_have(cache: Path, name: str) -> None:
    with pytest.raises(EngineNotUsable, match="there is no model and no folder") as raised:
        ensure(name, cache=cache, offline=False, progress=lambda text: None)
    assert len(str(raised.value)) < 400
    assert MODEL_FILES.inspect(name, cache).faults
    assert MODEL_FILES.verify(name, cache, lambda advance: None).faults


# Folders of the owner's, and of modelscope's


def test_a_folder_of_the_owner_s(tmp_path: Path, cache: Path, hub: ModelHub) -> None:
    mine = put(tmp_path / "mine", "config.yaml")
    with pytest.raises(EngineNotUsable, match=r"is no model: it has no model\.pt"):
        ensure(str(mine), cache=cache, offline=False, progress=lambda text: None)
    put(mine, "model.pt")
    assert ensure(str(mine), cache=cache, offline=True, progress=lambda text: None) == mine
    assert hub.requests == []


@pytest.mark.parametrize(
    "layout",
    [
        "models/iic/{}",
        "hub/models/iic/{}",
        "hub/iic/{}",
        "iic/{}",
        "models/iic--{}/snapshots/v2.0.4",
        "models/iic--{}/snapshots/master",
    ],
)
def test_a_complete_folder_of_modelscope_s_is_used_without_network(
    layout: str, cache: Path, hub: ModelHub
) -> None:
    folder = cache / layout.format(vad().source.partition("/")[2])
    put(folder, *vad().files)
    assert start(cache) == folder
    assert MODEL_FILES.inspect("fsmn-vad", cache).folder == folder
    verdict = MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None)
    assert verdict.faults == () and not verdict.checked
    assert hub.requests == []


def test_pull_compares_a_folder_of_modelscope_s_with_the_hub(cache: Path, hub: ModelHub) -> None:
    folder = put(cache / "hub/iic" / vad().source.partition("/")[2], *vad().files)
    (folder / "am.mvn").write_bytes(b"<other>" * 100)
    assert MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None).folder == folder
    assert (folder / "am.mvn").read_bytes() == CONTENT["am.mvn"]
    assert "model.pt" not in hub.fetched()
    assert MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None).checked


def test_an_unfinished_folder_of_modelscope_s_is_finished(cache: Path, hub: ModelHub) -> None:
    folder = put(cache / "iic" / vad().source.partition("/")[2], "config.yaml", "am.mvn")
    assert start(cache) == folder
    assert hub.fetched() == ["model.pt", "README.md"]


# Damage


def test_a_file_that_disappears_stops_the_start_with_the_command(
    hub: ModelHub, cache: Path
) -> None:
    folder = start(cache)
    (folder / "am.mvn").unlink()
    hub.requests.clear()
    with pytest.raises(EngineNotUsable) as raised:
        start(cache)
    text = str(raised.value)
    assert "am.mvn is missing" in text and text.endswith("funspeech models pull fsmn-vad")
    assert hub.requests == []

    assert MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None).fetched == len(
        CONTENT["am.mvn"]
    )
    assert hub.fetched() == ["am.mvn"]
    assert start(cache, offline=True) == folder


def test_a_short_file_stops_the_start(cache: Path) -> None:
    (start(cache) / "model.pt").write_bytes(WEIGHTS[:-1])
    with pytest.raises(
        EngineNotUsable, match=r"model\.pt has 2,999,999 bytes instead of 3,000,000"
    ):
        start(cache)


def test_a_damaged_byte_is_found_by_verify_and_mended_by_pull(
    hub: ModelHub, cache: Path, heard: Heard
) -> None:
    folder = start(cache)
    whole = MODEL_FILES.verify("fsmn-vad", cache, heard.report)
    assert (whole.faults, whole.checked) == ((), True)
    assert heard.advances[-1].done == heard.advances[-1].total

    damaged = bytearray(WEIGHTS)
    damaged[1_234_567] ^= 1
    (folder / "model.pt").write_bytes(damaged)
    assert start(cache) == folder  # a start does not read gigabytes
    verdict = MODEL_FILES.verify("fsmn-vad", cache, heard.report)
    assert verdict.checked and len(verdict.faults) == 1
    assert verdict.faults[0].startswith("model.pt is damaged")

    hub.requests.clear()
    assert MODEL_FILES.pull("fsmn-vad", cache, heard.report).fetched == len(WEIGHTS)
    assert hub.fetched() == ["model.pt"]
    assert MODEL_FILES.verify("fsmn-vad", cache, heard.report).faults == ()


def test_pull_of_a_whole_model_reads_it_and_asks_nobody(hub: ModelHub, cache: Path) -> None:
    start(cache)
    hub.requests.clear()
    assert MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None).fetched == 0
    assert hub.requests == []


def test_a_damaged_transfer_is_not_taken(hub: ModelHub, cache: Path) -> None:
    put(ours(cache), "config.yaml")
    (ours(cache) / "model.pt.incomplete").write_bytes(bytes(1_000_000))
    assert (start(cache) / "model.pt").read_bytes() == WEIGHTS
    assert hub.ranges["model.pt"] == [1_000_000, 0]


def test_a_manifest_that_cannot_be_read_counts_as_none(cache: Path) -> None:
    folder = start(cache)
    (folder / manifest.NAME).write_text("{")
    assert start(cache, offline=True) == folder
    assert not MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None).checked


# Folders that somebody else has made


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / manifest.NAME
    content = json.loads(path.read_text())
    change(content["files"])
    path.write_text(json.dumps(content))


def test_a_manifest_leads_to_no_other_file(cache: Path, tmp_path: Path) -> None:
    folder = start(cache)
    victims = [tmp_path / "absolute", folder.parent / "relative", folder / "mine.txt"]
    for victim in victims:
        victim.write_text("precious")
    wrong = {"size": 1, "sha256": "0" * 64}
    names = [str(victims[0]), "../relative", "mine.txt"]
    edit_manifest(folder, lambda files: files.update(dict.fromkeys(names, wrong)))
    assert MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None).faults == ()
    assert MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None).fetched == 0
    assert [victim.read_text() for victim in victims] == ["precious"] * 3


def test_a_required_file_that_the_manifest_leaves_out_is_a_fault(
    hub: ModelHub, cache: Path
) -> None:
    folder = start(cache)
    edit_manifest(folder, lambda files: files.clear())
    (folder / "model.pt").unlink()
    faults = MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None).faults
    assert faults == (
        "config.yaml has no checksum",
        "model.pt is missing",
        "am.mvn has no checksum",
    )
    hub.requests.clear()
    MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None)
    assert hub.fetched() == ["model.pt"]
    assert MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None).faults == ()


@pytest.mark.parametrize("known", [True, False])
def test_a_folder_in_the_place_of_a_file_is_left_to_the_owner(cache: Path, known: bool) -> None:
    folder = start(cache)
    if not known:
        (folder / manifest.NAME).unlink()
    (folder / "model.pt").unlink()
    put(folder / "model.pt", "README.md")
    assert MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None).faults
    with pytest.raises(EngineNotUsable, match=r"a folder where a file belongs: .*/model\.pt; move"):
        MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None)
    assert (folder / "model.pt" / "README.md").exists()


@pytest.mark.parametrize(
    "name", ["model.pt", "model.pt.incomplete", "model.pt_0_99", manifest.NAME]
)
def test_nothing_is_written_through_a_link(cache: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = put(ours(cache), "config.yaml")
    (folder / name).symlink_to(victim)
    assert MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None).folder == folder
    assert victim.read_text() == "precious"
    assert (folder / "model.pt").read_bytes() == WEIGHTS
    assert not (folder / name).is_symlink()


def test_links_are_followed_for_reading(cache: Path, tmp_path: Path, hub: ModelHub) -> None:
    elsewhere = put(tmp_path / "disk", *vad().files)
    ours(cache).mkdir(parents=True)
    for name in vad().files:
        (ours(cache) / name).symlink_to(elsewhere / name)
    assert start(cache, offline=True) == ours(cache)
    MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None)
    assert hub.fetched() == ["README.md"]
    assert (ours(cache) / "model.pt").is_symlink()


@pytest.mark.parametrize("name", ["model.pt", manifest.NAME])
def test_a_fifo_is_no_file(cache: Path, name: str) -> None:
    folder = start(cache)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None)
    MODEL_FILES.pull("fsmn-vad", cache, lambda advance: None)
    assert MODEL_FILES.verify("fsmn-vad", cache, lambda advance: None) == Verdict(folder, (), True)
