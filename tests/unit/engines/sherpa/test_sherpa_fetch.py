"""One file over real HTTP: whole and checked, or not there, whatever the site does."""

from __future__ import annotations

import hashlib
import os
import random
import socket
from collections.abc import Callable, Iterator
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


# Sites that answer nonsense

Answer = Callable[[httpx.Request], httpx.Response]


def answered(answer: Answer, target: Path, *, sha256: str = "") -> None:
    with Fetcher(transport=httpx.MockTransport(answer)) as fetcher:
        fetcher.file(
            "https://site.example/x",
            target,
            most_bytes=10**6,
            sha256=sha256,
            tell=lambda *args: None,
        )


def sent(status: int, span: str, body: bytes = b"") -> httpx.Response:
    return httpx.Response(status, headers={"Content-Range": span}, content=iter((body,)))


def refused_answer(answer: Answer, target: Path) -> str:
    with pytest.raises(FetchFailed) as raised:
        answered(answer, target, sha256=SUM)
    assert not target.exists()
    assert str(raised.value).isprintable() and len(str(raised.value)) < 500
    return str(raised.value)


@pytest.mark.parametrize(
    "to",
    [
        "https://a..b/",
        "https://xn--0/",
        f"https://{'a' * 300}/",
        "https://127.0.0.1:99999/",
        "https://[::1",
        "https://h/\x1b[31m",
    ],
)
def test_redirects_to_no_address(target: Path, to: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "site.example":
            return httpx.Response(302, headers={"Location": to})
        return httpx.Response(404)

    assert refused_answer(answer, target)


@pytest.mark.parametrize("host", ["a..b", "xn--0", "a" * 300])
def test_a_mirror_that_is_no_address(target: Path, host: str) -> None:
    with Fetcher() as fetcher, pytest.raises(FetchFailed) as raised:
        fetcher.file(f"http://{host}/x", target, most_bytes=9, tell=lambda *args: None)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("status", [206, 416])
@pytest.mark.parametrize("start", ["bytes ", "bytes */", "bytes 100000-9/"])
def test_numbers_of_thousands_of_digits(target: Path, status: int, start: str) -> None:
    Part(target).path.write_bytes(DATA[:100_000])

    def answer(request: httpx.Request) -> httpx.Response:
        if "Range" not in request.headers:
            return httpx.Response(503)
        return sent(status, f"{start}{'1' * 5000}-9/9")

    refused_answer(answer, target)


def test_a_path_of_a_redirect_cannot_forge_lines(target: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/x":
            return httpx.Response(302, headers={"Location": "/%1b[31mEVIL%0aINFO forged"})
        return httpx.Response(404)

    text = refused_answer(answer, target)
    assert text.startswith("site.example answers 404 Not Found for /%1b[31mEVIL%0aINFO")


def test_a_site_that_sends_less_of_a_range_than_asked(target: Path) -> None:
    Part(target).path.write_bytes(DATA[:100_000])
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Range"])
        begin = int(asked[-1].removeprefix("bytes=").rstrip("-"))
        end = min(begin + 90_000, len(DATA))
        span = f"bytes {begin}-{end - 1}/{len(DATA)}"
        return sent(206, span, DATA[begin:end])

    answered(answer, target, sha256=SUM)
    assert target.read_bytes() == DATA
    assert asked == ["bytes=100000-", "bytes=190000-", "bytes=280000-"]


def test_a_site_that_sends_nothing_of_a_range(target: Path) -> None:
    Part(target).path.write_bytes(DATA[:100_000])

    def answer(request: httpx.Request) -> httpx.Response:
        span = f"bytes 100000-100000/{len(DATA)}"
        return sent(206, span)

    assert "does not send the rest" in refused_answer(answer, target)


# The environment


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("HTTP_PROXY", "foo://127.0.0.1:1"),
        ("HTTP_PROXY", "http://127.0.0.1:abc"),
        ("NO_PROXY", "[::1],*.x, http://["),
        ("SSL_CERT_FILE", "/no/such.pem"),
    ],
)
def test_an_environment_that_cannot_be_used(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(FetchFailed, match=r"HTTP_PROXY, .* cannot be used") as raised:
        Fetcher()
    assert str(raised.value).isprintable()


# Small texts


def test_texts(mirror: ModelMirror) -> None:
    mirror.files["/checksum.txt"] = b"a 1\n"
    with Fetcher() as fetcher:
        assert fetcher.text(f"{mirror.url}/checksum.txt", 4) == "a 1\n"
        with pytest.raises(FetchFailed, match="more than 3 bytes"):
            fetcher.text(f"{mirror.url}/checksum.txt", 3)
        with pytest.raises(FetchFailed, match="answers 404"):
            fetcher.text(f"{mirror.url}/none", 3)
