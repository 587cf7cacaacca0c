"""Where what can wait is computed: beside the streaming pass, and behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Background:
    """The device for one part of the engine, used from one thread at a time.

    On a GPU its work goes into a stream of its own with the lowest priority, so that a step of the
    streaming model that comes later still goes first. On a CPU ``threads`` are used, 0 for as many
    as torch chooses; the priority of the thread itself is its owner's to set.
    """

    def __init__(self, device: str, threads: int) -> None:
        self.device = device
        self._threads = threads
        self._stream: torch.cuda.Stream | None = None
        if device.startswith("cuda"):
            self._stream = torch.cuda.Stream(priority=0)  # type: ignore[no-untyped-call] # torch's

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is computed inside is computed there, without gradients."""
        if self._threads:
            # Counts for the calling thread, so it is said again with each call.
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            if self._stream is None:
                yield
            else:
                # What others have put on the device, weights above all, is there before it is used.
                self._stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._stream):
                    yield
