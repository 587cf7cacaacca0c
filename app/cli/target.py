"""Which server a command talks to, with which credentials, and how it ends when it cannot."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer

from app.client.errors import AccessRefused, ClientError, NlsTaskFailed, ServerUnreachable
from app.core.config import Config, ConfigError, load

ACCESS_DENIED: Final = 40_000_001
"""The NLS status of a missing or wrong token (nls-protocol.md 8.1)."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and who we are to it."""

    url: str
    token: str | None
    appkey: str


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
    except ConfigError as error:
        fail(str(error))
    if token is None and config.apptoken is not None:
        token = config.apptoken.get_secret_value()
    appkey = config.appkey.get_secret_value() if config.appkey is not None else "default"
    return Target(url or served_at(config), token, appkey)


def served_at(config: Config) -> str:
    """The address at which this machine reaches the server of these settings."""
    if config.ssl_certfile is not None:
        if config.public_url:
            return config.public_url  # the name that the certificate is for
        scheme = "https"
    else:
        scheme = "http"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.port}"


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
    if isinstance(error, ServerUnreachable):
        return f"{error}; start the server with 'funspeech serve' or give its address with --url"
    denied = isinstance(error, NlsTaskFailed) and error.code == ACCESS_DENIED
    if denied or isinstance(error, AccessRefused):
        return f"{error}; give the server's token with --token, or as APPTOKEN in .env"
    return str(error)
