"""``funspeech vocab``: lists of hotwords, for projects to have and for requests to name."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import typer

from app.access.rows import ProjectRow, VocabularyRow
from app.access.store import Store
from app.access.values import check_text
from app.cli.database import asked, changed, moment, settings
from app.cli.listing import show_json, show_list
from app.cli.target import fail
from app.core.errors import InvalidRequest
from app.nls.vocabulary import (
    MAX_DESCRIPTION_CHARS,
    MAX_NAME_CHARS,
    MAX_WEIGHT,
    MIN_WEIGHT,
    check_words,
    word_weights,
)
from app.storage.errors import AlreadyThere, NotThere, StorageError

_MAX_BYTES: Final = 1024 * 1024
"""A thousand words of 64 characters take a quarter of it."""

_LINE: Final = re.compile(r"(.*\S)\s+([+-]?[0-9]{1,9})")


def create(name: str, file: Path, description: str, *, json: bool) -> None:
    """Create a vocabulary and print its id."""
    words = _words(file)

    async def work(store: Store) -> VocabularyRow:
        await _check_name_is_free(store, name)
        row = _checked(
            VocabularyRow(id=uuid.uuid4().hex, name=name, description=description, words=words)
        )
        await store.save_vocabulary(row)
        return row

    row = changed(settings(), work)
    if json:
        show_json({"id": row.id, "name": row.name})
    else:
        typer.echo(row.id)


def change(named: str, file: Path | None, name: str | None, description: str | None) -> None:
    """Replace the words, the name or the description."""
    if file is None and name is None and description is None:
        fail("nothing to change; 'funspeech vocab set --help' has the options")
    words = _words(file) if file is not None else None

    async def work(store: Store) -> None:
        row = await find_vocabulary(store, named)
        if name is not None and name != row.name:
            await _check_name_is_free(store, name)
        made = msgspec.structs.replace(
            row,
            name=row.name if name is None else name,
            description=row.description if description is None else description,
            words=row.words if words is None else words,
        )
        await store.save_vocabulary(_checked(made))

    changed(settings(), work)


def list_vocabularies(*, json: bool) -> None:
    """Print all vocabularies, the oldest first, with the projects that have them."""

    async def work(store: Store) -> tuple[list[VocabularyRow], list[ProjectRow]]:
        return await store.vocabularies(), await store.projects()

    vocabularies, projects = asked(settings(), work)
    users = {
        row.id: [project.appkey for project in projects if project.vocabulary_id == row.id]
        for row in vocabularies
    }
    show_list(
        ("Id", "Name", "Words", "Projects", "Description"),
        [
            (row.id, row.name, str(len(row.words)), " ".join(users[row.id]), row.description)
            for row in vocabularies
        ],
        [
            {**_fields(row), "words": len(row.words), "projects": users[row.id]}
            for row in vocabularies
        ],
        json=json,
    )


def show(named: str, *, json: bool) -> None:
    """Print the words of a vocabulary with their weights, as ``create`` and ``set`` read them."""
    row = asked(settings(), lambda store: find_vocabulary(store, named))
    if json:
        show_json({**_fields(row), "words": dict(row.words)})
        return
    for word, weight in row.words.items():
        typer.echo(f"{word} {weight}")


def delete(named: str) -> None:
    """Delete a vocabulary; projects that had it are left with none."""

    async def work(store: Store) -> None:
        await store.delete_vocabulary((await find_vocabulary(store, named)).id)

    changed(settings(), work)


async def find_vocabulary(store: Store, named: str) -> VocabularyRow:
    """The vocabulary of this id, or of this name.

    Raises:
        StorageError: there is none, or several have the name.
    """
    rows = await store.vocabularies()
    by_id = [row for row in rows if row.id == named]
    found = by_id or [row for row in rows if row.name == named]
    if not found:
        raise NotThere(f"There is no vocabulary {named}; 'funspeech vocab list' has all")
    if len(found) > 1:  # those that came by the cloud's interface need no name of their own
        raise StorageError(f"There are {len(found)} vocabularies {named}: name it by its id")
    return found[0]


async def _check_name_is_free(store: Store, name: str) -> None:
    if any(name in (row.name, row.id) for row in await store.vocabularies()):
        raise AlreadyThere(
            f"There is a vocabulary {name} already; 'funspeech vocab set' changes it"
        )


def _checked(row: VocabularyRow) -> VocabularyRow:
    check_text("name", row.name, MAX_NAME_CHARS)
    if not row.name.strip():
        raise InvalidRequest("A vocabulary needs a name")
    check_text("description", row.description, MAX_DESCRIPTION_CHARS)
    check_words(row.words)
    return row


def _fields(row: VocabularyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


# Files of words


def _words(file: Path) -> Mapping[str, int]:
    text = _text(file)
    try:
        return word_weights(text) if text.lstrip().startswith("{") else parse_lines(text)
    except InvalidRequest as error:
        fail(f"{file}: {error.text}")


def _text(file: Path) -> str:
    try:
        if str(file) == "-":
            read = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with file.open("rb") as stream:
                read = stream.read(_MAX_BYTES + 1)
        if len(read) > _MAX_BYTES:
            fail(f"{file} is too large for a list of words")
        return read.decode("utf-8-sig")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file} is not UTF-8 text")


def parse_lines(text: str) -> dict[str, int]:
    """Words with their weights, one in a line; ``#`` at its beginning makes a comment.

    Raises:
        InvalidRequest: a line has no weight, or its word is there twice.
    """
    words: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise InvalidRequest(
                f"line {number} is no word with a weight ({MIN_WEIGHT} to {MAX_WEIGHT}) behind it"
            )
        word, weight = parts.groups()
        if word in words:
            raise InvalidRequest(f"line {number}: {word} is there twice")
        words[word] = int(weight)
    return words
