"""``funspeech voices``: the voices of the running server."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence

import msgspec
import typer

from app.cli.target import Target, resolve, run
from app.client.rest import RestClient, VoiceInfo


def voices(*, url: str | None, token: str | None, json: bool) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere, or JSON."""
    found = run(_fetch(resolve(url, token)))
    if json:
        rows = [msgspec.to_builtins(voice) for voice in found]
        typer.echo(jsonlib.dumps(rows, ensure_ascii=False, indent=2))
    elif _is_terminal():
        _table(found)
    else:
        for voice in found:
            typer.echo("\t".join(_row(voice)))


async def _fetch(target: Target) -> list[VoiceInfo]:
    async with RestClient(target.url, target.token, target.appkey, ssl=target.tls) as rest:
        return await rest.voices()


def _row(voice: VoiceInfo) -> tuple[str, ...]:
    return (voice.name, voice.language, voice.gender, voice.type, voice.description)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _table(found: Sequence[VoiceInfo]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("Voice", "Language", "Gender", "Type", "Description")
    for voice in found:
        table.add_row(*(Text(cell) for cell in _row(voice)))
    Console().print(table)
