"""NLS status codes, and the one table from our errors to them, for the WebSocket and for REST.

Codes, reason tokens and HTTP statuses are those of nls-protocol.md 8.1. Where that table has no
reason token (40000009, 40010002, 50000001) the token is ours; no client reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from app.core import errors

Family = Literal["recognition", "synthesis", "flash"]
"""Which part of the product an error is about: NLS has different codes for the same mistake.
``flash`` is the recognition of files at once (nls-protocol.md 6.3)."""


@dataclass(frozen=True, slots=True)
class Status:
    """One row of the code table. ``http_status`` is what a REST door answers with."""

    code: int
    reason: str
    http_status: int


SUCCESS: Final = Status(20000000, "SUCCESS", 200)
CLIENT_ERROR: Final = Status(40000000, "CLIENT_ERROR", 400)
# 401, not the 403 of the handshake: xiaozhi renews its token on 401 only (nls-protocol.md 6.2).
ACCESS_DENIED: Final = Status(40000001, "ACCESS_DENIED", 401)
MESSAGE_INVALID: Final = Status(40000002, "MESSAGE_INVALID", 400)
PARAMETER_INVALID: Final = Status(40000003, "PARAMETER_INVALID", 400)
IDLE_TIMEOUT: Final = Status(40000004, "IDLE_TIMEOUT", 408)
TOO_MANY_REQUESTS: Final = Status(40000005, "TOO_MANY_REQUESTS", 429)
AUDIO_INVALID: Final = Status(40000009, "AUDIO_INVALID", 400)
NAMESPACE_NOT_FOUND: Final = Status(40010001, "NAMESPACE_NOT_FOUND", 404)
DIRECTIVE_UNSUPPORTED: Final = Status(40010002, "DIRECTIVE_UNSUPPORTED", 400)
DIRECTIVE_INVALID: Final = Status(40010003, "DIRECTIVE_INVALID", 400)
CLIENT_DISCONNECT: Final = Status(40010004, "CLIENT_DISCONNECT", 400)
"""The client closed during a task: for the log only, nobody is left to be told."""
TASK_STATE_ERROR: Final = Status(40010005, "TASK_STATE_ERROR", 400)
UNKNOWN_APPKEY: Final = Status(40020105, "APPKEY_NOT_EXIST", 403)
APPKEY_MISMATCH: Final = Status(40020106, "APPKEY_UID_MISMATCH", 403)
FLASH_UNSUPPORTED_FORMAT: Final = Status(40270001, "UNSUPPORTED_FORMAT", 400)
FLASH_NO_VALID_AUDIO: Final = Status(40270002, "NO_VALID_AUDIO_ERROR", 400)
"""Nobody speaks in the file: the flash recogniser's own, other doors answer with an empty text."""
FLASH_DECODE_ERROR: Final = Status(40270003, "DECODE_ERROR", 400)
UNSUPPORTED_FORMAT: Final = Status(41010100, "UNSUPPORTED_FORMAT", 400)
UNSUPPORTED_SAMPLE_RATE: Final = Status(41010101, "UNSUPPORTED_SAMPLE_RATE", 400)
TOO_LONG_SPEECH: Final = Status(41010104, "TOO_LONG_SPEECH", 400)
SSML_INVALID: Final = Status(41020001, "SSML_INVALID", 400)
SERVER_ERROR: Final = Status(50000000, "SERVER_ERROR", 500)
SERVER_TIMEOUT: Final = Status(50000000, "SERVER_ERROR", 504)
SERVER_UNAVAILABLE: Final = Status(50000001, "SERVER_UNAVAILABLE", 503)

SHUTTING_DOWN_TEXT: Final = "The server is shutting down, connect again!"

SUCCESS_TEXT: Final = "Gateway:SUCCESS:Success."

_MAX_TEXT_CHARS: Final = 300
_MAX_QUOTED_CHARS: Final = 64


class ProtocolError(errors.SpeechError):
    """A mistake that only NLS knows (a bad envelope, a directive out of turn), with its status."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


_BOTH: Final[Mapping[type[errors.SpeechError], Status]] = {
    errors.SpeechError: SERVER_ERROR,
    errors.InvalidRequest: PARAMETER_INVALID,
    errors.InvalidText: DIRECTIVE_INVALID,
    errors.InvalidSsml: SSML_INVALID,
    errors.UnknownVoice: PARAMETER_INVALID,
    errors.UnsupportedFormat: DIRECTIVE_INVALID,
    errors.UnsupportedSampleRate: DIRECTIVE_INVALID,
    # The streaming doors' code for audio that is not what it says ("Invalid wav header!"), at REST
    # too, so that the same file gets the same code; 40270003 belongs to the flash recogniser.
    errors.BadAudio: AUDIO_INVALID,
    errors.AudioTooLong: TOO_LONG_SPEECH,
    errors.AccessDenied: ACCESS_DENIED,
    errors.UnknownAppkey: UNKNOWN_APPKEY,
    errors.AppkeyMismatch: APPKEY_MISMATCH,
    errors.Overloaded: TOO_MANY_REQUESTS,
    # 5xxxxxxx: every SDK that retries at all retries these.
    errors.DeadlineExceeded: SERVER_TIMEOUT,
    errors.EngineFailed: SERVER_ERROR,
    errors.EngineUnavailable: SERVER_UNAVAILABLE,
}

_SPECIAL: Final[Mapping[Family, Mapping[type[errors.SpeechError], Status]]] = {
    "recognition": {
        errors.UnsupportedFormat: UNSUPPORTED_FORMAT,
        errors.UnsupportedSampleRate: UNSUPPORTED_SAMPLE_RATE,
    },
    "synthesis": {},
    "flash": {
        errors.UnsupportedFormat: FLASH_UNSUPPORTED_FORMAT,
        errors.UnsupportedSampleRate: UNSUPPORTED_SAMPLE_RATE,
        errors.BadAudio: FLASH_DECODE_ERROR,
        # It has no code of its own for a file that is too long (nls-protocol.md 8.1).
        errors.AudioTooLong: FLASH_DECODE_ERROR,
    },
}


def code_of(error: errors.SpeechError, family: Family) -> Status:
    """The status of an error; a subclass without a row of its own has that of its base."""
    if isinstance(error, ProtocolError):
        return error.status
    special = _SPECIAL[family]
    for cls in type(error).__mro__:
        status = special.get(cls) or _BOTH.get(cls)
        if status is not None:
            return status
    return SERVER_ERROR


def status_text(status: Status, text: str) -> str:
    """``Gateway:REASON:text`` (nls-protocol.md 1.7), on one line and of bounded length."""
    return f"Gateway:{status.reason}:{_printable(text, _MAX_TEXT_CHARS)}"


def quote(value: str) -> str:
    """Client text for use inside an error text: in quotes, at most 64 printable characters."""
    return f"'{_printable(value, _MAX_QUOTED_CHARS)}'"


def _printable(text: str, limit: int) -> str:
    # Cut first: the value may be megabytes long.
    return "".join(char for char in text[:limit] if char.isprintable())
