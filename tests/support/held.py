"""How much data a process holds, wherever it lies: so that a bound holds for buffers, too, that
nobody thought of."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Final

import numpy as np

_SMALL: Final = 64
"""Bytes; what is smaller is no audio."""


def held_bytes() -> int:
    """All bytes, texts and arrays that anything refers to, each counted once: in objects, in
    containers, in the variables of coroutines that wait.

    Not counted: what C libraries hold, and the variables of functions that are running now, so what
    a test keeps belongs in its module.
    """
    gc.collect()
    sizes: dict[int, int] = {}
    for each in _referred(gc.get_objects()):
        data = _owner(each)
        size = len(data) if isinstance(data, bytes | bytearray | str) else data.nbytes
        if size > _SMALL:
            sizes[id(data)] = size
    return sum(sizes.values())


Data = bytes | bytearray | str | np.ndarray


def _referred(containers: list[object]) -> Iterable[Data]:
    for start in range(0, len(containers), 10_000):
        for each in gc.get_referents(*containers[start : start + 10_000]):
            # Not isinstance: that asks an object for its class, and some of other libraries warn.
            if issubclass(type(each), bytes | bytearray | str | np.ndarray):
                yield each


def _owner(data: Data) -> Data:
    """Of a slice of an array: the memory is the whole."""
    while isinstance(data, np.ndarray) and data.base is not None:
        base = data.base.obj if isinstance(data.base, memoryview) else data.base
        if not isinstance(base, bytes | bytearray | np.ndarray):
            break
        data = base
    return data
