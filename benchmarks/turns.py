"""Several ways to do the same, measured in turns, so that a slow minute of the machine is
everybody's; ratios are of the same turn, and the median of all turns counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

WARM_UPS: Final = 5
"""Chunks before those that count: Paraformer's look-back fills in four."""

Side = Callable[[], float]
"""Takes in the next chunk of one or more streams; the CPU seconds for each of them."""


@dataclass
class Turns:
    """CPU seconds by the side's name, turn by turn."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ms(self, name: str) -> float:
        """Median, in milliseconds; NaN for what was not measured."""
        seconds = self.seconds.get(name)
        return statistics.median(seconds) * 1000 if seconds else float("nan")

    def ratio(self, dear: str, cheap: str) -> float:
        """How many times the cost of ``cheap`` that of ``dear`` is: median of the turns; NaN
        for what was not measured."""
        both = zip(self.seconds.get(dear, ()), self.seconds.get(cheap, ()), strict=False)
        ratios = [first / second for first, second in both]
        return statistics.median(ratios) if ratios else float("nan")


def take_turns(sides: Mapping[str, Side], turns: int, costs: Turns) -> None:
    """Measure, one side after the other, in the other direction every second time: who comes
    second may find the caches warmer or colder."""
    for side in sides.values():
        for _ in range(WARM_UPS):
            side()
    order = list(sides.items())
    for name in sides:
        costs.seconds[name] = []
    for _ in range(turns):
        for name, side in order:
            costs.seconds[name].append(side())
        order.reverse()
