"""One file over real HTTP: whole and checked, or not there, whatever the site does."""

from __future__ import annotations

import hashlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.engines.sherpa.fetch import Fetcher, FetchFailed, Part
from tests.support.model_mirror import ModelMirror, mirroring

DATA = random.Random(6).randbytes(300_000)
SUM = hashlib.sha256(DATA).hexdigest()
OTHER = random.Random(7).randbytes(300_000)
PATH = "/owner/model/resolve/main/encoder.onnx"


@pytest.fixture
def mirror() -> Iterator[ModelMirror]:
    with mirroring({PATH: DATA}) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "encoder.onnx"


Told = list[tuple[str, int, int]]


def fetch(
    mirror: ModelMirror,
    target: Path,
    *,
    sha256: str = "",
    path: str = PATH,
    most_bytes: int = 1_000_000,
    stall_s: float = 20.0,
    told: Told | None = None,
) -> None:
    def tell(doing: str, done: int, total: int) -> None:
        if told is not None:
            told.append((doing, done, total))

    with Fetcher(stall_s=stall_s) as fetcher:
        fetcher.file(mirror.url + path, target, most_bytes=most_bytes, sha256=sha256, tell=tell)


def refused(mirror: ModelMirror, target: Path, sha256: str = "", path: str = PATH) -> str:
    with pytest.raises(FetchFailed) as raised:
        fetch(mirror, target, sha256=sha256, path=path, stall_s=2.0)
    assert not target.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def names(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


@pytest.mark.parametrize("sha256", ["", SUM])
def test_a_file_comes_and_leaves_nothing_else(
    mirror: ModelMirror, target: Path, sha256: str
) -> None:
    told: Told = []
    fetch(mirror, target, sha256=sha256, told=told)
    assert target.read_bytes() == DATA
    assert names(target) == {"encoder.onnx"}
    assert told[0] == ("downloading", 0, 0)
    assert ("downloading", len(DATA), len(DATA)) in told
    assert (told[-1] == ("checking", len(DATA), len(DATA))) == bool(sha256)


def test_a_file_of_unknown_length(mirror: ModelMirror, target: Path) -> None:
    mirror.chunked = True
    fetch(mirror, target)
    assert target.read_bytes() == DATA


def test_what_was_there_is_replaced(mirror: ModelMirror, target: Path) -> None:
    target.write_bytes(b"old")
    fetch(mirror, target)
    assert target.read_bytes() == DATA


# Broken off


def test_a_connection_that_breaks_is_made_anew(mirror: ModelMirror, target: Path) -> None:
    mirror.cut_at[PATH] = 100_000
    fetch(mirror, target)
    assert target.read_bytes() == DATA
    assert mirror.asked_for(PATH) == [0, 100_000]


@pytest.mark.parametrize("sha256", ["", SUM])
def test_the_next_run_goes_on(mirror: ModelMirror, target: Path, sha256: str) -> None:
    mirror.cut_at[PATH], mirror.goes_down = 100_000, True
    refused(mirror, target, sha256)
    assert Part(target).size == 100_000
    mirror.down = False
    fetch(mirror, target, sha256=sha256)
    assert target.read_bytes() == DATA
    assert mirror.asked_for(PATH) == [0, 100_000, 100_000]
    assert mirror.asked[-1].if_range is not None
    assert names(target) == {"encoder.onnx"}


def test_a_site_that_stalls_is_given_up_and_what_came_is_kept(
    mirror: ModelMirror, target: Path
) -> None:
    # As bytes had come, it is tried once more, which brings none.
    mirror.held[PATH], mirror.always_held = 50_000, True
    with pytest.raises(FetchFailed, match=r"nothing has come from 127\.0\.0\.1 for 0\.5 s"):
        fetch(mirror, target, stall_s=0.5)
    assert Part(target).size == 50_000
    assert mirror.asked_for(PATH) == [0, 50_000]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_checksum_and_etag_it_begins_anew(
    mirror: ModelMirror, target: Path, etag: str
) -> None:
    mirror.etags[PATH] = etag
    mirror.cut_at[PATH], mirror.goes_down = 100_000, True
    refused(mirror, target)
    mirror.down = False
    fetch(mirror, target)
    assert target.read_bytes() == DATA
    assert mirror.asked_for(PATH)[-1] == 0


@pytest.mark.parametrize("sha256", ["", hashlib.sha256(OTHER).hexdigest()])
def test_a_file_that_has_changed_meanwhile_comes_whole(
    mirror: ModelMirror, target: Path, sha256: str
) -> None:
    mirror.cut_at[PATH], mirror.goes_down = 100_000, True
    refused(mirror, target, sha256)
    mirror.down, mirror.files[PATH] = False, OTHER
    fetch(mirror, target, sha256=sha256)
    assert target.read_bytes() == OTHER


def test_a_site_without_ranges_sends_all_again(mirror: ModelMirror, target: Path) -> None:
    mirror.no_ranges, mirror.cut_at[PATH], mirror.goes_down = True, 100_000, True
    refused(mirror, target, SUM)
    mirror.down = False
    fetch(mirror, target, sha256=SUM)
    assert target.read_bytes() == DATA


def test_another_site_goes_on_where_the_checksum_tells(mirror: ModelMirror, target: Path) -> None:
    mirror.cut_at[PATH], mirror.goes_down = 100_000, True
    refused(mirror, target, SUM)
    with mirroring({PATH: DATA}) as other:
        fetch(other, target, sha256=SUM)
        assert other.asked_for(PATH) == [100_000]
        assert other.asked[0].if_range is None
    assert target.read_bytes() == DATA


def test_another_site_begins_anew_where_it_does_not(mirror: ModelMirror, target: Path) -> None:
    mirror.cut_at[PATH], mirror.goes_down = 100_000, True
    refused(mirror, target)
    with mirroring({PATH: OTHER}) as other:
        fetch(other, target)
        assert other.asked_for(PATH) == [0]
    assert target.read_bytes() == OTHER


def test_a_damaged_beginning_is_found_and_comes_again(mirror: ModelMirror, target: Path) -> None:
    Part(target).path.write_bytes(b"x" * 100_000)
    fetch(mirror, target, sha256=SUM)
    assert target.read_bytes() == DATA
    assert mirror.asked_for(PATH) == [100_000, 0]


def test_all_had_come_but_its_name(mirror: ModelMirror, target: Path) -> None:
    Part(target).path.write_bytes(DATA)
    fetch(mirror, target, sha256=SUM)
    assert target.read_bytes() == DATA
    assert mirror.asked_for(PATH) == [len(DATA)]


def test_more_had_come_than_there_is(mirror: ModelMirror, target: Path) -> None:
    Part(target).path.write_bytes(DATA + b"x")
    fetch(mirror, target, sha256=SUM)
    assert target.read_bytes() == DATA


def test_nonsense_beside_it_counts_as_nothing(mirror: ModelMirror, target: Path) -> None:
    path, about = Part.paths(target)
    path.write_bytes(b"x" * 10)
    os.mkfifo(about)
    fetch(mirror, target)
    assert target.read_bytes() == DATA


# What is refused


def test_another_checksum(mirror: ModelMirror, target: Path) -> None:
    mirror.files[PATH] = OTHER
    assert "has another checksum" in refused(mirror, target, SUM)
    assert names(target) == set()  # nothing to go on with


@pytest.mark.parametrize("chunked", [True, False])
def test_a_file_that_is_too_large(mirror: ModelMirror, target: Path, chunked: bool) -> None:
    mirror.chunked = chunked
    with pytest.raises(FetchFailed, match="more than"):
        fetch(mirror, target, most_bytes=len(DATA) - 1)
    assert not target.exists()
    assert Part(target).size < (len(DATA) if chunked else 1)


@pytest.mark.parametrize("status", [204, 206, 304, 403, 404, 429, 500])
def test_answers_without_a_file(mirror: ModelMirror, target: Path, status: int) -> None:
    mirror.statuses[PATH] = status
    assert f"127.0.0.1 answers {status}" in refused(mirror, target)


def test_a_page_in_place_of_the_file(mirror: ModelMirror, target: Path) -> None:
    mirror.types[PATH] = "text/html; charset=utf-8"
    assert "a web page" in refused(mirror, target)


def test_nobody_there(target: Path) -> None:
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound, but it does not listen
        nobody = ModelMirror({}, url=f"http://127.0.0.1:{refusing.getsockname()[1]}")
        assert "no connection to 127.0.0.1" in refused(nobody, target)


# Redirects


def test_redirects_are_followed_with_their_range(mirror: ModelMirror, target: Path) -> None:
    with mirroring({"/blob": DATA}) as store:
        mirror.redirects[PATH] = f"{store.url}/blob"
        store.cut_at["/blob"] = 100_000
        fetch(mirror, target)
        assert store.asked_for("/blob") == [0, 100_000]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/x", "file:///etc/passwd", "data:,x", "http://["])
def test_redirects_to_elsewhere_are_refused(mirror: ModelMirror, target: Path, to: str) -> None:
    mirror.redirects[PATH] = to
    assert refused(mirror, target)


def test_redirects_in_a_circle(mirror: ModelMirror, target: Path) -> None:
    mirror.redirects[PATH] = PATH
    assert "redirects too often" in refused(mirror, target)


def test_a_redirect_from_https_to_http_is_refused(mirror: ModelMirror, target: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": mirror.url + PATH})

    with (
        Fetcher(transport=httpx.MockTransport(answer)) as fetcher,
        pytest.raises(FetchFailed, match=r"safe\.example redirects to http, which is refused"),
    ):
        fetcher.file("https://safe.example/x", target, most_bytes=10**6, tell=lambda *args: None)
    assert mirror.asked == []


# Small texts


def test_texts(mirror: ModelMirror) -> None:
    mirror.files["/checksum.txt"] = b"a 1\n"
    with Fetcher() as fetcher:
        assert fetcher.text(f"{mirror.url}/checksum.txt", 4) == "a 1\n"
        with pytest.raises(FetchFailed, match="more than 3 bytes"):
            fetcher.text(f"{mirror.url}/checksum.txt", 3)
        with pytest.raises(FetchFailed, match="answers 404"):
            fetcher.text(f"{mirror.url}/none", 3)
