"""Engines that a test holds: each step waits at a gate, and is counted, so that what a server does
after its client has gone can be counted and need not be timed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from app.core.speech import RecognitionEvent, Utterance
from app.engines.base import Feed, Piece
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.synthesizer import FakeSynthesizer

_PATIENCE_S: Final = 60.0
"""Nothing waits so long: it is for the test that forgot to open."""


class Gate:
    """Threads of an engine wait here while it is closed, as it is at first."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def is_open(self) -> bool:
        """Whether nobody has to wait."""
        return self._open.is_set()

    @property
    def waiting(self) -> int:
        """Threads that wait."""
        return self._waiting

    def open(self) -> None:
        """Let everybody through from now on."""
        self._open.set()

    def close(self) -> None:
        """Nobody else comes through."""
        self._open.clear()

    def wait(self) -> None:
        """For the engine's thread."""
        if self._open.is_set():
            return
        with self._lock:
            self._waiting += 1
        try:
            self._open.wait(_PATIENCE_S)
        finally:
            with self._lock:
                self._waiting -= 1


class GatedRecognizer(FakeRecognizer):
    """The fake one; a step waits at the gate. ``fed`` counts the steps of each stream, from when
    they begin."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(FakeOptions())
        self._gate = gate
        self.fed: Counter[object] = Counter()

    def step(self, batch: Sequence[Feed]) -> list[list[RecognitionEvent]]:
        """See :class:`FakeRecognizer`."""
        self.fed.update(feed.stream for feed in batch)
        self._gate.wait()
        return super().step(batch)


class GatedSynthesizer(FakeSynthesizer):
    """The fake one; a piece waits at the gate, except the first few of each utterance. ``begun``
    counts the pieces of each text, from when they begin."""

    def __init__(self, gate: Gate, free_pieces: int = 0) -> None:
        super().__init__(FakeOptions())
        self._gate = gate
        self._free_pieces = free_pieces
        self.begun: Counter[str] = Counter()

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        """See :class:`FakeSynthesizer`."""
        return self._held(utterance.text, super().synthesize(utterance))

    def _held(self, text: str, pieces: Iterator[Piece]) -> Iterator[Piece]:
        number = 0
        while True:
            self.begun[text] += 1
            if number >= self._free_pieces:
                self._gate.wait()
            try:
                piece = next(pieces)
            except StopIteration:
                return
            number += 1
            yield piece
