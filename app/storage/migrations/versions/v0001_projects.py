"""Projects, vocabularies, access keys, tokens and usage."""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables, and what is there from the beginning: the key of tokens and the default
    project."""
    _settings()
    _credentials()
    _usage()
    _first_rows()


def _settings() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
    )
    op.create_table(
        "projects",
        sa.Column("appkey", sa.String(256), primary_key=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("model", sa.String(32), nullable=False),
        sa.Column("max_rate", sa.Integer),
        sa.Column("language", sa.String(32)),
        sa.Column("vocabulary_id", sa.String(32)),
        sa.Column("defaults", sa.Text, nullable=False),
        sa.Column("voices", sa.Text, nullable=False),
        sa.Column("max_tasks", sa.Integer),
        sa.Column("daily_audio_s", sa.BigInteger, nullable=False),
        sa.Column("daily_characters", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "vocabularies",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )


def _credentials() -> None:
    op.create_table(
        "access_keys",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("secret", sa.String(40), nullable=False),
        sa.Column("appkey", sa.String(256)),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("key_id", sa.String(24)),
        sa.Column("appkey", sa.String(256)),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_index("ix_tokens_expires_at", "tokens", ["expires_at"])


def _usage() -> None:
    op.create_table(
        "usage",
        sa.Column("appkey", sa.String(256), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("kind", sa.String(3), primary_key=True),
        sa.Column("tasks", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("audio_ms", sa.BigInteger, nullable=False),
        sa.Column("characters", sa.BigInteger, nullable=False),
    )


def _first_rows() -> None:
    meta = sa.table("meta", sa.column("key"), sa.column("value"))
    op.bulk_insert(
        meta,
        [
            {"key": "revision", "value": "1"},
            {"key": "token_key", "value": secrets.token_hex(32)},
        ],
    )
    now = int(time.time())
    default = {
        "appkey": "*",
        "name": "",
        "enabled": True,
        "model": "",
        "defaults": "{}",
        "voices": "[]",
        "daily_audio_s": 0,
        "daily_characters": 0,
        "created_at": now,
        "updated_at": now,
    }
    columns = [
        sa.column(name, sa.Boolean() if isinstance(value, bool) else None)
        for name, value in default.items()
    ]
    op.bulk_insert(sa.table("projects", *columns), [default])
