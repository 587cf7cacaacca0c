"""Downloads one file by HTTP, and goes on where an earlier attempt was broken off.

What has come lies in ``NAME.incomplete``, and where it is from in ``NAME.incomplete.json``. A later
attempt asks for the rest of it (RFC 9110, 14: Range, If-Range) where the checksum will tell whether
the parts belong together, or the same address still has the same ETag; else it begins anew. The
file gets its name when it is whole, checked and on the disk.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from app import __version__
from app.engines import manifest
from app.engines.reading import read_bytes, size_of

STALL_S: Final = 30.0
"""A site that sends nothing for so long is given up. Nothing is told meanwhile: it must be well
below the time that a start has for a step."""
_CONNECT_S: Final = 10.0
_MOST_REDIRECTS: Final = 6
_REASON_CHARS: Final = 200
_ORIGIN_BYTES: Final = 10_000

Tell = Callable[[str, int, int], None]
"""Told what is being done, and how many bytes of how many are; 0 where that is not known."""


class FetchFailed(Exception):
    """The file cannot be had from this site now. The text says why, in one line."""


class _BeginAnew(Exception):
    """What has come is not a part of what the site has."""


class Origin(msgspec.Struct, frozen=True):
    """Where the bytes of an incomplete file are from: an address, and its ETag (may be empty)."""

    url: str
    etag: str


class Part:
    """What has come of ``target`` so far."""

    def __init__(self, target: Path) -> None:
        self.path, self._about = self.paths(target)

    @staticmethod
    def paths(target: Path) -> tuple[Path, Path]:
        """Where the bytes are, and where what is known of them."""
        part = target.with_name(f"{target.name}.incomplete")
        return part, part.with_name(f"{part.name}.json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return size_of(self.path) or 0

    def origin(self) -> Origin:
        """Where they are from."""
        try:
            found = msgspec.json.decode(read_bytes(self._about, _ORIGIN_BYTES), type=Origin)
        except (OSError, ValueError):
            return Origin("", "")
        return Origin(found.url, _strong(found.etag))

    def note(self, origin: Origin) -> None:
        """Keep where the next bytes are from, which come in the place of all or behind it."""
        self._about.write_bytes(msgspec.json.encode(origin))

    def discard(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """It is whole: give it its name, for good."""
        os.replace(self.path, target)
        self._about.unlink(missing_ok=True)
        sync(target.parent)


class Fetcher:
    """A client for some downloads, one after the other. ``transport``: in place of the network.

    Raises:
        FetchFailed: the environment's proxy or certificates cannot be used.
    """

    def __init__(
        self, *, stall_s: float = STALL_S, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._stall_s = stall_s
        try:
            self._client = httpx.Client(
                transport=transport,
                timeout=httpx.Timeout(stall_s, connect=min(_CONNECT_S, stall_s)),
                headers={"Accept-Encoding": "identity", "User-Agent": f"FunSpeech/{__version__}"},
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            # What it takes from there it checks now, and each thing with another exception.
            raise FetchFailed(
                "the environment's HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY or SSL_CERT_FILE "
                f"cannot be used ({_line(error)}); proxies are http or https"
            ) from None

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def text(self, url: str, most_bytes: int) -> str:
        """A small text, from the beginning.

        Raises:
            FetchFailed: it cannot be had, or is longer.
        """
        body = b""
        try:
            with self._opened(url, {}) as response:
                _check_status(response, 200)
                for block in response.iter_raw():
                    body += block
                    if len(body) > most_bytes:
                        raise FetchFailed(f"{_host(url)} sends more than {most_bytes:,} bytes")
        except httpx.HTTPError as error:
            raise FetchFailed(self._reason(error, url)) from None
        return body.decode("utf-8", "replace")

    def file(
        self, url: str, target: Path, *, most_bytes: int, sha256: str = "", tell: Tell
    ) -> None:
        """Put the file at ``url`` to ``target``, which is replaced. With ``sha256`` (hexadecimal
        digits) it is checked. A connection that breaks is made anew as long as bytes come.

        Raises:
            FetchFailed: it cannot be had, is larger than ``most_bytes``, or is not what it should
                be. What has come is kept where it may be of use.
            OSError: it cannot be written.
        """
        part = Part(target)
        if not _may_go_on(part.origin(), url, sha256):
            part.discard()
        resumed = part.size > 0
        self._receive_all(url, part, most_bytes, tell)
        total = part.size
        if sha256 and sha256 != manifest.sha256(
            part.path, lambda done: tell("checking", done, total)
        ):
            part.discard()
            if not resumed:
                raise FetchFailed(f"{target.name} from {_host(url)} has another checksum")
            # The beginning was damaged, or is another site's: what is there now may be good.
            self.file(url, target, most_bytes=most_bytes, sha256=sha256, tell=tell)
            return
        part.become(target)

    def _receive_all(self, url: str, part: Part, most_bytes: int, tell: Tell) -> None:
        most = part.size
        while True:
            reason = f"{_host(url)} does not send the rest"
            try:
                if self._receive(url, part, most_bytes, tell):
                    return
            except _BeginAnew:
                part.discard()
                continue
            except httpx.HTTPError as error:
                reason = self._reason(error, url)
            if part.size <= most:
                raise FetchFailed(reason)
            most = part.size

    def _receive(self, url: str, part: Part, most_bytes: int, tell: Tell) -> bool:
        """Whether the file is whole: a site may send less of a range than it was asked for (RFC
        9110, 15.3.7)."""
        begin, origin = part.size, part.origin()
        tell("downloading", begin, 0)
        headers = {}
        if begin:
            headers["Range"] = f"bytes={begin}-"
            if origin.url == url and origin.etag:
                headers["If-Range"] = origin.etag
        with self._opened(url, headers) as response:
            if begin and response.status_code == 416:
                if _length(response, r"bytes \*/(\d+)") == begin:
                    return True  # it is all there
                raise _BeginAnew
            begin = _begin(response, begin, origin if origin.url == url else None)
            total = begin + int(response.headers.get("Content-Length", 0))
            if total > most_bytes:
                raise FetchFailed(f"{_host(url)} has {total:,} bytes, more than it can be")
            part.note(Origin(url, _etag(response)))
            with part.path.open("r+b" if begin else "wb") as stream:
                stream.seek(begin)
                for block in response.iter_raw():
                    if stream.tell() + len(block) > most_bytes:
                        raise FetchFailed(f"{_host(url)} sends more than {most_bytes:,} bytes")
                    stream.write(block)
                    tell("downloading", stream.tell(), total)
                stream.flush()
                os.fsync(stream.fileno())
                whole = _length(response, r"bytes \d+-\d+/(\d+)") if begin else None
                return whole is None or stream.tell() >= whole

    @contextlib.contextmanager
    def _opened(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer, after redirects: never from https to http, which anybody on the way could
        read and change, nor to anything else."""
        try:
            request = self._client.build_request("GET", url, headers=headers)
            for _ in range(_MOST_REDIRECTS):
                response = self._client.send(request, stream=True, follow_redirects=False)
                try:
                    if response.next_request is None:
                        yield response
                        return
                finally:
                    response.close()
                target = response.next_request.url
                secure = request.url.scheme == "https"
                if target.scheme not in (("https",) if secure else ("http", "https")):
                    raise FetchFailed(
                        f"{_host(url)} redirects to {target.scheme}, which is refused"
                    )
                request = response.next_request
        except httpx.InvalidURL:
            raise FetchFailed(f"{_host(url)} redirects to no address") from None
        except ValueError as error:  # names that are none, numbers of thousands of digits
            raise FetchFailed(f"{_host(url)} answers nonsense ({_line(error)})") from None
        raise FetchFailed(f"{_host(url)} redirects too often")

    def _reason(self, error: httpx.HTTPError, url: str) -> str:
        host = _host(url)
        if isinstance(error, httpx.ReadTimeout):
            return f"nothing has come from {host} for {self._stall_s:g} s"
        if isinstance(error, httpx.ConnectTimeout):
            return f"no connection to {host} (it does not answer)"
        text = _line(error)
        if isinstance(error, httpx.ConnectError):
            return f"no connection to {host} ({text})"
        return f"the connection to {host} broke off ({text})"


