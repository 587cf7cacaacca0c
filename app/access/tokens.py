"""The format of tokens that this server issues.

A token carries its own proof, so that each API process can check it without a look-up, the moment
it was issued by another one. It is 36 bytes, written as 72 lower-case hex digits:

    version 1 | id 8 | expiry 5 (seconds since 1970) | scope 8 | seal 14

The scope is the beginning of the SHA-256 of the appkey that the token is for, zeros for any. The
seal is the beginning of an HMAC-SHA256 of the rest.
"""

from __future__ import annotations

import hashlib
import hmac
import string
from typing import Final

import msgspec

_VERSION: Final = b"\x01"
_ID_END: Final = 9
_EXPIRY_END: Final = 14
_SEALED_BYTES: Final = 22
_TOKEN_CHARS: Final = 72
_SEAL_BYTES: Final = 14
_EXPIRY_BYTES: Final = 5
_SCOPE_BYTES: Final = 8

ANY_APPKEY: Final = bytes(_SCOPE_BYTES)
"""The scope of a token that is for any appkey."""

_SHORTEST_SHOWN: Final = 12
"""Credentials shorter than this are masked whole: four characters at either end would be most of
them."""

_SHOWN: Final = frozenset(string.ascii_letters + string.digits + "-._~")
"""Everything else could break a quotation, a header or a log line."""


class TokenFacts(msgspec.Struct, frozen=True):
    """What a token of ours says. ``expires_at``: seconds since 1970; whether that is over is not
    looked at here, and neither is whether the token was revoked."""

    token_id: bytes
    expires_at: int
    scope: bytes

    def is_for(self, appkey: str | None) -> bool:
        """Whether it may be used with this appkey."""
        return self.scope in (ANY_APPKEY, scope_of(appkey or ""))


def issue(key: bytes, *, expires_at: int, appkey: str | None, token_id: bytes) -> str:
    """A token, sealed with ``key``. ``appkey``: the only one that it is for; None: any.
    ``token_id``: 8 bytes that no other token has."""
    sealed = (
        _VERSION
        + token_id
        + expires_at.to_bytes(_EXPIRY_BYTES, "big")
        + (ANY_APPKEY if appkey is None else scope_of(appkey))
    )
    return (sealed + _seal(key, sealed)).hex()


def read(token: str, key: bytes) -> TokenFacts | None:
    """What the token says; None where it is not one of ours, or forged. Without a ``key`` none is
    ours."""
    if not key or len(token) != _TOKEN_CHARS:
        return None
    try:
        raw = bytes.fromhex(token)
    except ValueError:
        return None
    sealed, seal = raw[:_SEALED_BYTES], raw[_SEALED_BYTES:]
    if not hmac.compare_digest(seal, _seal(key, sealed)):
        return None
    if not sealed.startswith(_VERSION) or raw.hex() != token:  # one spelling only
        return None
    return TokenFacts(
        token_id=sealed[len(_VERSION) : _ID_END],
        expires_at=int.from_bytes(sealed[_ID_END:_EXPIRY_END], "big"),
        scope=sealed[_EXPIRY_END:],
    )


def scope_of(appkey: str) -> bytes:
    """How a token names the appkey that it is for."""
    return hashlib.sha256(appkey.encode("utf-8", "surrogatepass")).digest()[:_SCOPE_BYTES]


def digest(token: str) -> str:
    """What the database keeps of a token: its SHA-256, in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def mask(secret: str) -> str:
    """``wron****rong`` for a long secret, only ``****`` for a short one. The result is printable
    ASCII, so that it may stand in a header, a log line or a body of any charset."""
    if len(secret) < _SHORTEST_SHOWN:
        return "****"
    return f"{_printable(secret[:4])}****{_printable(secret[-4:])}"


def _printable(text: str) -> str:
    return "".join(char if char in _SHOWN else "_" for char in text)


def _seal(key: bytes, sealed: bytes) -> bytes:
    return hmac.digest(key, sealed, "sha256")[:_SEAL_BYTES]
