"""``funspeech eval``: what a configuration makes of the owner's recordings, or two side by side."""

from __future__ import annotations

import asyncio
import json as jsonlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from app.cli.evaluate_figures import Figures, failures, figures
from app.cli.evaluate_manifest import BadManifest, Clip, read_manifest
from app.cli.evaluate_progress import Display
from app.cli.evaluate_server import ServerEnded, changed, log_file, logging_to_file, serving, spent
from app.cli.evaluate_stream import Pace, Run, stream
from app.cli.target import Target, complain, fail, resolve
from app.client.errors import AccessRefused, ClientError, NlsTaskFailed
from app.client.nls import NlsClient
from app.client.wire import Timeouts
from app.core.config import Config, ConfigError, load
from app.engines.registry import ENGINES

if TYPE_CHECKING:
    from app.cli.evaluate_figures import Judged
    from app.core.log_sink import LogSink

_PATIENCE: Final = Timeouts(started_s=60.0, idle_s=600.0)
"""A server that is as busy as can be is slow; that is a figure and no failure."""


@dataclass(frozen=True, slots=True)
class Side:
    """What is to be evaluated: ``settings`` (NAME=VALUE, over those of .env) for a server of our
    own, or the ``url`` of one that runs, with its ``token``."""

    settings: Sequence[str] = ()
    url: str | None = None
    token: str | None = None

    @property
    def given(self) -> bool:
        """Whether the command line says anything of it."""
        return bool(self.settings or self.url)

    @property
    def described(self) -> str:
        """For people; without the token."""
        return self.url or " ".join(self.settings) or "the settings as they are"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """``most``: clips to list. The files are written if they are given."""

    most: int = 10
    json: Path | None = None
    plot: Path | None = None
    copy_to: Path | None = None


def evaluate(manifest: Path, a: Side, b: Side, pace: Pace, output: Output, *, seed: int) -> None:
    """Stream the manifest's clips through one or two configurations, and print what came of it.

    The exit code is 1 where nothing could be compared, or a clip is missing from the comparison.
    """
    for name, side in (("a", a), ("b", b)):
        if side.settings and side.url:
            raise typer.BadParameter(f"--{name} is for a server of its own, not for --{name}-url")
    try:
        found = read_manifest(manifest)
    except BadManifest as error:
        fail(str(error))
    for fault in found.faults:
        complain(fault)
    sides = {"A": a, "B": b} if b.given else {"A": a}
    runs = _run_all(found.clips, sides, pace)
    if not runs:
        raise typer.Exit(1)
    incomplete = len(runs) < len(sides) or bool(found.faults)
    incomplete = incomplete or any(failures(found.clips, run) for run in runs.values())
    result = figures(found.clips, runs, numerals=pace.numerals, paced=pace.speed > 0, seed=seed)
    if not result.judged:
        fail("no clip was recognised")
    described = {name: sides[name].described for name in runs}
    _print(result, described, {name: run.engine for name, run in runs.items()}, output.most)
    _write(found.clips, runs, result, described, output)
    if incomplete:
        raise typer.Exit(1)


# --- running ---------------------------------------------------------------------------------


def _run_all(clips: Sequence[Clip], sides: Mapping[str, Side], pace: Pace) -> dict[str, Run]:
    """One after another: side by side they would compete for the machine. Those that could be run:
    what A took an hour for is not thrown away because B does not start."""
    if all(side.url is not None for side in sides.values()):
        return _through_all(clips, sides, {}, pace, None)
    try:
        config = load()
        configs = {name: _config(name, side, config) for name, side in sides.items()}
        with logging_to_file(config) as sink:
            return _through_all(clips, sides, configs, pace, sink)
    except ConfigError as error:
        fail(str(error))


def _config(name: str, side: Side, config: Config) -> Config:
    settings = {}
    for setting in side.settings:
        variable, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--{name.lower()} {setting}: give NAME=VALUE")
        settings[variable.strip()] = value
    return changed(config, settings)


