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

from app.core.config import Config, ConfigError, load
from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import registry
from app.engines.models import Advance, Model, ModelFiles, Report

_MB: Final = 1_000_000
_LINE_S: Final = 10.0


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
    rows = [row for shelf in _shelves(config) for row in _rows(shelf, config)]
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
    # As for a card, which needs the VAD besides: it is small, and the files may be for another
    # machine.
    wanted = _wanted(config, names, on_card=True)
    if not wanted:
        typer.echo("the engines of these settings need no models; 'funspeech models list' has all")
        return
    if config.offline:
        _fail("OFFLINE=true forbids downloads; OFFLINE=false funspeech models pull allows this one")
    failed = False
    try:
        with _progress() as report:
            for shelf, name in wanted:
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
    wanted = _wanted(config, names, on_card=None)
    if not names:
        wanted += [pair for pair in _here(config) if pair not in wanted]
    failed = False
    with _progress() as report:
        for shelf, name in wanted:
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


def _needed(config: Config, shelf: Shelf, *, on_card: bool | None) -> list[str]:
    """The models of this engine that the settings need, for recognition and for synthesis: those
    of the engine that they name or, where they leave the choice to the server, of the best of the
    installed ones. ``on_card`` None: as the settings' devices are."""
    roles: tuple[tuple[Role, str, Sequence[str]], ...] = (
        ("asr", config.asr_engine, config.asr_devices()),
        ("tts", config.tts_engine, config.tts_devices()),
    )
    names: list[str] = []
    for role, wanted, devices in roles:
        engine = registry.recommended(role, devices) if wanted == "auto" else wanted
        if engine == shelf.engine:
            card = registry.uses_card(devices) if on_card is None else on_card
            names += shelf.files.needed(shelf.settings, role, on_card=card)
    return names


def _wanted(
    config: Config, names: Sequence[str], *, on_card: bool | None
) -> list[tuple[Shelf, str]]:
    shelves = _shelves(config)
    if not names:
        return [
            (shelf, name) for shelf in shelves for name in _needed(config, shelf, on_card=on_card)
        ]
    by_name = {model.name: shelf for shelf in shelves for model in shelf.files.models()}
    unknown = [name for name in names if name.lower() not in by_name]
    if unknown:
        _fail(f"there is no model {', '.join(unknown)}; the models are: {', '.join(by_name)}")
    return [(by_name[name.lower()], name.lower()) for name in names]


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
            _say(f"mend it with: funspeech models pull {name}")
        return False
    if verdict.checked:
        note = f"; {verdict.note}" if verdict.note else ""
        typer.echo(f"{name}: whole, in {verdict.folder}{note}")
    else:
        typer.echo(
            f"{name}: all files are there, in {verdict.folder}, but their checksums are not known: "
            "it was not fetched with 'funspeech models pull', which would compare them with the hub"
        )
    return True


# What people see


def _rows(shelf: Shelf, config: Config) -> Iterator[dict[str, object]]:
    needed = _needed(config, shelf, on_card=None)
    for model in shelf.files.models():
        verdict = shelf.files.inspect(model.name, shelf.cache)
        state = "here" if not verdict.faults else "damaged" if verdict.folder else "absent"
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
            "state": state,
            "folder": str(verdict.folder) if verdict.folder else None,
        }


def _source(model: Model) -> str:
    return f"{model.source}@{model.revision}"


def _cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """A row as texts: name, purpose, languages, size, needed, state and folder."""
    languages, size = row["languages"], row["size_bytes"]
    assert isinstance(languages, list) and isinstance(size, int)
    state = f"{row['state']}: {row['folder']}" if row["folder"] else str(row["state"])
    needed = "needed" if row["needed"] else "-"
    name, purpose = str(row["name"]), str(row["purpose"])
    return (name, purpose, " ".join(languages), _size(size), needed, state)


def _size(count: int) -> str:
    return f"{max(count / _MB, 0.1):,.1f} MB" if count < 10 * _MB else f"{count / _MB:,.0f} MB"


def _table(rows: Sequence[Mapping[str, object]]) -> None:
    """The folders come below it, each on a line of its own: they are too long for a column."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    whole = (Column(name, no_wrap=True) for name in ("Size", "Needed", "Here"))
    table = Table(Column("Model", no_wrap=True), "Purpose", "Languages", *whole)
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
