"""The server's own token and appkey.

The rules: where APPTOKEN is set, a token is required at every door but health,
and the appkey only names a project. Where only APPKEY is set, the appkey is the credential. Where
neither is set, everybody may enter.
"""

from __future__ import annotations

import hmac
import string
from dataclasses import dataclass, field

from app.core.errors import AccessDenied

MISSING_TOKEN = "Missing authorization header; send the token as X-NLS-Token."
MISSING_APPKEY = "Missing appkey; send it as the parameter appkey."

_SHORTEST_SHOWN = 12
"""Credentials shorter than this are masked whole: four characters at either end would be most of
them."""

_SHOWN = frozenset(string.ascii_letters + string.digits + "-._~")
"""Everything else could break a quotation, a header or a log line."""


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The credentials that the owner has set; None (or empty) where one is not in use."""

    apptoken: str | None = field(repr=False)
    appkey: str | None = field(repr=False)

    def check(self, token: str | None, appkey: str | None) -> None:
        """Check what a request carries; an empty value counts as missing.

        Raises:
            AccessDenied: missing or wrong. The text names the wrong value masked, in the words
                that the C++ SDK looks for (nls-protocol.md 1.2).
        """
        if self.apptoken:
            if not token:
                raise AccessDenied(MISSING_TOKEN)
            if not _equal(token, self.apptoken):
                raise AccessDenied(f"The token '{mask(token)}' is invalid!")
        elif self.appkey:
            if not appkey:
                raise AccessDenied(MISSING_APPKEY)
            if not _equal(appkey, self.appkey):
                raise AccessDenied(f"The appkey '{mask(appkey)}' is invalid!")

    def check_handshake(self, token: str | None, *, token_in_message: bool) -> None:
        """Check a WebSocket handshake, which carries no appkey (nls-protocol.md 1.2).

        A wrong token is refused at once. A missing one is let in where ``token_in_message`` says
        that a message may bring it; :meth:`check` then decides at each Start.

        Raises:
            AccessDenied: as :meth:`check`.
        """
        if self.apptoken and (token or not token_in_message):
            self.check(token, None)


def mask(secret: str) -> str:
    """``wron****rong`` for a long secret, only ``****`` for a short one. The result is printable
    ASCII, so that it may stand in a header, a log line or a body of any charset."""
    if len(secret) < _SHORTEST_SHOWN:
        return "****"
    return f"{_printable(secret[:4])}****{_printable(secret[-4:])}"


def _printable(text: str) -> str:
    return "".join(char if char in _SHOWN else "_" for char in text)


def _equal(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much of ``given`` is right. Lone surrogates, which
    JSON can carry, are compared like any other character."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )
