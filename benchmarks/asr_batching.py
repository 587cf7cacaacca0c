"""``python -m benchmarks.asr_batching [--quick]``: what batching across sessions gives.

    engine  CPU time of a chunk: FunASR, one stream after the other, against ours, 1 to 16 at a time
    server  streams that the whole server sustains in real time: one in a step against 16
    gpu     the engine on a card, and the server with it, where there is one

The model has the published size and random weights: speed does not depend on their values, only on
how many tokens they find, which is seen to. The last line is one JSON object; null stands for what
could not be measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks import asr_server, machine
from benchmarks.asr_funasr import ReferenceFailed
from benchmarks.options import Options
from benchmarks.report import Figure, table
from benchmarks.server import ServerEnded

if TYPE_CHECKING:
    from benchmarks.asr_engine import Costs
    from benchmarks.asr_gpu import Card

TITLE: Final = "FunASR engine: streams per core, through the whole server, and on a GPU"
TIMEOUT_S: Final = 7200.0
"""A hang; the full length takes half an hour."""

PARTS: Final = ("engine", "server", "gpu")

GUESSES: Final = (6, 16)
"""Streams sustained with one in a step, and with many, where the engine was not measured."""

_LIKELY: Final = 0.6
"""Share of what the engine's cost alone would allow."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of the parts that were asked for. ``gpu_streams``: that a server with the
    card sustains."""

    costs: Costs | None = None
    found: asr_server.Found | None = None
    cards: tuple[Card, ...] = ()
    gpu_streams: int | None = None

    def figures(self) -> list[Figure]:
        """For the table."""
        rows: list[Figure] = []
        for part in (self.costs, self.found, *self.cards):
            rows += part.figures() if part else []
        if self.gpu_streams is not None:
            rows.append(Figure("server: streams in real time, on the GPU", self.gpu_streams, ""))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """For JSON; None for what was not measured."""
        costs, found = self.costs, self.found
        compared = costs if costs and costs.has_reference else None
        return {
            "fp32_b8": compared and compared.ratio(compared.base, "fp32_b8"),
            "int8_b16": compared and compared.ratio(compared.base, "int8_b16"),
            "age_2h": costs and costs.ratio("old", "young"),
            "server_cap1_streams": found and found.single,
            "server_cap16_streams": found and found.many,
            "server_ratio": found and found.ratio,
            "server_mean_batch_16": found and found.mean_batch,
            "server_others": found and found.others,
            "engine": costs and costs.as_dict(),
            "gpu": [card.as_dict() for card in self.cards] or None,
            "gpu_streams": self.gpu_streams,
        }


async def measure(options: Options) -> list[Figure]:
    """All parts, the quick way unless ``options.full``."""
    with _model(None) as folder:
        return (await run(folder, PARTS, quick=not options.full)).figures()


async def run(folder: Path, parts: Collection[str], *, quick: bool) -> Measured:
    """Measure these parts, with the model in ``folder``, and show what they are about. What a part
    could not measure is missing.

    Raises:
        ReferenceFailed: FunASR is installed and does not work.
    """
    # torch takes a second to import, and not every installation has it.
    from benchmarks import asr_engine, asr_gpu

    timing = asr_server.QUICK if quick else asr_server.FULL
    costs = found = gpu_streams = None
    cards: list[Card] = []
    if "engine" in parts:
        print("engine …", flush=True)
        plan = asr_engine.QUICK if quick else asr_engine.Plan()
        costs = await asyncio.to_thread(asr_engine.measure, folder, plan)
        print(table("engine: one thread", costs.figures()), flush=True)
    if "server" in parts:
        print("server …", flush=True)
        try:
            found = await asr_server.compare(folder, timing, guesses(costs))
        except ServerEnded as error:
            print(f"no figures of the server: {error}", flush=True)
    if "gpu" in parts:
        cards = asr_gpu.cards(folder)
        if cards:
            print(f"Published, on another machine: {asr_gpu.PUBLISHED}", flush=True)
            try:
                gpu_streams = await asr_server.on_gpu(folder, timing)
            except ServerEnded as error:
                print(f"no figures of the server with the GPU: {error}", flush=True)
        else:
            print("no GPU: nothing was measured on one", flush=True)
    return Measured(costs, found, tuple(cards), gpu_streams)


def guesses(costs: Costs | None) -> tuple[int, int]:
    """Where to begin to look for what a server sustains: with one stream in a step, and with
    many."""
    if costs is None:
        return GUESSES
    usable_ms = _LIKELY * 600 * len(os.sched_getaffinity(0))
    one, many = costs.ms("int8_b1"), costs.ms("int8_b8")
    return max(1, round(usable_ms / one)), max(1, round(usable_ms / many))


@contextmanager
def _model(folder: Path | None) -> Iterator[Path]:
    """The model's folder, made if it is not there; a temporary one if none is given."""
    from benchmarks.asr_speech import write_model

    with tempfile.TemporaryDirectory(prefix="funspeech-bench-") as temporary:
        found = folder or Path(temporary)
        if not (found / "model.pt").exists():
            print("making a model …", flush=True)
            write_model(found)
        yield found


def finite(value: Any) -> Any:
    """``value`` for JSON: no NaN, and numbers of a length to read."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 3)
    return value


def main() -> None:
    """Measure, and print a table and the line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.asr_batching",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="less than ten minutes on two cores")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="make the model there, once")
    arguments = parser.parse_args()
    described = {**machine.describe(), "torch": version("torch")}
    print("\n".join(f"{key:<12} {value}" for key, value in described.items()), flush=True)
    try:
        with _model(arguments.model) as folder:
            measured = uvloop.run(run(folder, arguments.parts, quick=arguments.quick))
    except ReferenceFailed as error:
        sys.exit(f"no figures: {error}")
    described["load after"] = f"{os.getloadavg()[0]:.2f}"
    print(table(TITLE, measured.figures()))
    print(json.dumps(finite({**measured.as_dict(), "machine": described}), ensure_ascii=False))
    if "server" in arguments.parts and measured.found is None:
        sys.exit(1)


if __name__ == "__main__":
    main()
