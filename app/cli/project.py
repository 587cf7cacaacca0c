"""``funspeech project``: what appkeys mean."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import typer

from app.access.rows import ProjectRow, VocabularyRow
from app.access.store import Store
from app.access.values import check_appkey, check_project
from app.audio.encode import ENCODABLE
from app.audio.sniff import FORMATS
from app.cli.database import asked, changed, moment, note, settings
from app.cli.durations import duration, seconds
from app.cli.listing import show_fields, show_json, show_list
from app.cli.target import fail
from app.cli.vocab import find_vocabulary
from app.core.config import Config, ConfigError
from app.core.errors import InvalidRequest, SpeechError
from app.core.project import DEFAULT_APPKEY, Project
from app.nls.defaults import check_defaults, needs_a_voice
from app.serving.models_file import recognition_models
from app.storage.errors import NotThere

_APPKEY_CHARS: Final = 16
_LETTERS: Final = string.ascii_letters + string.digits
_OWN_LIMIT: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the command line says of a project: None, or nothing, where it does not. An empty text
    takes a value away."""

    name: str | None = None
    enabled: bool | None = None
    model: str | None = None
    rate: int | None = None
    language: str | None = None
    vocabulary: str | None = None
    defaults: Sequence[str] = ()
    voices: Sequence[str] = ()
    max_tasks: str | None = None
    daily_audio: str | None = None
    daily_characters: int | None = None


def create(appkey: str | None, changes: Changes, *, json: bool) -> None:
    """Create a project, under a new appkey where none is given, and print its appkey."""
    config = settings()
    made = appkey if appkey is not None else _new_appkey()

    async def work(store: Store) -> ProjectRow:
        check_appkey(made)
        row = await _with_changes(ProjectRow(appkey=made), changes, config, store)
        await store.save_project(row, new=True)
        return row

    row = changed(config, work)
    _advise(row)
    if json:
        _show(config, row.appkey, json=True)
    else:
        typer.echo(row.appkey)


def change(appkey: str, changes: Changes) -> None:
    """Change what the command line names, and leave the rest."""
    if changes == Changes():
        fail("nothing to change; 'funspeech project set --help' has the options")
    config = settings()

    async def work(store: Store) -> ProjectRow:
        row = await _with_changes(await _found(store, appkey), changes, config, store)
        await store.save_project(row, new=False)
        return row

    _advise(changed(config, work))


def list_projects(*, json: bool) -> None:
    """Print all projects, the default one first."""

    async def work(store: Store) -> tuple[list[ProjectRow], list[VocabularyRow]]:
        return await store.projects(), await store.vocabularies()

    projects, vocabularies = asked(settings(), work)
    names = _names(vocabularies)
    show_list(
        ("Appkey", "Name", "State", "Settings"),
        [(row.appkey, row.name, _state(row), _summary(row, names)) for row in projects],
        [_fields(row, names) for row in projects],
        json=json,
    )


def show(appkey: str, *, json: bool) -> None:
    """Print all of one project."""
    _show(settings(), appkey, json=json)


def delete(appkey: str) -> None:
    """Delete a project; from now on its appkey is like any other."""

    async def work(store: Store) -> None:
        if not await store.delete_project(appkey):
            raise _no_project(appkey)

    changed(settings(), work)


def _show(config: Config, appkey: str, *, json: bool) -> None:
    async def work(store: Store) -> tuple[ProjectRow, list[VocabularyRow]]:
        return await _found(store, appkey), await store.vocabularies()

    row, vocabularies = asked(config, work)
    fields = _fields(row, _names(vocabularies))
    if json:
        show_json(fields)
        return
    defaults = " ".join(f"{name}={value}" for name, value in row.defaults.items())
    limit = "as MAX_TASKS_PER_APPKEY" if row.max_tasks is None else row.max_tasks or "no limit"
    audio = duration(row.daily_audio_s) if row.daily_audio_s else "no limit"
    shown: dict[str, object] = {
        **fields,
        "defaults": defaults,
        "voices": ", ".join(row.voices) or "all",
        "max_tasks": limit,
        "daily_audio_s": audio,
        "daily_characters": row.daily_characters or "no limit",
    }
    show_fields({name.removesuffix("_s"): value for name, value in shown.items()})


async def _found(store: Store, appkey: str) -> ProjectRow:
    row = await store.project(appkey)
    if row is None:
        raise _no_project(appkey)
    return row


def _no_project(appkey: str) -> NotThere:
    return NotThere(f"There is no project {appkey}; 'funspeech project list' has all")


def _new_appkey() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(_APPKEY_CHARS))


# Changes


