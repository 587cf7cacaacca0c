"""The commands on projects, vocabularies, tokens and keys work on the database of the settings,
whether the server runs or not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from typing import Final, TypeVar

import typer

from app.access.store import Store, open_store
from app.cli.target import fail
from app.core.config import Config, ConfigError, load
from app.core.errors import SpeechError
from app.storage.errors import StorageError

_T = TypeVar("_T")

FOLLOWED: Final = "a running server has it within a second"
AT_ONCE: Final = "in effect at once"


def settings() -> Config:
    """The settings of the environment and of .env; ends the command where one is malformed."""
    try:
        return load()
    except ConfigError as error:
        fail(str(error))


def asked(config: Config, work: Callable[[Store], Awaitable[_T]]) -> _T:
    """What ``work`` finds in the database; ends the command if it cannot be done."""
    return _run(config, work)[1]


def changed(config: Config, work: Callable[[Store], Awaitable[_T]], effect: str = FOLLOWED) -> _T:
    """As :func:`asked`, and says then when that takes effect, and which database it is in: that of
    another folder's settings would be another one."""
    name, result = _run(config, work)
    note(f"{effect} (database {name})")
    return result


def _run(config: Config, work: Callable[[Store], Awaitable[_T]]) -> tuple[str, _T]:
    async def working() -> tuple[str, _T]:
        async with open_store(config) as store:
            return store.name, await work(store)

    try:
        # What a migration has to say belongs beside the result, which may go to another program.
        with redirect_stdout(sys.stderr):
            return asyncio.run(working())
    except (StorageError, SpeechError) as error:
        fail(str(error))


def note(text: str) -> None:
    """Tell people something beside the result: on the standard error."""
    typer.echo(f"funspeech: {text}", err=True)


def moment(seconds: int | None) -> str | None:
    """A time of the database as people and programs read it, in UTC; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
