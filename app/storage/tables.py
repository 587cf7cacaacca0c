"""The tables of the newest form. Times are seconds since 1970, UTC; JSON is text, so that SQLite
and PostgreSQL hold the same.

The migrations (``migrations/versions``) lead to this form; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()

meta: Final = Table(
    "meta",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", String(256), nullable=False),
)
"""``revision``: a number that rises with every change that a snapshot shows. ``token_key``: 64 hex
digits, what issued tokens are sealed with."""

projects: Final = Table(
    "projects",
    metadata,
    Column("appkey", String(256), primary_key=True),
    Column("name", String(256), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("model", String(32), nullable=False),
    Column("max_rate", Integer),
    Column("language", String(32)),
    Column("vocabulary_id", String(32)),
    Column("defaults", Text, nullable=False),
    Column("voices", Text, nullable=False),
    Column("max_tasks", Integer),
    Column("daily_audio_s", BigInteger, nullable=False),
    Column("daily_characters", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
"""``defaults``: a JSON object of NLS parameters. ``voices``: a JSON array of names."""

vocabularies: Final = Table(
    "vocabularies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(256), nullable=False),
    Column("description", Text, nullable=False),
    Column("words", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
"""``words``: a JSON object, word to weight."""

access_keys: Final = Table(
    "access_keys",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("secret", String(40), nullable=False),
    Column("appkey", String(256)),
    Column("note", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

tokens: Final = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("key_id", String(24)),
    Column("appkey", String(256)),
    Column("note", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("revoked_at", BigInteger),
)
"""``digest``: SHA-256 of the token, which itself is not kept."""

usage: Final = Table(
    "usage",
    metadata,
    Column("appkey", String(256), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("kind", String(3), primary_key=True),
    Column("tasks", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("audio_ms", BigInteger, nullable=False),
    Column("characters", BigInteger, nullable=False),
)
"""``day``: UTC, ``YYYY-MM-DD``. ``kind``: ``asr`` or ``tts``."""

jobs: Final = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("appkey", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("request", Text, nullable=False),
    Column("result", Text),
    Column("error_code", Integer),
    Column("error_text", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger, index=True),
    Column("lease_until", BigInteger, index=True),
    Column("owner", String(32)),
)
"""``request`` and ``result``: JSON, in a form that is the kind's own. ``owner`` works on the job,
or will, until ``lease_until``, which it moves on; both are null once the job has ended."""
