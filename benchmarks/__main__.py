"""``python -m benchmarks [NAME …]``: measure, and print a table and a line of JSON for each."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Final, cast

import uvloop

from benchmarks import (
    embedded,
    machine,
    memory,
    partials,
    report,
    startup,
    stopping,
    streaming,
    synthesis,
)
from benchmarks.measure import ProcessChanged
from benchmarks.options import Options
from benchmarks.server import ServerEnded

BENCHMARKS: Final[dict[str, ModuleType]] = {
    "streaming": streaming,
    "partials": partials,
    "stopping": stopping,
    "synthesis": synthesis,
    "memory": memory,
    "startup": startup,
    "embedded": embedded,
}

TIMEOUT_S: Final = 120.0
"""A measurement with its default length takes 5 to 35 s; more than this beyond what was asked for
is a hang."""


def main() -> None:
    """Run what the arguments name, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--seconds", type=float, help="length of the measured part")
    parser.add_argument("--sessions", type=int, help="clients at a time")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    options = Options(arguments.seconds, arguments.sessions)
    try:
        uvloop.run(_run(arguments.names or list(BENCHMARKS), options))
    except (ServerEnded, ProcessChanged, TimeoutError) as error:
        sys.exit(f"no figures: {error or 'it took too long'}")


async def _run(names: list[str], options: Options) -> None:
    described = machine.describe()
    print("\n".join(f"{key:<12} {value}" for key, value in described.items()))
    print("The load generator has a process of its own on the same cores.\n", flush=True)
    for name in names:
        module = BENCHMARKS[name]
        measure = cast("Callable[[Options], Awaitable[list[report.Figure]]]", module.measure)
        async with asyncio.timeout(TIMEOUT_S + (options.seconds or 0.0) * 2):
            figures = await measure(options)
        print(report.table(f"{name}: {module.TITLE}", figures))
        print(report.json_line(name, figures, described), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
