"""Alembic runs this file for each migration: it says on which connection. The transaction is that
of the caller (``app/storage/migrate.py``), who commits it."""

from __future__ import annotations

from alembic import context

from app.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
