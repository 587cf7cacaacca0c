"""Between the rows of the tables and the structs of :mod:`app.access.rows`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import RowMapping

from app.access.rows import KeyRow, ProjectRow, TokenRow, UsageRow, VocabularyRow
from app.core.project import Hotwords, Project
from app.storage.errors import StorageError

T = TypeVar("T")

USAGE_SUMS: Final = ("tasks", "failed", "audio_ms", "characters")
"""What of a row of usage adds up."""

_JSON: Final = frozenset({"defaults", "voices", "words"})


def columns_of(row: msgspec.Struct, **changes: object) -> dict[str, Any]:
    """The values of a struct's columns, with ``changes``."""
    values = msgspec.structs.asdict(row) | changes
    for name in _JSON & values.keys():
        values[name] = msgspec.json.encode(values[name]).decode()
    return values


def project_row(row: RowMapping) -> ProjectRow:
    """A row of ``projects``.

    Raises:
        StorageError: it has what was not written here.
    """
    try:
        return _convert(row, ProjectRow)
    except (ValueError, RecursionError) as error:
        raise _unreadable("project", row["appkey"], error) from None


def vocabulary_row(row: RowMapping) -> VocabularyRow:
    """A row of ``vocabularies``.

    Raises:
        StorageError: it has what was not written here.
    """
    try:
        return _convert(row, VocabularyRow)
    except (ValueError, RecursionError) as error:
        raise _unreadable("vocabulary", row["id"], error) from None


def key_row(row: RowMapping) -> KeyRow:
    """A row of ``access_keys``."""
    return _convert(row, KeyRow)


def token_row(row: RowMapping) -> TokenRow:
    """A row of ``tokens``."""
    return _convert(row, TokenRow)


def usage_row(row: RowMapping) -> UsageRow:
    """A row of ``usage``."""
    values = _values(row)
    values["used"] = {name: values.pop(name) for name in USAGE_SUMS}
    return msgspec.convert(values, UsageRow)


def hotwords(row: RowMapping) -> Hotwords:
    """The words of a row of ``vocabularies``, for engines.

    Raises:
        StorageError: it has what was not written here.
    """
    return tuple((word, float(weight)) for word, weight in vocabulary_row(row).words.items())


def project_of(row: ProjectRow, words: Mapping[str, Hotwords]) -> Project:
    """The project as tasks see it. ``words``: all vocabularies."""
    return Project(
        appkey=row.appkey,
        name=row.name,
        enabled=row.enabled,
        model=row.model,
        max_rate=row.max_rate,
        language=row.language,
        hotwords=words.get(row.vocabulary_id or "", ()),
        defaults=row.defaults,
        voices=frozenset(voice.casefold() for voice in row.voices),
        max_tasks=row.max_tasks,
        daily_audio_s=row.daily_audio_s,
        daily_characters=row.daily_characters,
        vocabularies=words,
    )


def _unreadable(what: str, name: str, error: Exception) -> StorageError:
    reason = str(error) if isinstance(error, msgspec.ValidationError) else "it is malformed"
    return StorageError(f"The {what} {name[:80]!r} cannot be read from the database: {reason}.")


def _convert(row: RowMapping, kind: type[T]) -> T:
    values = _values(row)
    for name in _JSON & values.keys():
        values[name] = msgspec.json.decode(values[name])
    return msgspec.convert(values, kind)


def _values(row: RowMapping) -> dict[str, Any]:
    # SQLAlchemy's names are a kind of str that msgspec does not take.
    return {str(name): value for name, value in row.items()}
