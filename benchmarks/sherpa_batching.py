"""``python -m benchmarks.sherpa_batching [--quick]``: what batching gives with the sherpa engine.

    engine  streams per core: zipformers of the published sizes, 1 to 32 at a time, against the
            embedded engine and FunASR's model in our own
    server  streams that the whole server sustains in real time: one in a step against 16

The models have random weights: speed does not depend on their values. The last line is one JSON
object; null stands for what could not be measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks import machine
from benchmarks.asr_batching import finite
from benchmarks.asr_server import Found
from benchmarks.options import Options
from benchmarks.report import Figure, table
from benchmarks.server import ServerEnded

if TYPE_CHECKING:
    from benchmarks.sherpa_engine import Costs

TITLE: Final = "sherpa engine: streams per core, and through the whole server"
TIMEOUT_S: Final = 7200.0
"""A hang; the full length takes half an hour."""

PARTS: Final = ("engine", "server")

GUESSES: Final = (15, 30)
"""Streams sustained with one in a step, and with many, where the engine was not measured."""

_SERVED: Final = "small"
_LIKELY: Final = 0.6
"""Share of what the engine's cost alone would allow one thread."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of the parts that were asked for."""

    costs: Costs | None = None
    found: Found | None = None

    def figures(self) -> list[Figure]:
        """For the table."""
        rows = self.costs.figures() if self.costs else []
        # Its targets are those of another engine.
        rows += [replace(row, target="") for row in self.found.figures()] if self.found else []
        return rows

    def as_dict(self) -> dict[str, Any]:
        """For JSON; None for what was not measured."""
        costs, found = self.costs, self.found
        return {
            "engine": costs and costs.as_dict(),
            "server_cap1_streams": found and found.single,
            "server_cap16_streams": found and found.many,
            "server_ratio": found and found.ratio,
            "server_mean_batch_16": found and found.mean_batch,
            "server_others": found and found.others,
        }


async def measure(options: Options) -> list[Figure]:
    """All parts, the quick way unless ``options.full``."""
    with _folder(None) as folder:
        return (await run(folder, PARTS, quick=not options.full)).figures()


async def run(folder: Path, parts: Collection[str], *, quick: bool) -> Measured:
    """Measure these parts, with models in ``folder``, and show what they are about. What a part
    could not measure is missing."""
    # Not every installation has sherpa-onnx and onnx.
    from benchmarks import sherpa_engine, sherpa_server

    costs = found = None
    print("making models …", flush=True)
    sherpa_engine.write_models(folder, sherpa_engine.SIZES)
    if "engine" in parts:
        paraformer = _paraformer(folder)
        print("engine …", flush=True)
        plan = sherpa_engine.QUICK if quick else sherpa_engine.Plan()
        costs = await asyncio.to_thread(sherpa_engine.measure, folder, plan, paraformer)
        print(table("engine: one thread", costs.figures()), flush=True)
    if "server" in parts:
        print("server …", flush=True)
        model = folder / _SERVED / "int8"
        try:
            found = await sherpa_server.compare(model, quick=quick, guesses=guesses(costs))
        except ServerEnded as error:
            print(f"no figures of the server: {error}", flush=True)
    return Measured(costs, found)


def guesses(costs: Costs | None) -> tuple[int, int]:
    """Where to begin to look for what a server with one thread for the engine sustains: with one
    stream in a step, and with many."""
    if costs is None:
        return GUESSES
    one, many = (costs.streams(f"{_SERVED}_int8_b{size}") for size in (1, 16))
    return max(1, round(_LIKELY * one)), max(1, round(_LIKELY * many))


def _paraformer(folder: Path) -> Path | None:
    """FunASR's streaming model; None where torch is not installed."""
    if find_spec("torch") is None:
        print("torch is not installed: nothing is measured of the FunASR engine", flush=True)
        return None
    from benchmarks.asr_speech import write_model

    found = folder / "paraformer"
    if not (found / "model.pt").exists():
        write_model(found)
    return found


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    """Where models are; a temporary one if none is given."""
    with tempfile.TemporaryDirectory(prefix="funspeech-bench-") as temporary:
        yield folder or Path(temporary)


def main() -> None:
    """Measure, and print a table and the line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sherpa_batching",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="less than ten minutes on two cores")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="make models there, once")
    arguments = parser.parse_args()
    described = machine.describe()
    print("\n".join(f"{key:<12} {value}" for key, value in described.items()), flush=True)
    with _folder(arguments.models) as folder:
        measured = uvloop.run(run(folder, arguments.parts, quick=arguments.quick))
    described["load after"] = f"{os.getloadavg()[0]:.2f}"
    print(table(TITLE, measured.figures()))
    print(json.dumps(finite({**measured.as_dict(), "machine": described}), ensure_ascii=False))
    if "server" in arguments.parts and measured.found is None:
        sys.exit(1)


if __name__ == "__main__":
    main()
