"""Fetching what a client's URL names, from a server that does as each test tells it."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.core.errors import (
    AudioTooLong,
    FetchFailed,
    FileForbidden,
    FileHostFailed,
    FileNotFound,
    InvalidRequest,
    UnfitUrl,
)
from app.services import public_hosts
from app.services.fetch import MAX_REDIRECTS, FetchLimits, fetch

CERTIFICATE = Path(__file__).parents[2] / "support" / "self_signed.pem"
"""For speech.example; its key is in the file too."""

AUDIO = bytes(range(256)) * 1_000
LIMITS = FetchLimits(max_bytes=1_000_000, timeout_s=30.0, allow_private=True)

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Site:
    """A server on 127.0.0.1 that answers with ``answer(head of the request, writer)``."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.names: list[str] = []
        self.port = 0
        self.answer: Answer = whole(AUDIO)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            await self.answer(head, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def url(self, path: str = "/a.wav", host: str = "127.0.0.1", scheme: str = "http") -> str:
        """Where it is."""
        return f"{scheme}://{host}:{self.port}{path}"


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


def whole(body: bytes) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", f"Content-Length: {len(body)}") + body)

    return answer


def fixed(data: bytes) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        yield site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A running server."""
    async with listening() as running:
        yield running


@pytest.fixture
async def tls_site() -> AsyncIterator[Site]:
    """One with TLS, for the name speech.example; it notes which names are asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    async with listening(context) as running:
        context.sni_callback = lambda _, name, __: running.names.append(str(name))
        yield running


@pytest.fixture
def trusting() -> ssl.SSLContext:
    """Whoever has that certificate."""
    return ssl.create_default_context(cafile=CERTIFICATE)


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name leads to 127.0.0.1; returns those that were asked for."""
    names: list[str] = []

    def look_up(host: str, port: int) -> list[str]:
        names.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(public_hosts, "look_up", look_up)
    return names


def files(folder: Path) -> int:
    return len(list(folder.iterdir()))


async def refused(
    url: str, folder: Path, limits: FetchLimits = LIMITS, tls: ssl.SSLContext | None = None
) -> str:
    """The text of the error; nothing is left in ``folder``."""
    with pytest.raises((InvalidRequest, AudioTooLong)) as caught:
        async with fetch(url, limits=limits, folder=folder, tls=tls):
            pytest.fail("it was fetched")
    assert files(folder) == 0
    text = caught.value.text
    assert text.startswith("The audio URL cannot be fetched: ")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


async def test_the_file_is_complete_private_and_gone_afterwards(site: Site, tmp_path: Path) -> None:
    async with fetch(site.url(), limits=LIMITS, folder=tmp_path) as path:
        assert path.parent == tmp_path
        assert path.read_bytes() == AUDIO
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with fetch(site.url(), limits=LIMITS, folder=tmp_path) as other:
            assert other != path
    assert files(tmp_path) == 0
    request = site.heads[0].lower()
    assert b"accept-encoding: identity\r\n" in request
    assert f"host: 127.0.0.1:{site.port}\r\n".encode() in request


async def test_the_file_is_gone_when_the_block_raises(site: Site, tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        async with fetch(site.url(), limits=LIMITS, folder=tmp_path) as path:
            assert path.exists()
            raise LookupError
    assert files(tmp_path) == 0


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://a.example/x", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("/etc/passwd", "http:// or https://"),
        ("", "http:// or https://"),
        ("http:///x", "name a host"),
        ("http://user@a.example/x", "user name"),
        ("https://user:pass@a.example/x", "user name"),
        ("http://a.example:70000/x", "port"),
        ("http://a.example:0/x", "port"),
        ("http://a.example:x/", "not a valid URL"),
        ("http://a.example/\x00", "not a valid URL"),
        ("http://[::1/", "not a valid URL"),
        ("http://a..b/", "not known"),
    ],
)
async def test_urls_that_are_never_asked_for(url: str, reason: str, tmp_path: Path) -> None:
    assert reason in await refused(url, tmp_path)


async def test_private_hosts_are_not_even_connected_to(site: Site, tmp_path: Path) -> None:
    limits = FetchLimits(max_bytes=1_000_000, timeout_s=30.0)
    for host in ("127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]"):
        assert "not on the public internet" in await refused(site.url(host=host), tmp_path, limits)
    assert site.heads == []


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([["127.0.0.1"], ["192.0.2.1"]])
    monkeypatch.setattr(public_hosts, "look_up", lambda host, port: next(answers))
    # No name server knows the name: it works only if nobody asks again.
    url = site.url(host="rebinding.invalid")
    async with fetch(url, limits=LIMITS, folder=tmp_path) as path:
        assert path.read_bytes() == AUDIO
    assert next(answers) == ["192.0.2.1"]
    assert f"host: rebinding.invalid:{site.port}\r\n".encode() in site.heads[0].lower()


async def test_proxies_of_the_environment_are_not_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_up: list[str]
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with fetch(site.url(host="a.example"), limits=LIMITS, folder=tmp_path) as path:
        assert path.read_bytes() == AUDIO


async def test_the_next_address_is_tried_if_one_refuses(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ["::1", "127.0.0.1"]  # the site listens on the second only
    monkeypatch.setattr(public_hosts, "look_up", lambda host, port: found)
    async with fetch(site.url(host="two.example"), limits=LIMITS, folder=tmp_path) as path:
        assert path.read_bytes() == AUDIO


async def test_nobody_listens(tmp_path: Path, unused_port: int) -> None:
    text = await refused(f"http://127.0.0.1:{unused_port}/", tmp_path)
    assert "does not answer" in text and "127" not in text


@pytest.fixture
async def unused_port() -> int:
    """Nobody listens on it any more."""
    async with listening() as gone:
        return gone.port


# --- TLS -------------------------------------------------------------------------------------


async def test_tls_asks_for_the_name_and_accepts_its_certificate(
    tls_site: Site, trusting: ssl.SSLContext, tmp_path: Path, looked_up: list[str]
) -> None:
    url = tls_site.url(host="speech.example", scheme="https")
    async with fetch(url, limits=LIMITS, folder=tmp_path, tls=trusting) as path:
        assert path.read_bytes() == AUDIO
    assert tls_site.names == ["speech.example"]
    assert f"host: speech.example:{tls_site.port}\r\n".encode() in tls_site.heads[0].lower()


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1", "sub.speech.example"])
async def test_a_certificate_for_another_name_is_refused(
    host: str, tls_site: Site, trusting: ssl.SSLContext, tmp_path: Path, looked_up: list[str]
) -> None:
    url = tls_site.url(host=host, scheme="https")
    assert "certificate" in await refused(url, tmp_path, tls=trusting)
    assert tls_site.heads == []


async def test_a_certificate_of_an_unknown_authority_is_refused(
    tls_site: Site, tmp_path: Path, looked_up: list[str]
) -> None:
    url = tls_site.url(host="speech.example", scheme="https")
    assert "certificate" in await refused(url, tmp_path)
    assert tls_site.heads == []


# --- redirects -------------------------------------------------------------------------------


def redirecting(to: str, status: str = "302 Found") -> bytes:
    return head(status, f"Location: {to}", "Content-Length: 0")


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
async def test_redirects_are_followed_and_looked_up_afresh(
    status: str, site: Site, tmp_path: Path, looked_up: list[str]
) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"GET /old "):
            writer.write(redirecting(site.url("/new", "second.example"), status))
        elif request.startswith(b"GET /new "):
            writer.write(redirecting("../newest?x=1", status))
        else:
            await whole(AUDIO)(request, writer)

    site.answer = answer
    url = site.url("/old", "first.example")
    async with fetch(url, limits=LIMITS, folder=tmp_path) as path:
        assert path.read_bytes() == AUDIO
    assert looked_up == ["first.example", "second.example", "second.example"]
    assert site.heads[2].startswith(b"GET /newest?x=1 ")


async def test_a_redirect_to_a_private_host_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = public_hosts.is_public
    monkeypatch.setattr(public_hosts, "is_public", lambda each: each == "127.0.0.1" or really(each))
    limits = FetchLimits(max_bytes=1_000_000, timeout_s=30.0)
    async with fetch(site.url(), limits=limits, folder=tmp_path) as path:
        assert path.read_bytes() == AUDIO  # so it is the redirect that makes the difference
    for to in ("http://169.254.169.254/latest/meta-data", "//10.0.0.1/x", "http://[::1]/"):
        site.answer = fixed(redirecting(to))
        text = await refused(site.url(), tmp_path, limits)
        assert "not on the public internet" in text
        assert "169.254" not in text


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("file:///etc/passwd", "http:// or https://"),
        ("http://user:pass@127.0.0.1/", "user name"),
        ("http://[::1/", "does not answer"),
        ("http://a.example:x/", "does not answer"),
    ],
)
async def test_redirects_to_what_is_never_asked_for(
    to: str, reason: str, site: Site, tmp_path: Path
) -> None:
    site.answer = fixed(redirecting(to))
    assert reason in await refused(site.url(), tmp_path)


async def test_redirects_end(site: Site, tmp_path: Path) -> None:
    site.answer = fixed(redirecting("/again"))
    assert f"more than {MAX_REDIRECTS} times" in await refused(site.url(), tmp_path)
    assert len(site.heads) == 1 + MAX_REDIRECTS


async def test_no_cookie_goes_anywhere(site: Site, tmp_path: Path) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"GET /old "):
            writer.write(
                head("302 Found", "Location: /new", "Set-Cookie: a=b", "Content-Length: 0")
            )
        else:
            await whole(AUDIO)(request, writer)

    site.answer = answer
    async with fetch(site.url("/old"), limits=LIMITS, folder=tmp_path):
        pass
    assert b"cookie" not in site.heads[1].lower()


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [True, False])
async def test_larger_than_the_limit(declared: bool, site: Site, tmp_path: Path) -> None:
    length = [f"Content-Length: {len(AUDIO)}"] if declared else []
    site.answer = fixed(head("200 OK", *length) + AUDIO)
    limits = FetchLimits(max_bytes=len(AUDIO) - 1, timeout_s=30.0, allow_private=True)
    assert f"larger than {len(AUDIO) - 1} bytes" in await refused(site.url(), tmp_path, limits)
    exactly = FetchLimits(max_bytes=len(AUDIO), timeout_s=30.0, allow_private=True)
    async with fetch(site.url(), limits=exactly, folder=tmp_path) as path:
        assert path.stat().st_size == len(AUDIO)


async def test_an_endless_body_ends_at_the_limit(site: Site, tmp_path: Path) -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK"))
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    site.answer = answer
    assert "larger than" in await refused(site.url(), tmp_path)


@pytest.mark.parametrize("told", [b"", head("200 OK"), head("200 OK") + b"RIFF"])
async def test_a_host_that_falls_silent(told: bytes, site: Site, tmp_path: Path) -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(told)
        await asyncio.Event().wait()

    site.answer = answer
    limits = FetchLimits(max_bytes=1_000, timeout_s=0.2, allow_private=True)
    assert "longer than 0.2 s" in await refused(site.url(), tmp_path, limits)


async def test_a_name_server_that_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def look_up(host: str, port: int) -> list[str]:
        over.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr(public_hosts, "look_up", look_up)
    limits = FetchLimits(max_bytes=1_000, timeout_s=0.2, allow_private=True)
    try:
        assert "longer than 0.2 s" in await refused("http://a.example/", tmp_path, limits)
    finally:
        over.set()


async def test_the_time_in_the_block_is_not_limited(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    really = loop.time
    async with fetch(site.url(), limits=LIMITS, folder=tmp_path) as path:
        monkeypatch.setattr(loop, "time", lambda: really() + 10 * LIMITS.timeout_s)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert path.exists()


async def test_a_cancelled_fetch_leaves_no_file(site: Site, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK") + b"RIFF")
        await writer.drain()
        asked.set()
        await asyncio.Event().wait()

    async def run() -> None:
        async with fetch(site.url(), limits=LIMITS, folder=tmp_path):
            pass

    site.answer = answer
    task = asyncio.create_task(run())
    await asked.wait()
    assert files(tmp_path) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(tmp_path) == 0


# --- answers that are none -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("404 Not Found", FileNotFound),
        ("410 Gone", FileNotFound),
        ("401 Unauthorized", FileForbidden),
        ("403 Forbidden", FileForbidden),
        ("500 Oops", FileHostFailed),
        ("503 Later", FileHostFailed),
        ("206 Partial Content", FetchFailed),
        ("418 Teapot", FetchFailed),
    ],
)
async def test_what_the_host_says_is_told_by_the_class(
    status: str, error: type[InvalidRequest], site: Site, tmp_path: Path
) -> None:
    site.answer = fixed(head(status, "Content-Length: 0"))
    with pytest.raises(InvalidRequest) as caught:
        async with fetch(site.url(), limits=LIMITS, folder=tmp_path):
            pytest.fail("it was fetched")
    assert type(caught.value) is error


@pytest.mark.parametrize("allow_private", [False, True])
async def test_a_url_that_is_never_asked_for_has_a_class_of_its_own(
    allow_private: bool, site: Site, tmp_path: Path
) -> None:
    limits = FetchLimits(max_bytes=1, timeout_s=10.0, allow_private=allow_private)
    with pytest.raises(UnfitUrl):
        async with fetch(
            "ftp://host/a" if allow_private else site.url(), limits=limits, folder=tmp_path
        ):
            pytest.fail("it was fetched")


@pytest.mark.parametrize(
    "answer",
    [
        head("404 Not Found", "Content-Length: 6") + b"secret",
        head("401 Unauthorized", "Content-Length: 6") + b"secret",
        head("500 Oops", "X-Secret: secret", "Content-Length: 0"),
        head("206 Partial Content", "Content-Length: 6") + b"secret",
        head("204 No Content"),
        head("200 OK", "Content-Encoding: gzip", "Content-Length: 6") + b"secret",
        head("200 OK", "Content-Length: 7") + b"secret",
        b"secret\r\n\r\n",
        b"",
        head("200 OK", "X: " + "secret" * 50_000),
    ],
)
async def test_nothing_of_the_answer_is_in_the_error(
    answer: bytes, site: Site, tmp_path: Path
) -> None:
    site.answer = fixed(answer)
    text = await refused(site.url(), tmp_path)
    assert "secret" not in text
    assert str(site.port) not in text and "127" not in text
    assert not any(code in text for code in ("404", "401", "500", "206", "204", "200"))


async def test_chunked_bodies(site: Site, tmp_path: Path) -> None:
    site.answer = fixed(
        head("200 OK", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    async with fetch(site.url(), limits=LIMITS, folder=tmp_path) as path:
        assert path.read_bytes() == b"abcde"


async def test_a_folder_that_is_not_there_is_the_servers_fault(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with fetch(site.url(), limits=LIMITS, folder=tmp_path / "none"):
            pass
    assert site.heads == []


async def test_files_are_not_written_on_the_event_loop(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    really = os.open

    def opening(path: str, flags: int, mode: int = 0o777) -> int:
        opened.append(threading.get_ident())
        return really(path, flags, mode)

    monkeypatch.setattr(os, "open", opening)
    async with fetch(site.url(), limits=LIMITS, folder=tmp_path):
        pass
    assert opened and threading.get_ident() not in opened
