"""What can go wrong with the database. For the owner of the server, not for clients: the doors map
these errors to what their callers may know."""

from __future__ import annotations


class StorageError(Exception):
    """The database cannot be used, or not so; the text is one line and shows no password."""


class AlreadyThere(StorageError):
    """What was to be created exists."""


class NotThere(StorageError):
    """What was named does not exist."""
