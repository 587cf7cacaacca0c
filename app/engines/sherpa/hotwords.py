"""A client's hotwords as the runtime takes them for one stream.

In sherpa-onnx 2.0.1 "/" separates phrases, " :2.5" behind one is its weight, and "#" and "@" begin
what is for another task. What looks like a weight and is none fails the stream, a weight that is no
usual number spoils what is heard, and what the vocabulary does not have is written to the standard
error: so nothing of a client's gets there but words that the model can hear, and weights in the
range that was tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from app.engines.sherpa.folder import lines_of, unusable
from app.engines.sherpa.kinds import FoundModel

Unit = Literal["cjkchar", "bpe", "cjkchar+bpe"]

LEAST_SCORE: Final = 0.5
MOST_SCORE: Final = 4.0
MOST_PHRASES: Final = 1000
"""So many take the runtime 22 ms a stream."""
_MOST_WORDS: Final = 4000
"""Of a list, those that are looked at: sentences of other clients wait meanwhile."""
_LONGEST: Final = 100
"""Characters of a word."""
_SPECIAL: Final = frozenset("/:#@")
_NEW_WORD: Final = "▁"


class Hotwords:
    """How a model's hotwords are spelt.

    ``unit``: what the runtime cuts them into. Words of Latin letters are heard only where the model
    came with bpe.vocab, which tells how they are cut.

    Raises:
        EngineNotUsable: bpe.vocab is damaged.
    """

    def __init__(self, model: FoundModel) -> None:
        symbols = [symbol for symbol in model.symbols if not symbol.startswith("<")]
        self._wide = {symbol for symbol in symbols if len(symbol) == 1 and not symbol.isascii()}
        self._wide.discard(_NEW_WORD)
        self.vocabulary = model.bpe_vocabulary
        self._latin: frozenset[str] = frozenset()
        self.unit: Unit = "cjkchar"
        if self.vocabulary is not None and any(_NEW_WORD in symbol for symbol in symbols):
            _check_vocabulary(model)
            self._latin = frozenset(c for symbol in symbols for c in symbol if c.isascii())
            self.unit = "cjkchar+bpe" if self._wide else "bpe"
        self._lower = any("a" in symbol for symbol in symbols)

    def written(self, hotwords: Sequence[tuple[str, float]]) -> str:
        """(word, weight) pairs as the runtime's hotwords; "" for none.

        A weight is that of Alibaba's vocabularies, -6 to 5 and usually 2, and is the runtime's
        score for a token as it is, but for its limits. Words of weight 0 or less are left out: the
        search can only make words likelier. So are those that the model has no tokens for, and what
        comes after the first ``MOST_PHRASES`` that are good, or 4000.
        """
        phrases: dict[str, str] = {}
        for word, weight in hotwords[:_MOST_WORDS]:
            phrase = self._phrase(word)
            if phrase and math.isfinite(weight) and weight > 0:
                score = min(max(weight, LEAST_SCORE), MOST_SCORE)
                phrases.setdefault(phrase, f"{phrase} :{score:.2f}")
            if len(phrases) == MOST_PHRASES:
                break
        return "/".join(phrases.values())

    def _phrase(self, word: str) -> str:
        """In the vocabulary's case, without what means something to the runtime; "" if it cannot be
        heard."""
        if len(word) > _LONGEST:
            return ""
        cased = word.lower() if self._lower else word.upper()
        phrase = " ".join("".join(" " if c in _SPECIAL else c for c in cased).split())
        known = all(c == " " or c in self._wide or c in self._latin for c in phrase)
        return phrase if known else ""


def _check_vocabulary(model: FoundModel) -> None:
    """Whether bpe.vocab has "piece score" lines."""
    path = model.bpe_vocabulary
    assert path is not None
    try:
        for line in lines_of(path):
            _, score = line.split()
            float(score)
    except ValueError:
        raise unusable(path, 'it is not "piece score" lines') from None
