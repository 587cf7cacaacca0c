"""The worker runs on uvloop, the tests' own loop is asyncio's: what depends on the loop runs on
both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

BOTH: Final[Mapping[str, LoopFactory]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
ONE: Final[Mapping[str, LoopFactory]] = {"asyncio": asyncio.new_event_loop}

IN_A_WORKER: Final = frozenset(
    {
        "test_second_pass.py",
        "test_segmenting.py",
        "test_sentence_order.py",
        "test_stepper.py",
        "test_worker_capacity.py",
        "test_worker_synthesis.py",
    }
)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The loops that a test runs on, by name."""
    return BOTH if item.path.name in IN_A_WORKER else ONE
