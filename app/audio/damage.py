"""How much of a stream may be broken before it is given up."""

from __future__ import annotations

from typing import Final

from app.core.errors import BadAudio

MAX_BAD: Final = 20
MAX_BAD_SHARE: Final = 0.1


class Damage:
    """Counts good and bad packets: more than :data:`MAX_BAD` bad ones, plus
    :data:`MAX_BAD_SHARE` of the good ones, are too many. Each costs an exception of FFmpeg (10
    us), so 20 MB of rubbish would be minutes of work."""

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0

    def count_good(self) -> None:
        """A packet was decoded."""
        self.good += 1

    def count_bad(self) -> None:
        """A packet, or a page of them, could not be.

        Raises:
            BadAudio: one too many.
        """
        self.bad += 1
        if self.bad > MAX_BAD + MAX_BAD_SHARE * self.good:
            raise BadAudio(
                "The audio is damaged, or not what the format parameter says: check both, or send "
                "wav."
            )
