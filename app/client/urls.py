"""The addresses of a server's doors, from whichever of them a person has at hand."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from app.client.errors import ClientError

NLS_PATH: Final = "/ws/v1"
"""The one path that serves every NLS namespace (nls-protocol.md 1.1)."""

_SECURE: Final = {"http": False, "ws": False, "https": True, "wss": True}


def websocket_url(url: str) -> str:
    """The NLS WebSocket address: ``http://host:8000`` becomes ``ws://host:8000/ws/v1``.

    A path or query in ``url`` is kept.

    Raises:
        ClientError: ``url`` is not an http, https, ws or wss address.
    """
    parts = _split(url)
    scheme = "wss" if _SECURE[parts.scheme] else "ws"
    path = parts.path if parts.path.strip("/") else NLS_PATH
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def http_url(url: str) -> str:
    """The server's base for REST calls: ``wss://host/ws/v1`` becomes ``https://host``.

    A path that does not lead to the WebSocket is kept, for servers behind a path prefix.

    Raises:
        ClientError: ``url`` is not an http, https, ws or wss address.
    """
    parts = _split(url)
    scheme = "https" if _SECURE[parts.scheme] else "http"
    path = parts.path.rstrip("/").removesuffix(NLS_PATH)
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def is_secure(url: str) -> bool:
    """Whether the connection is encrypted (https or wss)."""
    return _SECURE[_split(url).scheme]


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SECURE and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        usable = False
    if not usable:
        raise ClientError(f"{url!r} is not an address such as http://127.0.0.1:8000")
    return parts
