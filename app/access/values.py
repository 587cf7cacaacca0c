"""What the owner may write into the database: checked before it gets there, whoever asks for it.

The texts of the errors name the value and what is accepted; they are for the owner.
"""

from __future__ import annotations

import re
from typing import Final

from app.access.rows import ProjectRow
from app.core.errors import InvalidRequest
from app.core.project import DEFAULT_APPKEY

MAX_NAME_CHARS: Final = 256
"""Of appkeys, names and notes. An appkey of the cloud has 16."""

MIN_RATE: Final = 8_000
MAX_RATE: Final = 48_000
"""Hz, as for the audio that clients send (nls-protocol.md 3.1)."""

MAX_TASKS: Final = 1_000_000
MAX_DAILY_AUDIO_S: Final = 1_000_000_000
MAX_DAILY_CHARACTERS: Final = 1_000_000_000_000
"""Beyond what any server can do in a day: a bound for mistakes."""

_MAX_LANGUAGE_CHARS: Final = 32
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
"""A language tag such as zh, en-US or zh-Hans-CN (BCP 47, without its rarer forms)."""


def check_project(row: ProjectRow) -> None:
    """Whether the database may hold this project. Its model, its vocabulary and its defaults are
    not looked at: others know what there is.

    Raises:
        InvalidRequest: a value is out of range or malformed.
    """
    if row.appkey != DEFAULT_APPKEY:
        check_appkey(row.appkey)
    check_text("name", row.name)
    if row.max_rate is not None:
        _check_range("rate", row.max_rate, MIN_RATE, MAX_RATE)
    if row.language is not None:
        _check_language(row.language)
    for voice in row.voices:
        check_text("voice", voice)
    if row.max_tasks is not None:
        _check_range("limit of tasks", row.max_tasks, 0, MAX_TASKS)
    _check_range("daily audio", row.daily_audio_s, 0, MAX_DAILY_AUDIO_S)
    _check_range("daily characters", row.daily_characters, 0, MAX_DAILY_CHARACTERS)


def check_appkey(appkey: str) -> None:
    """Whether a client can name this appkey, and a list can show it.

    Raises:
        InvalidRequest: it is empty, too long, not printable, the default one's, or has white space
            around it, which clients lose.
    """
    if appkey == DEFAULT_APPKEY:
        raise InvalidRequest(
            f"The appkey {DEFAULT_APPKEY} stands for all without a project; it names no client"
        )
    if not appkey or appkey != appkey.strip():
        raise InvalidRequest("An appkey is not empty, and has no white space around it")
    check_text("appkey", appkey)


def check_text(what: str, text: str, max_chars: int = MAX_NAME_CHARS) -> None:
    """Whether ``text`` fits, and is one line that any list can show. ``what``: for the error.

    Raises:
        InvalidRequest: it does not, or is not.
    """
    if len(text) > max_chars or not text.isprintable():
        raise InvalidRequest(f"Invalid {what}: expected at most {max_chars} printable characters")


def _check_language(language: str) -> None:
    if len(language) > _MAX_LANGUAGE_CHARS or not _LANGUAGE.fullmatch(language):
        raise InvalidRequest("Invalid language: expected a language tag such as zh or en-US")


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"Invalid {what} {value}: expected {low} to {high}")
