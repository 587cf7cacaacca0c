"""What the database says of projects and tokens at one moment, for the event loop to read."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.core.project import DEFAULT_APPKEY, DEFAULT_PROJECT, Hotwords, Project


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Replaced as a whole, never changed. ``revision`` rises with each change in the database.
    ``token_key``: what issued tokens are sealed with; empty: none can be valid. ``revoked``: ids of
    tokens that have not expired yet."""

    revision: int = 0
    projects: Mapping[str, Project] = {}
    vocabularies: Mapping[str, Hotwords] = {}
    token_key: bytes = b""
    revoked: frozenset[bytes] = frozenset()

    def project_of(self, appkey: str) -> Project:
        """The appkey's project, else the default one, which is there before the database is."""
        return self.projects.get(appkey) or self.projects.get(DEFAULT_APPKEY) or DEFAULT_PROJECT

    def __repr__(self) -> str:
        return f"Snapshot(revision={self.revision})"  # without the key

    @property
    def has_quotas(self) -> bool:
        """Whether any project may use only so much in a day."""
        return any(each.daily_audio_s or each.daily_characters for each in self.projects.values())


EMPTY = Snapshot()
"""Before anything was read: every appkey has the default project, and no token is one of ours."""
