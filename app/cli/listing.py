"""Lists, as a table for people, as lines for other programs, or as JSON."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping, Sequence

import typer


def show_list(
    header: Sequence[str],
    cells: Sequence[Sequence[str]],
    rows: Sequence[Mapping[str, object]],
    *,
    json: bool,
) -> None:
    """Print ``cells`` as a table on a terminal, tab-separated elsewhere; or ``rows`` as JSON."""
    if json:
        show_json(rows)
    elif sys.stdout.isatty():
        _table(header, cells)
    else:
        for each in cells:
            typer.echo("\t".join(each))


def show_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(jsonlib.dumps(value, ensure_ascii=False, indent=2))


def show_fields(fields: Mapping[str, object]) -> None:
    """Print a name and its value in each line; None and what is empty is a dash."""
    width = max(map(len, fields))
    for name, value in fields.items():
        shown = value if value not in (None, "", [], {}) else "-"
        typer.echo(f"{name:<{width}}  {shown}")


def _table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header)
    for each in cells:
        table.add_row(*map(Text, each))
    Console().print(table)
