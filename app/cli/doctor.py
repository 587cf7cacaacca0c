"""``funspeech doctor``: is everything there, and what to do if not."""

from __future__ import annotations

from typing import Final

import typer

from app.cli.checks import Finding, examine

_COLOURS: Final = {"OK": typer.colors.GREEN, "WARN": typer.colors.YELLOW, "FAIL": typer.colors.RED}


def doctor() -> None:
    """Print one line per finding; the exit code is 1 if one of them is a FAIL."""
    levels = set()
    for finding in examine():
        levels.add(finding.level)
        _show(finding)
    if "FAIL" in levels:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    level = typer.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
    typer.echo(f"{level}  {finding.subject:<12}{finding.text}")
    if finding.remedy:
        typer.echo(f"{'':<18}-> {finding.remedy}")
