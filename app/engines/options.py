"""A family's settings, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from app.core.errors import EngineNotUsable

Options = TypeVar("Options")


def named(settings: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    """The settings that are there, by the fields of ``names``, which has the setting of each."""
    return {
        field: settings[name] for field, name in names.items() if settings.get(name) is not None
    }


def converted(
    found: Mapping[str, object],
    kind: type[Options],
    names: Mapping[str, str],
    *,
    strict: bool = True,
) -> Options:
    """The fields ``found`` as a ``kind``. ``strict``: as :func:`msgspec.convert` has it.

    Raises:
        EngineNotUsable: a value is none that the setting can have.
    """
    try:
        return msgspec.convert(found, kind, strict=strict)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at `$.")
        raise EngineNotUsable(f"{names[field.rstrip('`')]}: {reason}") from None
