"""What an appkey means: in the cloud that is set in the console and never on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

Hotwords = tuple[tuple[str, float], ...]
"""Words and their weights on NLS's scale, -6 to 5 (nls-protocol.md 2.1)."""

DEFAULT_APPKEY: Final = "*"
"""The project of every appkey that has none of its own."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """One project, or the default one.

    ``model``: a label of MODELS_FILE, "" for the server's own. ``max_rate``: Hz; what the client
    sends beyond is heard as if it had been sent at this rate. ``language``: what is spoken, None
    where the model finds that out. ``defaults``: NLS parameters, by their names on the wire, for
    requests that do not give them. ``voices``: names that its requests may ask for, casefolded;
    empty: all. ``max_tasks``: at the same time; None: as MAX_TASKS_PER_APPKEY says, 0: no limit.
    ``daily_audio_s``, ``daily_characters``: recognised and spoken in a day (UTC), 0 for no limit.
    ``vocabularies``: all of the server's, by their ids: what a ``vocabulary_id`` may name.
    """

    appkey: str = DEFAULT_APPKEY
    name: str = ""
    enabled: bool = True
    model: str = ""
    max_rate: int | None = None
    language: str | None = None
    hotwords: Hotwords = ()
    defaults: Mapping[str, object] = {}
    voices: frozenset[str] = frozenset()
    max_tasks: int | None = None
    daily_audio_s: int = 0
    daily_characters: int = 0
    vocabularies: Mapping[str, Hotwords] = {}

    def hotwords_of(self, vocabulary_id: str) -> Hotwords:
        """The words of a vocabulary; the project's own for "" and for an unknown id, which the
        cloud ignores, too (nls-protocol.md 2.1)."""
        return self.vocabularies.get(vocabulary_id, self.hotwords)

    def allows_voice(self, name: str) -> bool:
        """Whether its requests may ask for a voice by this name."""
        return not self.voices or name.casefold() in self.voices


DEFAULT_PROJECT: Final = Project()
