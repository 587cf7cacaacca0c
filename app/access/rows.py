"""What the database keeps of projects, vocabularies, access keys, tokens and usage. Times are
seconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.core.speech import Role


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """A project; its fields as in :class:`app.core.project.Project`. ``vocabulary_id``: None for
    none. ``created_at`` and ``updated_at`` are the store's to fill in."""

    appkey: str
    name: str = ""
    enabled: bool = True
    model: str = ""
    max_rate: int | None = None
    language: str | None = None
    vocabulary_id: str | None = None
    defaults: Mapping[str, object] = {}
    voices: tuple[str, ...] = ()
    max_tasks: int | None = None
    daily_audio_s: int = 0
    daily_characters: int = 0
    created_at: int = 0
    updated_at: int = 0


class VocabularyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A list of hotwords and their weights, -6 to 5. ``id``: 32 hex digits."""

    id: str
    name: str
    description: str = ""
    words: Mapping[str, int] = {}
    created_at: int = 0
    updated_at: int = 0


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of keys for CreateToken. The secret is kept in clear: the caller's signature is made
    with it. ``appkey``: what tokens made with it are for; None: any."""

    id: str
    secret: str
    appkey: str | None = None
    note: str = ""
    created_at: int = 0
    revoked_at: int | None = None

    def __repr__(self) -> str:
        return f"KeyRow(id={self.id!r})"  # without the secret


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """An issued token, which itself is not kept. ``id``: 16 hex digits; ``key_id``: of the access
    key that asked for it; ``appkey``: what it is for, None: any."""

    id: str
    key_id: str | None = None
    appkey: str | None = None
    note: str = ""
    created_at: int = 0
    expires_at: int = 0
    revoked_at: int | None = None


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """What some tasks have used together."""

    tasks: int = 0
    failed: int = 0
    audio_ms: int = 0
    characters: int = 0


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a project has used on one day (UTC, ``YYYY-MM-DD``)."""

    day: str
    appkey: str
    kind: Role
    used: UsageSum
