"""The order of one stream's events: ``(Began Changed* Ended)*``, also when the final text of a
sentence comes later than the first words of the next one.

The events of a sentence are held until the one before it has ended; of its interim results only
the newest is kept. Pure: no model, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from app.core.speech import RecognitionEvent, SentenceBegan, SentenceChanged, SentenceEnded


@dataclass(slots=True, eq=False)
class Place:
    """A sentence in the order, and what is held of it."""

    began: SentenceBegan
    changed: SentenceChanged | None = None
    ended: SentenceEnded | None = None


class SentenceOrder:
    """The sentences of one stream that have begun and not ended; ``report`` gets their events."""

    def __init__(self, report: Callable[[RecognitionEvent], None]) -> None:
        self._report = report
        self._places: deque[Place] = deque()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def held_from_ms(self) -> int | None:
        """The start of the first sentence whose beginning has not been told; None if there is
        none."""
        return self._places[1].began.start_ms if len(self._places) > 1 else None

    def began(self, event: SentenceBegan) -> Place:
        """A sentence begins, after all others."""
        place = Place(event)
        self._places.append(place)
        if self._is_told(place):
            self._report(event)
        return place

    def changed(self, place: Place, event: SentenceChanged) -> None:
        """A sentence has a new interim result."""
        if self._is_told(place):
            self._report(event)
        else:
            place.changed = event

    def ended(self, place: Place, event: SentenceEnded) -> None:
        """A sentence has its final text; it is over."""
        place.ended = event
        while self._places and self._places[0].ended is not None:
            self._report(self._places.popleft().ended or event)
            if self._places:
                self._tell(self._places[0])

    def _is_told(self, place: Place) -> bool:
        return self._places[0] is place

    def _tell(self, place: Place) -> None:
        self._report(place.began)
        if place.changed is not None and place.ended is None:
            self._report(place.changed)
        place.changed = None
