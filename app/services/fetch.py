"""Audio that a client names by a URL: fetched into a temporary file, within limits.

The client chooses the URL and sees what comes of it, so everything about it is hostile: where it
leads, also by a redirect or by a name server that answers differently the second time, how much
comes, and how slowly. So names are looked up here, the addresses are checked, and the connection
goes to an address that was checked, while TLS still verifies the name.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import structlog

from app import __version__
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
from app.services.temporary_file import TemporaryFile

log = structlog.get_logger(__name__)

MAX_REDIRECTS: Final = 5

_MAX_ADDRESSES: Final = 4
"""Of one host, that are tried one after the other; a name may have hundreds."""

_CONNECT_S: Final = 5.0
"""For each of them, so that one that never answers leaves time for the next."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one URL may cost. ``timeout_s`` is for everything together: look-ups, redirects and the
    last byte. ``allow_private``: addresses that are not public are fetched from, too."""

    max_bytes: int
    timeout_s: float
    allow_private: bool = False


@asynccontextmanager
async def fetch(
    url: str, *, limits: FetchLimits, folder: Path, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Path]:
    """What an http or https URL gives, as a file of a random name in ``folder`` that only this user
    may read. It is complete when the block begins, and gone after it, however it ends.

    The time that the block takes is not limited. ``tls``: whom to trust; None is the authorities
    that httpx trusts (``SSL_CERT_FILE`` names others). No proxy is used, and no cookie or
    credential is sent.

    Raises:
        UnfitUrl: the URL is not fit, or leads to a host that is not public.
        FetchFailed: it could not be fetched, or not in time. The text of either repeats nothing of
            what was received.
        AudioTooLong: more than ``limits.max_bytes``.
        OSError: the file could not be written.
    """
    file = TemporaryFile(folder, "fetched")
    try:
        try:
            async with asyncio.timeout(limits.timeout_s):
                if tls is None:
                    tls = await asyncio.to_thread(_default_tls)
                await file.open()
                await _download(_checked(url), limits, tls, file)
                await file.close()
        except TimeoutError:
            raise _failure(
                f"it takes longer than {limits.timeout_s:g} s; use a faster host or less audio."
            ) from None
        yield file.path
    finally:
        await file.remove()


def _failure(reason: str, cls: type[InvalidRequest] = FetchFailed) -> InvalidRequest:
    return cls(f"The audio URL cannot be fetched: {reason}")


def _unfit(reason: str) -> InvalidRequest:
    return _failure(reason, UnfitUrl)


def _checked(url: str) -> httpx.URL:
    """The URL, if it is one that we would ever ask for."""
    try:
        parsed = httpx.URL(url)
        host = parsed.host  # decoded only now
    except (httpx.InvalidURL, ValueError):  # a UnicodeError is a ValueError
        raise _unfit("it is not a valid URL.") from None
    if parsed.scheme not in _PORTS or not host:
        raise _unfit("it must begin with http:// or https:// and name a host.")
    if parsed.userinfo:
        raise _unfit("it contains a user name; use a URL that works without one.")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise _unfit("its port must be 1 to 65535.")
    return parsed


async def _download(
    url: httpx.URL, limits: FetchLimits, tls: ssl.SSLContext, file: TemporaryFile
) -> None:
    """Follow redirects, each with its own look-up and check, to the bytes."""
    for _ in range(1 + MAX_REDIRECTS):
        try:
            leads_to = await _visit(url, limits, tls, file)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.info("audio URL not fetched", reason=type(error).__name__)
            raise _unreachable(error) from None
        if leads_to is None:
            return
        url = leads_to
    raise _failure(f"it is redirected more than {MAX_REDIRECTS} times; give where it leads to.")


async def _visit(
    url: httpx.URL, limits: FetchLimits, tls: ssl.SSLContext, file: TemporaryFile
) -> httpx.URL | None:
    """One request: where it is redirected to, or None when its bytes are in the file."""
    host = url.raw_host.decode("ascii")
    port = url.port or _PORTS[url.scheme]
    found = await public_hosts.addresses(host, port, allow_private=limits.allow_private)
    # A client for each request. A shared one would keep connections by address alone, and send
    # what is meant for one name over a connection whose certificate was checked for another.
    # trust_env: a proxy would look up the name again, and connect to what it finds.
    async with httpx.AsyncClient(verify=tls, trust_env=False, timeout=_timeout(limits)) as client:
        response = await _ask(client, url, host, found[:_MAX_ADDRESSES])
        async with aclosing(response):
            if response.has_redirect_location:
                return _checked(str(url.join(response.headers["location"])))
            _check_answer(response, limits)
            await _save(response, limits, file)
            return None


def _timeout(limits: FetchLimits) -> httpx.Timeout:
    return httpx.Timeout(limits.timeout_s, connect=min(_CONNECT_S, limits.timeout_s))


async def _ask(
    client: httpx.AsyncClient, url: httpx.URL, host: str, addresses: list[str]
) -> httpx.Response:
    """The head of the answer from the first of ``addresses`` that can be connected to."""
    headers = {
        "Host": url.netloc.decode("ascii"),
        "User-Agent": f"FunSpeech/{__version__}",
        # A few KB of compressed bytes can be gigabytes.
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    refused: httpx.TransportError = httpx.ConnectError("no address")
    for address in addresses:
        request = client.build_request(
            "GET",
            url.copy_with(host=address),
            headers=headers,
            # TLS asks for this name, and verifies the certificate against it.
            extensions={"sni_hostname": host.rstrip(".")},
        )
        try:
            return await client.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            refused = error
    raise refused


def _check_answer(response: httpx.Response, limits: FetchLimits) -> None:
    if response.status_code != httpx.codes.OK:
        log.info("audio URL not fetched", status=response.status_code)
        raise _failure(
            "its host does not have the file, or not for everyone; check the URL.",
            _refusal(response.status_code),
        )
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _failure("its host sends the file compressed, even if asked not to.")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise _too_long(limits)


def _refusal(http_status: int) -> type[InvalidRequest]:
    if http_status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        return FileNotFound
    if http_status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return FileForbidden
    return FileHostFailed if http_status >= httpx.codes.INTERNAL_SERVER_ERROR else FetchFailed


async def _save(response: httpx.Response, limits: FetchLimits, file: TemporaryFile) -> None:
    size = 0
    async for data in response.aiter_raw():
        size += len(data)
        if size > limits.max_bytes:
            raise _too_long(limits)
        await file.write(data)


def _too_long(limits: FetchLimits) -> AudioTooLong:
    return AudioTooLong(
        f"The audio URL cannot be fetched: the file is larger than {limits.max_bytes} bytes; "
        "give it in parts."
    )


def _unreachable(error: Exception) -> InvalidRequest:
    """What a failed connection means for the client."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return _failure(
                "its host has no TLS certificate that is valid for its name; check the URL."
            )
        cause = cause.__cause__ or cause.__context__
    return _failure("its host does not answer, or stops in the middle; try again later.")


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """Made once: reading the authorities takes tens of ms."""
    return httpx.create_ssl_context()
