"""``funspeech models``: the model files of the engines, on this machine and without the server."""

from __future__ import annotations

import contextlib
import json as jsonlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import typer

from app.cli.better import ROLES, program, wanted
from app.core.config import Config, ConfigError, load
from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import registry
from app.engines.models import Advance, Model, ModelFiles, Report

_MB: Final = 1_000_000
_LINE_S: Final = 10.0
_NAME_CHARS: Final = 80
_PURPOSE_CHARS: Final = 18
"""Width of a column that can be read: rich would give it what names and sizes leave."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """The models of one engine, with what the settings say of them."""

    engine: str
    files: ModelFiles
    settings: Mapping[str, object]

    @property
    def cache(self) -> Path:
        """The folder of downloaded models."""
        return registry.models_folder(self.settings)


def list_models(*, json: bool) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere, or JSON."""
    config = _settings()
    shelves, needed = _shelves(config), dict[str, list[str]]()
    for shelf in shelves:
        try:
            needed[shelf.engine] = _needed(config, shelf)
        except EngineNotUsable as error:
            needed[shelf.engine] = []
            _say(str(error))
    rows = [row for shelf in shelves for row in _rows(shelf, needed[shelf.engine])]
    if json:
        typer.echo(jsonlib.dumps(rows, ensure_ascii=False, indent=2))
        return
    if sys.stdout.isatty():
        _table(rows)
    else:
        for row in rows:
            typer.echo("\t".join(_cells(row)))


def pull(names: Sequence[str]) -> None:
    """Fetch these models, or all that the settings need; 1 if one cannot be had, 130 after a
    Ctrl-C."""
    config = _settings()
    pairs = _named(config, names) if names else _settings_need(config, _to_pull)
    if not pairs:
        typer.echo(
            f"the engines of these settings need no models; '{program()} models list' has all"
        )
        return
    if config.offline:
        _fail(
            f"OFFLINE=true forbids downloads; OFFLINE=false {program()} models pull allows this one"
        )
    failed = False
    try:
        with _progress() as report:
            for shelf, name in pairs:
                failed |= not _pull(shelf, name, report)
    except KeyboardInterrupt:
        _say("broken off; the same command goes on from here")
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


def verify(names: Sequence[str]) -> None:
    """Compare these models, or all that are here or needed, with their checksums; 1 if one is
    missing or damaged."""
    config = _settings()
    pairs = _named(config, names) if names else _settings_need(config, _needed)
    if not names:
        pairs += [pair for pair in _here(config) if pair not in pairs]
    failed = False
    with _progress() as report:
        for shelf, name in pairs:
            failed |= not _verify(shelf, name, report)
    if failed:
        raise typer.Exit(1)


def _settings() -> Config:
    try:
        return load()
    except ConfigError as error:
        _fail(str(error))


def _shelves(config: Config) -> list[Shelf]:
    """All engines that download models, the one that recognition would rather take first."""
    found = []
    for name in sorted(registry.ENGINES, key=lambda n: -(registry.ENGINES[n].auto or 0)):
        files = registry.model_files(name)
        if files is not None:
            found.append(Shelf(name, files, config.engine_settings(name)))
    return found


def _needed(config: Config, shelf: Shelf) -> list[str]:
    """The models of this engine that the settings need, for recognition and for synthesis: those
    of the engine that they name or, where they leave the choice to the server, of the best of the
    installed ones.

    Raises:
        EngineNotUsable: a setting has a value that cannot be.
    """
    names: list[str] = []
    for role in ROLES:
        if _engine(config, role) == shelf.engine:
            card = registry.uses_card(wanted(config, role)[1])
            names += shelf.files.needed(shelf.settings, role, on_card=card)
    return names


def _to_pull(config: Config, shelf: Shelf) -> list[str]:
    """What to fetch for these settings. As for a card, which needs the VAD besides: it is small,
    and the files may be for another machine. Raises as :func:`_needed`."""
    names: list[str] = []
    for role in ROLES:
        if _engine(config, role) == shelf.engine:
            names += shelf.files.to_pull(shelf.settings, role, on_card=True)
    return names


def _engine(config: Config, role: Role) -> str | None:
    engine, devices = wanted(config, role)
    if engine != "auto":
        return engine
    return registry.recommended(role, config.engine_settings, devices)


def _settings_need(
    config: Config, names: Callable[[Config, Shelf], list[str]]
) -> list[tuple[Shelf, str]]:
    try:
        return [(shelf, name) for shelf in _shelves(config) for name in names(config, shelf)]
    except EngineNotUsable as error:
        _fail(str(error))


def _named(config: Config, names: Sequence[str]) -> list[tuple[Shelf, str]]:
    by_name = {model.name: shelf for shelf in _shelves(config) for model in shelf.files.models()}
    unknown = [name for name in names if name.lower() not in by_name]
    if unknown:
        shown = ", ".join(map(_shown, unknown))
        _fail(f"there is no model {shown}; the models are: {', '.join(by_name)}")
    return [(by_name[name.lower()], name.lower()) for name in names]


def _shown(name: str) -> str:
    """A name as it was given, fit for a terminal."""
    return "".join(char for char in name[:_NAME_CHARS] if char.isprintable()) or "''"


