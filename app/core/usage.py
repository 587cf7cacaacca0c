"""What tasks use, for those who count it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.core.speech import Role


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """One task, once it is over. ``audio_ms``: that was recognised, or spoken. ``characters``: of
    the text that was to be spoken. ``failed``: it ended with an error."""

    kind: Role
    audio_ms: int = 0
    characters: int = 0
    failed: bool = False


Account = Callable[[str, Used], None]
"""Told the appkey of a task and what it has used. Called on the event loop; does no I/O itself and
never raises."""


def unrecorded(appkey: str, used: Used) -> None:
    """An account that counts nothing."""