async def _with_changes(
    row: ProjectRow, changes: Changes, config: Config, store: Store
) -> ProjectRow:
    """The project with the changes, checked as far as this machine knows."""
    values: dict[str, object] = {}
    if changes.name is not None:
        values["name"] = changes.name
    if changes.enabled is not None:
        values["enabled"] = changes.enabled
    if changes.model is not None:
        values["model"] = _model(changes.model, config)
    if changes.rate is not None:
        values["max_rate"] = changes.rate or None
    if changes.language is not None:
        values["language"] = changes.language or None
    if changes.vocabulary is not None:
        values["vocabulary_id"] = await _vocabulary(changes.vocabulary, store)
    if changes.defaults:
        values["defaults"] = _defaults(row.defaults, changes.defaults)
    if changes.voices:
        values["voices"] = tuple(voice for voice in changes.voices if voice)
    if changes.max_tasks is not None:
        values["max_tasks"] = _max_tasks(changes.max_tasks)
    if changes.daily_audio is not None:
        values["daily_audio_s"] = seconds(changes.daily_audio)
    if changes.daily_characters is not None:
        values["daily_characters"] = changes.daily_characters
    made = msgspec.structs.replace(row, **values)
    check_project(made)
    _check_defaults(made)
    return made


def _model(label: str, config: Config) -> str:
    try:
        models = [name for name in recognition_models(config) if name]
    except ConfigError as error:
        fail(str(error))
    if label and label not in models:
        there = f"it has {', '.join(models)}" if models else "it has none, or is not set"
        raise InvalidRequest(f"There is no model {label} in MODELS_FILE: {there}")
    return label


async def _vocabulary(named: str, store: Store) -> str | None:
    return (await find_vocabulary(store, named)).id if named else None


def _defaults(before: Mapping[str, object], given: Sequence[str]) -> dict[str, object]:
    """The values stay texts, which every door takes as it takes a query string's."""
    defaults = dict(before)
    for each in given:
        name, equals, value = each.partition("=")
        name = name.strip()
        if not name or not equals:
            raise InvalidRequest(f"--default {each}: expected NAME=VALUE, or NAME= for none")
        if value.strip():
            defaults[name] = value.strip()
        elif name not in defaults:
            raise InvalidRequest(f"--default {each}: there is no default {name} to take away")
        else:
            del defaults[name]
    return defaults


def _max_tasks(text: str) -> int | None:
    if text.strip().lower() == _OWN_LIMIT:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequest(f"--max-tasks {text}: expected a number, 0 for no limit, or default")
    return int(text)


def _check_defaults(row: ProjectRow) -> None:
    try:
        check_defaults(_project(row), recognition_formats=FORMATS, synthesis_formats=ENCODABLE)
    except SpeechError as error:
        raise InvalidRequest(f"These defaults would be refused: {error.text}") from None


def _project(row: ProjectRow) -> Project:
    """As far as the checks look at it."""
    return Project(
        max_rate=row.max_rate,
        language=row.language,
        defaults=row.defaults,
        voices=frozenset(voice.casefold() for voice in row.voices),
    )


def _advise(row: ProjectRow) -> None:
    if needs_a_voice(_project(row)):
        note(
            "requests that name no voice are refused now, since the usual voice is not among the "
            "project's; --default voice=NAME gives them one that is"
        )
    if row.appkey == DEFAULT_APPKEY and not row.enabled:
        note("clients whose appkey has no project of its own are refused now")


# What people see


def _names(vocabularies: Sequence[VocabularyRow]) -> dict[str, str]:
    return {row.id: row.name for row in vocabularies}


def _state(row: ProjectRow) -> str:
    return "enabled" if row.enabled else "disabled"


def _fields(row: ProjectRow, vocabularies: Mapping[str, str]) -> dict[str, object]:
    return {
        "appkey": row.appkey,
        "name": row.name,
        "enabled": row.enabled,
        "model": row.model,
        "max_rate": row.max_rate,
        "language": row.language,
        "vocabulary_id": row.vocabulary_id,
        "vocabulary": vocabularies.get(row.vocabulary_id or ""),
        "defaults": dict(row.defaults),
        "voices": list(row.voices),
        "max_tasks": row.max_tasks,
        "daily_audio_s": row.daily_audio_s,
        "daily_characters": row.daily_characters,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


def _summary(row: ProjectRow, vocabularies: Mapping[str, str]) -> str:
    """What is set, in few words."""
    parts = [
        row.model and f"model {row.model}",
        row.max_rate and f"{row.max_rate} Hz",
        row.language,
        row.vocabulary_id and f"words {vocabularies.get(row.vocabulary_id, row.vocabulary_id)}",
        *(f"{name}={value}" for name, value in row.defaults.items()),
        row.voices and f"voices {' '.join(row.voices)}",
        row.max_tasks is not None and f"tasks {row.max_tasks or 'no limit'}",
        row.daily_audio_s and f"{duration(row.daily_audio_s)} of audio a day",
        row.daily_characters and f"{row.daily_characters} characters a day",
    ]
    return ", ".join(str(part) for part in parts if part)
