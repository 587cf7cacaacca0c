"""``python -m benchmarks [NAME …] [--full]``: measure, and print a table and a line of JSON for
each."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Final, cast

import uvloop

from benchmarks import (
    ageing,
    asr_batching,
    audio_costs,
    embedded,
    machine,
    memory,
    neighbours,
    partials,
    report,
    sherpa_batching,
    startup,
    stopping,
    streaming,
    synthesis,
)
from benchmarks.asr_funasr import ReferenceFailed
from benchmarks.measure import ProcessChanged
from benchmarks.neighbours import DisturberFailed
from benchmarks.options import FULL_RUNS, FULL_SECONDS, Options
from benchmarks.server import ServerEnded

BENCHMARKS: Final[dict[str, ModuleType]] = {
    "streaming": streaming,
    "partials": partials,
    "stopping": stopping,
    "synthesis": synthesis,
    "memory": memory,
    "startup": startup,
    "embedded": embedded,
    "ageing": ageing,
    "neighbours": neighbours,
    "audio": audio_costs,
    "asr_batching": asr_batching,
    "sherpa_batching": sherpa_batching,
}

ON_REQUEST: Final = frozenset({"asr_batching", "sherpa_batching"})
"""Run only by name: they take ten minutes and more (half an hour with what is measured in full), up
to 1.5 GB of disk, and engines that not every installation has."""

SINGLE: Final = frozenset({"memory", "startup", "neighbours"}) | ON_REQUEST
"""Run once where others run several times: the second takes medians itself, the others are made
of ratios to what was measured just before."""

TIMEOUT_S: Final = 180.0
"""A measurement with its default length takes 5 to 75 s; more than this beyond what was asked for
is a hang."""


def main() -> None:
    """Run what the arguments name, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--seconds", type=float, help="length of each measured part")
    parser.add_argument("--sessions", type=int, help="clients at a time")
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"parts of {FULL_SECONDS:.0f} s, and the median of {FULL_RUNS} runs",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the lines of JSON to FILE")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    seconds = arguments.seconds or (FULL_SECONDS if arguments.full else None)
    options = Options(seconds, arguments.sessions, arguments.full)
    try:
        uvloop.run(_run(arguments.names or _by_default(), options, arguments.json))
    except (ServerEnded, ProcessChanged, DisturberFailed, ReferenceFailed, TimeoutError) as error:
        sys.exit(f"no figures: {error or 'it took too long'}")


def _by_default() -> list[str]:
    return [name for name in BENCHMARKS if name not in ON_REQUEST]


async def _run(names: list[str], options: Options, json_file: Path | None) -> None:
    described = machine.describe()
    print("\n".join(f"{key:<12} {value}" for key, value in described.items()))
    print("The load generator has a process of its own on the same cores.\n", flush=True)
    for name in names:
        figures = await _measure(name, options)
        line = report.json_line(name, figures, described, options)
        print(report.table(f"{name}: {BENCHMARKS[name].TITLE}", figures))
        print(line, end="\n\n", flush=True)
        if json_file is not None:
            _add(json_file, line)


async def _measure(name: str, options: Options) -> list[report.Figure]:
    module = BENCHMARKS[name]
    measure = cast("Callable[[Options], Awaitable[list[report.Figure]]]", module.measure)
    limit_s = getattr(module, "TIMEOUT_S", TIMEOUT_S) + (options.seconds or 0.0) * getattr(
        module, "PARTS", 2
    )
    runs = []
    for _ in range(FULL_RUNS if options.full and name not in SINGLE else 1):
        async with asyncio.timeout(limit_s):
            runs.append(await measure(options))
    return report.combined(runs) if len(runs) > 1 else runs[0]


def _add(file: Path, line: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")


if __name__ == "__main__":
    main()
