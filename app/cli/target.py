"""Which server a command talks to, with which credentials, and how it ends when it cannot."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Coroutine
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer

from app.cli.address import local_url, own_tls
from app.client.errors import (
    AccessRefused,
    CertificateRefused,
    ClientError,
    NlsTaskFailed,
    ServerUnreachable,
)
from app.core.config import Config, ConfigError, load

ACCESS_DENIED: Final = 40_000_001
"""The NLS status of a missing or wrong token (nls-protocol.md 8.1)."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and who we are to it.

    ``tls``: how to know a server of this machine by its certificate; None is as the system does.
    """

    url: str
    token: str | None
    appkey: str
    tls: SSLContext | None = None


def fail(text: str) -> NoReturn:
    """End the command with exit code 1 and one line that says why."""
    complain(text)
    raise typer.Exit(1)


def complain(text: str) -> None:
    """Say on standard error, in one line, what went wrong."""
    typer.echo(f"funspeech: {' '.join(text.split())}", err=True)


def resolve(url: str | None, token: str | None) -> Target:
    """Fill in what the command line leaves out, from the settings.

    The settings' token and appkey belong to the server of this machine: one elsewhere gets only
    what was given for it.
    """
    if url is not None and not is_local(url):
        return Target(url, token, "default")
    try:
        config = load()
        tls = own_tls(config)
    except ConfigError as error:
        fail(str(error))
    if token is None and config.apptoken is not None:
        token = config.apptoken.get_secret_value()
    appkey = config.appkey.get_secret_value() if config.appkey is not None else "default"
    return Target(url or served_at(config), token, appkey, tls)


def served_at(config: Config) -> str:
    """The address at which this machine reaches the server of these settings."""
    return local_url(config.host, config.port, tls=config.ssl_certfile is not None)


def is_local(url: str) -> bool:
    """Whether the address names this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's coroutine; end the command if the server cannot serve it."""
    try:
        return asyncio.run(work)
    except ClientError as error:
        fail(advice(error))


def advice(error: ClientError) -> str:
    """The error's text with what to do about it."""
    if isinstance(error, CertificateRefused):
        return (
            f"{error}; for a server of this machine set SSL_CERTFILE to its certificate, as the "
            "server has it; for another use the name that its certificate is for, and let this "
            "machine trust the authority that signed it"
        )
    if isinstance(error, ServerUnreachable):
        return f"{error}; start the server with 'funspeech serve' or give its address with --url"
    denied = isinstance(error, NlsTaskFailed) and error.code == ACCESS_DENIED
    if denied or isinstance(error, AccessRefused):
        return f"{error}; give the server's token with --token, or as APPTOKEN in .env"
    return str(error)
