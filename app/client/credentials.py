"""How a token travels: as a header where it can be one, else in the query."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
"""Printable ASCII without spaces at its ends. Anything else a library would refuse, with the token
in its error text, or change on the way."""


def token_header(token: str | None) -> dict[str, str]:
    """The header that carries ``token``; empty where there is none or it cannot be a header."""
    return {"X-NLS-Token": token} if token and _HEADER_VALUE.fullmatch(token) else {}


def with_token(url: str, token: str | None) -> str:
    """``url`` with ``token`` in its query, percent-encoded, where :func:`token_header` has none.

    Every door of an NLS server takes it there too (nls-protocol.md 1.2). Never show the result.
    """
    if not token or token_header(token):
        return url
    return f"{url}{'&' if '?' in url else '?'}token={quote(token, safe='')}"
