"""Reading the credentials of a request or a WebSocket handshake."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from app.access.policy import AccessPolicy
from app.core.errors import DailyQuotaUsed, UnknownAppkey
from app.core.project import Project


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client presents; None where it sent nothing."""

    token: str | None = field(repr=False)
    appkey: str | None = field(repr=False)

    def or_else(self, token: object, appkey: object) -> Credentials:
        """These, completed by what a request body carries; anything but a text is ignored."""
        return Credentials(self.token or _text(token), self.appkey or _text(appkey))


def credentials(connection: HTTPConnection) -> Credentials:
    """The credentials of a request, without its body.

    The token: header ``X-NLS-Token``, else ``Authorization: Bearer``, else the query parameter
    ``token`` (a browser cannot set a header on a WebSocket). The appkey: the query parameter
    ``appkey`` (nls-protocol.md 1.2 and 6).
    """
    query = connection.query_params
    token = (
        _header(connection, b"x-nls-token")
        or _bearer(_header(connection, b"authorization"))
        or query.get("token")
    )
    return Credentials(token or None, query.get("appkey") or None)


def admit(connection: HTTPConnection, access: AccessPolicy) -> Project:
    """Check a request by what it carries outside its body. Returns the project that it is for.

    Raises:
        AccessDenied, AppkeyMismatch, UnknownAppkey, DailyQuotaUsed: see
            :meth:`AccessPolicy.check`.
    """
    presented = credentials(connection)
    return access.check(presented.token, presented.appkey)


def enter(connection: HTTPConnection, access: AccessPolicy) -> None:
    """Check a request that is no task: whether its project is switched off, or has used what it may
    today, does not matter, nor which appkey a token is for.

    Raises:
        AccessDenied: see :meth:`AccessPolicy.check`.
    """
    presented = credentials(connection)
    if access.needs_token:
        access.admits(presented.token)
        return
    with contextlib.suppress(UnknownAppkey, DailyQuotaUsed):
        access.check(None, presented.appkey)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _header(connection: HTTPConnection, name: bytes) -> str:
    """A header as UTF-8, which is what clients send for a token that is not ASCII; the framework
    reads Latin-1."""
    for key, value in connection.scope["headers"]:
        if key.lower() == name:
            return bytes(value).decode("utf-8", "replace").strip()
    return ""


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
