"""Forwards of a few fixed shapes, on a GPU as CUDA graphs.

A forward is several thousand small kernels, which a CPU cannot launch as fast as a GPU does them; a
graph launches them all at once, but its shapes, addresses and number of tokens are fixed. So a
batch is filled up with the spare slot to the next size, the number of tokens is the largest that
can fire, and nothing in it asks the device for a value. Nothing else in this package knows of CUDA.
On a CPU the same shapes run eagerly: that is for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from app.core.errors import EngineNotUsable
from app.engines.base import Progress
from app.engines.funasr.executor import (
    Executor,
    Heard,
    Part,
    Tokens,
    fetched,
    reset_fresh,
    stacked,
)

SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Of batches. A forward of twice the rows costs less than twice the time, so the powers of two
waste little."""

_WARM_UPS: Final = 3
"""Eager forwards before a capture, in which the libraries choose their kernels and memory."""

_HIGH: Final = -1
"""Priority of the CUDA stream: before all others here."""


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    tokens: Tokens


class FixedForward:
    """Forwards of ``executor`` in the sizes ``SIZES`` up to ``most``."""

    def __init__(self, executor: Executor, most: int, progress: Progress) -> None:
        self._executor = executor
        self._sizes = fixed_sizes(most)
        self._graphs: dict[tuple[int, int], _Captured] = {}
        self._stream: torch.cuda.Stream | None = None
        if executor.device != "cpu":
            # Convolutions would else round to ten bits, which moves the predictor's tokens.
            torch.backends.cudnn.allow_tf32 = False
            torch.cuda.synchronize()  # the state was made in another stream
            self._stream = torch.cuda.Stream(priority=_HIGH)  # type: ignore[no-untyped-call]  # torch has no types there
            with self._on_stream():
                self._capture_all(progress)

    @property
    def most_parts(self) -> int:
        """Parts in one call."""
        return self._sizes[-1]

    def __call__(self, parts: Sequence[Part]) -> list[Heard]:
        """One forward."""
        size = next(size for size in self._sizes if size >= len(parts))
        usual, ending = self._executor.chunking.most_tokens
        count = ending if any(part.last for part in parts) else usual
        with self._on_stream():
            reset_fresh(self._executor, parts)
            tokens = self._run(stacked(parts, size, self._executor), count)
            return fetched(tokens, parts)

    def _run(self, batch: tuple[Tensor, ...], count: int) -> Tokens:
        if not self._graphs:
            slots, audio, length, last = batch
            return self._executor.step(slots, audio, length, last, count)
        captured = self._graphs[len(batch[0]), count]
        for place, tensor in zip(captured.inputs, batch, strict=True):
            place.copy_(tensor)
        captured.graph.replay()
        return captured.tokens

    def _capture_all(self, progress: Progress) -> None:
        """The largest first, so that the others find enough memory in the pool."""
        pool: Any = None
        for size in reversed(self._sizes):
            progress(f"preparing forwards of {size} streams")
            for count in self._executor.chunking.most_tokens:
                captured = self._capture(size, count, pool)
                pool = captured.graph.pool()
                self._graphs[size, count] = captured
        torch.cuda.synchronize()

    def _capture(self, size: int, count: int, pool: Any) -> _Captured:
        executor = self._executor
        slots, audio, length, last = (t.to(executor.device) for t in stacked((), size, executor))
        for _ in range(_WARM_UPS):
            executor.step(slots, audio, length, last, count)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads (the second pass) may use the card meanwhile.
        with torch.cuda.graph(
            graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            tokens = executor.step(slots, audio, length, last, count)
        return _Captured(graph, (slots, audio, length, last), tokens)

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def check_card(device: str) -> None:
    """``device`` is ``cpu`` or ``cuda:0``.

    Raises:
        EngineNotUsable: torch has no card to compute on.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise EngineNotUsable(
            f"torch {torch.__version__} finds no GPU: look at the driver (nvidia-smi), install a "
            "build of torch with CUDA, or set ASR_GPUS=cpu"
        )


def fixed_sizes(most: int) -> tuple[int, ...]:
    """The sizes up to ``most``, which is the last of them unless it is beyond all."""
    most = min(most, SIZES[-1])
    return (*(size for size in SIZES if size < most), most)