def _through_all(
    clips: Sequence[Clip],
    sides: Mapping[str, Side],
    configs: Mapping[str, Config],
    pace: Pace,
    sink: LogSink | None,
) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for name, side in sides.items():
        with Display(f"{name}: {side.described}", len(clips)) as display:
            if side.url is not None or sink is None:
                work = _through(resolve(side.url, side.token), clips, pace, display)
            else:
                work = _through_our_own(name, side, configs[name], sink, clips, pace, display)
            try:
                runs[name] = asyncio.run(work)
            except ServerEnded as error:
                complain(f"{name}: {error}; its log is {log_file(configs[name])}")
                break
            except ClientError as error:
                complain(f"{name}: {_advice(name, error)}")
                break
        for clip, outcome in failures(clips, runs[name]):
            complain(outcome.failure if outcome.unusable else f"{clip.path}: {outcome.failure}")
        unusable = {id for id, outcome in runs[name].outcomes.items() if outcome.unusable}
        clips = [clip for clip in clips if clip.id not in unusable]
    return runs


def _advice(name: str, error: ClientError) -> str:
    if isinstance(error, AccessRefused | NlsTaskFailed):
        return f"{error}; give the server's token with --{name.lower()}-token"
    return str(error)


async def _through(target: Target, clips: Sequence[Clip], pace: Pace, display: Display) -> Run:
    client = NlsClient(target.url, target.token, target.appkey, timeouts=_PATIENCE, ssl=target.tls)
    display.streaming()
    return await stream(client, clips, pace, display.done)


async def _through_our_own(
    name: str,
    side: Side,
    config: Config,
    sink: LogSink,
    clips: Sequence[Clip],
    pace: Pace,
    display: Display,
) -> Run:
    async with serving(config, sink) as server:
        for fault in _of_other_engines(side.settings, server.engine):
            complain(f"{name}: {fault}")
        before = server.cpu_s()
        found = await _through(server.target, clips, pace, display)
        found.engine = ": ".join(filter(None, (server.engine, server.notice)))
        found.cpu_s = spent(before, server.cpu_s())
        for name in server.restarts:
            complain(f"{name} died and was started again; see {log_file(config)}")
    return found


def _of_other_engines(settings: Sequence[str], engine: str) -> Iterator[str]:
    """What is wrong with settings (NAME=VALUE) of an engine that is not the one that recognises:
    they change nothing, and nothing would be compared."""
    for setting in settings:
        variable = setting.partition("=")[0].strip()
        owner = next((each for each in ENGINES if variable.startswith(f"{each.upper()}_")), engine)
        if owner != engine:
            yield (
                f"{variable} changes nothing, because the engine is {engine}; put "
                f"ASR_ENGINE={owner} before the command"
            )


# --- results ---------------------------------------------------------------------------------


def _print(
    found: Figures, described: Mapping[str, str], engines: Mapping[str, str], most: int
) -> None:
    from rich.console import Console

    from app.cli.evaluate_chart import chart
    from app.cli.evaluate_report import listing, summary, table

    console = Console(highlight=False)
    for name, text in described.items():
        console.print(f"{name}: {text}", markup=False, soft_wrap=True)
        if engines[name]:
            console.print(f"   {engines[name]}", markup=False, soft_wrap=True)
    console.print(table(found))
    for line in summary(found):
        console.print(line, markup=False, soft_wrap=True)
    for row in chart(found, console.width):
        console.print(row, soft_wrap=True)
    for line in listing(found, found.to_listen_to(most)):
        console.print(line, markup=False, soft_wrap=True)


def _write(
    clips: Sequence[Clip],
    runs: Mapping[str, Run],
    found: Figures,
    described: Mapping[str, str],
    output: Output,
) -> None:
    """The files that were asked for."""
    from app.cli.evaluate_picture import picture
    from app.cli.evaluate_result import as_json

    try:
        if output.json is not None:
            result = as_json(clips, runs, found, described)
            text = jsonlib.dumps(result, ensure_ascii=False, indent=1)
            output.json.write_text(f"{text}\n", encoding="utf-8")
        if output.plot is not None:
            output.plot.write_bytes(picture(found))
        if output.copy_to is not None:
            _copy(found, found.to_listen_to(output.most), output.copy_to)
    except OSError as error:
        fail(f"{error.filename or 'the results'}: {error.strerror}")


def _copy(found: Figures, clips: Sequence[Judged], folder: Path) -> None:
    """The clips, numbered in the order of the list, each with a .txt of its texts."""
    from app.cli.evaluate_report import listing

    folder.mkdir(parents=True, exist_ok=True)
    for number, judged in enumerate(clips, 1):
        copied = folder / f"{number:03}-{judged.clip.path.name}"
        shutil.copyfile(judged.clip.path, copied)
        texts = "\n".join(listing(found, [judged])).strip() + "\n"
        copied.with_name(f"{copied.name}.txt").write_text(texts, encoding="utf-8")