def _here(config: Config) -> list[tuple[Shelf, str]]:
    return [
        (shelf, model.name)
        for shelf in _shelves(config)
        for model in shelf.files.models()
        if shelf.files.inspect(model.name, shelf.cache).folder is not None
    ]


def _pull(shelf: Shelf, name: str, report: Report) -> bool:
    try:
        pulled = shelf.files.pull(name, shelf.cache, report, shelf.settings)
    except EngineNotUsable as error:
        _say(str(error))
        return False
    if pulled.fetched:
        typer.echo(f"{name}: {_size(pulled.fetched)} downloaded to {pulled.folder}")
    else:
        typer.echo(f"{name}: nothing to do, it is whole, in {pulled.folder}")
    return True


def _verify(shelf: Shelf, name: str, report: Report) -> bool:
    verdict = shelf.files.verify(name, shelf.cache, report)
    if verdict.faults:
        typer.echo(f"{name}: {'; '.join(verdict.faults)}")
        if name in {model.name for model in shelf.files.models()}:
            _say(f"mend it with: {program()} models pull {name}")
        return False
    if verdict.checked:
        note = f"; {verdict.note}" if verdict.note else ""
        typer.echo(f"{name}: whole, in {verdict.folder}{note}")
    else:
        typer.echo(
            f"{name}: all files are there, in {verdict.folder}, but their checksums are not known: "
            f"it was not fetched with '{program()} models pull', which would compare them with the "
            "hub"
        )
    return True


# What people see


def _rows(shelf: Shelf, needed: Sequence[str]) -> Iterator[dict[str, object]]:
    published = shelf.files.models()
    for model in published:
        yield {
            "name": model.name,
            "engine": shelf.engine,
            "purpose": model.purpose,
            "languages": list(model.languages),
            "sample_rate": model.sample_rate,
            "size_bytes": model.size_bytes,
            "licence": model.licence,
            "source": _source(model),
            "needed": model.name in needed,
            **_found(shelf, model.name),
        }
    names = {model.name for model in published}
    for name in dict.fromkeys(name for name in needed if name not in names):
        yield {
            "name": name,
            "engine": shelf.engine,
            "purpose": "a folder of yours",
            "languages": [],
            "sample_rate": None,
            "size_bytes": None,
            "licence": None,
            "source": None,
            "needed": True,
            **_found(shelf, name),
        }


def _found(shelf: Shelf, name: str) -> dict[str, object]:
    verdict = shelf.files.inspect(name, shelf.cache)
    state = "here"
    if verdict.faults:
        state = "damaged" if verdict.damaged else "unfinished" if verdict.folder else "absent"
    return {"state": state, "folder": str(verdict.folder) if verdict.folder else None}


def _source(model: Model) -> str:
    return f"{model.source}@{model.revision}"


def _cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """A row as texts: name, purpose, languages, size, needed, state and folder."""
    languages, size = row["languages"], row["size_bytes"]
    assert isinstance(languages, list)
    state = f"{row['state']}: {row['folder']}" if row["folder"] else str(row["state"])
    needed = "needed" if row["needed"] else "-"
    name, purpose = str(row["name"]), str(row["purpose"])
    shown = _size(size) if isinstance(size, int) else "-"
    return (name, purpose, " ".join(languages), shown, needed, state)


def _size(count: int) -> str:
    return f"{max(count / _MB, 0.1):,.1f} MB" if count < 10 * _MB else f"{count / _MB:,.0f} MB"


def _table(rows: Sequence[Mapping[str, object]]) -> None:
    """The folders come below it, each on a line of its own: they are too long for a column."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    whole = (Column(name, no_wrap=True) for name in ("Size", "Needed", "Here"))
    purpose = Column("Purpose", min_width=_PURPOSE_CHARS)
    table = Table(Column("Model", no_wrap=True), purpose, "Languages", *whole)
    for row in rows:
        *cells, _ = _cells(row)
        table.add_row(*map(Text, (*cells, str(row["state"]))))
    Console().print(table)
    for row in rows:
        if row["folder"]:
            typer.echo(f"{row['name']}: {row['folder']}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Advance], None]]:
    """Shows on standard error how far things are: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else what goes to a pipe would come to the terminal
    )
    with bars:
        tasks: dict[str, TaskID] = {}  # the one that is shown, by its description

        def report(advance: Advance) -> None:
            text = f"{advance.doing} {advance.model}"
            if text not in tasks:
                for old in tasks.values():
                    bars.remove_task(old)
                tasks.clear()
                tasks[text] = bars.add_task(text)
            bars.update(tasks[text], completed=advance.done, total=advance.total)

        yield report


class _Lines:
    """A line when something begins, and now and then while it goes on."""

    def __init__(self) -> None:
        self._shown = ""
        self._at = 0.0

    def __call__(self, advance: Advance) -> None:
        text, now = f"{advance.doing} {advance.model}", time.monotonic()
        if text != self._shown or now - self._at >= _LINE_S:
            self._shown, self._at = text, now
            _say(f"{text}: {_size(advance.done)} of {_size(advance.total)}")


def _say(text: str) -> None:
    typer.echo(f"funspeech: {text}", err=True)


def _fail(text: str) -> NoReturn:
    _say(text)
    raise typer.Exit(1)