def sync(folder: Path) -> None:
    """Make the names in a folder last. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _may_go_on(origin: Origin, url: str, sha256: str) -> bool:
    return bool(sha256) or (origin.url == url and bool(origin.etag))


def _begin(response: httpx.Response, asked: int, origin: Origin | None) -> int:
    """Where the body begins in the file. ``origin``: that of what is there already, where it is
    this address."""
    if asked and response.status_code == 206:
        _check_body(response)
        changed = origin is not None and origin.etag and _etag(response) not in ("", origin.etag)
        if changed or _length(response, r"bytes (\d+)-") != asked:
            raise _BeginAnew
        return asked
    _check_status(response, 200)
    return 0


def _check_status(response: httpx.Response, wanted: int) -> None:
    if response.status_code != wanted:
        reason = f"{response.status_code} {response.reason_phrase}".strip()
        path = response.url.raw_path.decode("ascii", "replace").partition("?")[0]
        raise FetchFailed(f"{response.url.host} answers {reason} for {path}")
    _check_body(response)


def _check_body(response: httpx.Response) -> None:
    """Against pages of proxies and portals, which come with 200, too."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{response.url.host} sends the file encoded")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise FetchFailed(f"{response.url.host} sends a web page in place of the file")


def _etag(response: httpx.Response) -> str:
    return _strong(str(response.headers.get("ETag", "")))


def _strong(etag: str) -> str:
    """A weak one does not tell whether bytes are the same (RFC 9110, 8.8.3)."""
    return etag if etag.startswith('"') and etag.isascii() and etag.isprintable() else ""


def _length(response: httpx.Response, pattern: str) -> int | None:
    match = re.match(pattern, response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _host(url: str) -> str:
    try:
        return httpx.URL(url).host
    except (httpx.InvalidURL, ValueError):
        return urlsplit(url).hostname or ""


def _line(error: BaseException) -> str:
    """What an exception says, on one line."""
    text = " ".join(str(error).split())[:_REASON_CHARS] or type(error).__name__
    return "".join(char for char in text if char.isprintable())
