"""When the words of the streaming pass were said.

The predictor divides the rows of audio among the tokens, and so tells where each was heard, to a
row of 60 ms. FunASR gives no times for streams.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

ROW_MS: Final = 60

AUDIBLE: Final = 0.05
"""Least share that a row must have in a token to count as heard in it: in silence the weights are
small, but not zero, and a word does not begin there."""


class TokenClock:
    """Follows one stream; rows are counted from its first sample, and ``rows`` new ones and the
    ``right`` before them are in each chunk."""

    def __init__(self, rows: int, right: int) -> None:
        self._rows = rows
        self._right = right
        self._chunks = 0
        self._open: int | None = None  # first row of the token that is under way
        self._until = 0  # ms; where the last token ended

    def chunk(self, shares: NDArray[np.float32], tokens: int) -> list[tuple[int, int]]:
        """Start and end (ms) of the ``tokens`` that fired in the next chunk.

        ``shares``: (more than ``tokens``, 2 + right + rows), see ``executor.Tokens``; the open
        token is after the last. Times ascend, and do not overlap.
        """
        first = self._chunks * self._rows - self._right
        self._chunks += 1
        found = [self._times(*self._heard(shares[token], first)) for token in range(tokens)]
        still_open = np.flatnonzero(shares[tokens, 1:-1] >= AUDIBLE)
        if self._open is None and still_open.size:
            self._open = first + int(still_open[0])
        return found

    def _heard(self, share: NDArray[np.float32], first: int) -> tuple[int, int]:
        """First and last row of a token; the last is where it fired, so no two have the same."""
        rows = share[1:-1]
        fired = np.flatnonzero(rows > 0)
        last = first + (int(fired[-1]) if fired.size else 0)
        audible = np.flatnonzero(rows >= AUDIBLE)
        start = min(first + int(audible[0]), last) if audible.size else last
        if share[0] > 0 and self._open is not None:
            start = self._open
        self._open = None
        return start, last

    def _times(self, start: int, last: int) -> tuple[int, int]:
        """A row that two tokens share is the earlier one's."""
        start_ms = max(start * ROW_MS, self._until)
        self._until = max((last + 1) * ROW_MS, start_ms)
        return start_ms, self._until
