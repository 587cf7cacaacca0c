"""Hotwords in the streaming pass: which of a token's next best readings make a wanted word.

The streaming Paraformer finds the tokens of a chunk independently of each other, so the most
probable text is simply the best token at each place. With hotwords it is the text of the highest

    sum of the tokens' log-probabilities + sum of the bonuses of the hotwords in it

among all texts that take one of the best ten tokens at each place. A Viterbi search finds it
exactly, token by token, over the states of an Aho-Corasick automaton: which hotword may be under
way. A word counts when it is complete and not before, so half a hotword is never favoured; what is
under way is carried from chunk to chunk. Where no hotword is near, nothing changes: the best token
at each place is the text. A hotword of which one token is not among the ten at its place cannot
appear.

A weight is that of Alibaba's hotword vocabularies: -6 to 5, above 0 the word becomes likelier,
below 0 less likely, -6 means never, if there is any other reading. See :func:`bonus`.

The automaton follows the text: a Latin hotword begins at the beginning of a word only. Where
several hotwords end at the same token the longest one counts, so that a longer one may be an
exception to a shorter one; where the same one is given twice, the first.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from app.engines.funasr.checkpoint import read_text
from app.engines.funasr.tokens import GOES_ON, SPECIAL, is_latin

log = structlog.get_logger(__name__)

SYLLABLES_FILE: Final = "seg_dict"

MOST_WORDS: Final = 512
MOST_TOKENS: Final = 16
"""In a word."""

HIGHEST_WEIGHT: Final = 5.0
NEVER: Final = -6.0
"""The weights' range."""

_FORBIDDEN: Final = -1000.0
"""More than any reading among the best ten is less probable than the best."""
_COUNTED_TOKENS: Final = 2
_MOST_CHARACTERS: Final = 10 * MOST_TOKENS
_MOST_STATES: Final = 256
_MOST_UNDECIDED: Final = 512
_KEPT_AUTOMATA: Final = 32

_PART: Final = re.compile(r"[a-zA-Z']+|[^\sa-zA-Z']")

Weighted = tuple[tuple[str, float], ...]
"""Hotwords as in :class:`app.core.speech.RecognitionOptions`."""


def bonus(weight: float, tokens: int) -> float:
    """What a complete word of so many tokens adds to a text's log-probability (natural logarithm).

    The weight for each of its tokens, but for two at most: where a word is misheard it is mostly by
    one token or two, however long it is, and with more a long word would overwrite others that were
    clearly heard. So a word of weight 2, the usual one, replaces another reading that is up to 55
    times as probable, and one of weight 5 one that is 22,000 times; a single token, which is much
    sooner heard by mistake, 7 and 148 times. Weights outside of the range count as its ends.
    """
    if weight <= NEVER:
        return _FORBIDDEN
    return min(weight, HIGHEST_WEIGHT) * min(tokens, _COUNTED_TOKENS)


def read_syllables(folder: Path) -> dict[str, list[str]]:
    """``seg_dict``: in each line a word, and the tokens that it consists of; nothing where the
    model has no such file.

    Raises:
        EngineNotUsable: it cannot be read.
    """
    path = folder / SYLLABLES_FILE
    if not path.exists():
        return {}
    lines = read_text(path).splitlines()
    entries = (line.split() for line in lines)
    return {entry[0]: entry[1:] for entry in entries if len(entry) > 1}


class Speller:
    """How the model would write a word. ``names``: the token of each id, with ``@@`` after
    unfinished ones; ``syllables``: of Latin words, as far as they are known."""

    def __init__(self, names: Sequence[str], syllables: Mapping[str, Sequence[str]]) -> None:
        self._ids = {name: token for token, name in enumerate(names)}
        self._syllables = syllables
        self.silent = frozenset(self._ids[name] for name in SPECIAL & self._ids.keys())
        """Tokens that are no text."""
        self.unfinished = frozenset(
            token for name, token in self._ids.items() if name.endswith(GOES_ON)
        )
        self.latin = frozenset(
            token for name, token in self._ids.items() if is_latin(name.removesuffix(GOES_ON))
        )

    def spellings(self, word: str) -> list[tuple[int, ...]]:
        """Its tokens; nothing if the model cannot write it, or only in more than ``MOST_TOKENS``.

        A word with capitals has two spellings, since abbreviations are heard letter by letter.
        Punctuation is left out: the model has none.
        """
        if len(word) > _MOST_CHARACTERS:
            return []
        parts = [part for part in _PART.findall(word) if not _is_punctuation(part)]
        ways = (self._joined(parts, letters=False), self._joined(parts, letters=True))
        return [way for way in dict.fromkeys(ways) if 0 < len(way) <= MOST_TOKENS]

    def _joined(self, parts: Iterable[str], *, letters: bool) -> tuple[int, ...]:
        found: list[int] = []
        for part in parts:
            spelled = letters and len(part) > 1 and part.isupper()
            names = list(part.lower()) if spelled else self._pieces(part.lower())
            if not names or not all(name in self._ids for name in names):
                return ()
            found += [self._ids[name] for name in names]
        return tuple(found)

    def _pieces(self, part: str) -> Sequence[str]:
        """The tokens of a Latin word or of one character; nothing if there are none for it."""
        known = self._syllables.get(part)
        if known and all(name in self._ids for name in known):
            return known
        found: list[str] = []
        while part not in self._ids:
            sizes = range(len(part) - 1, 0, -1)
            size = next((n for n in sizes if part[:n] + GOES_ON in self._ids), 0)
            if not size:
                return []
            found.append(part[:size] + GOES_ON)
            part = part[size:]
        return [*found, part]


class Automaton:
    """Follows a text token by token, and tells which hotwords end in it. Any thread.

    A state is a number: the longest beginning of a hotword that the text so far ends with, or
    ``OUTSIDE``; ``INSIDE`` is outside of all hotwords, but within a Latin word.
    """

    OUTSIDE: Final = 0
    INSIDE: Final = 1

    def __init__(self, words: Iterable[tuple[Sequence[int], float]], speller: Speller) -> None:
        """``words``: the tokens of each, and its bonus."""
        self.silent = speller.silent
        self._unfinished = speller.unfinished
        self._next: list[dict[int, int]] = [{}, {}]
        self._back: list[int] = [self.OUTSIDE, self.OUTSIDE]
        self.bonuses: list[float] = [0.0, 0.0]
        """By the state that a text comes into."""
        own: dict[int, float] = {}
        for tokens, worth in words:
            own.setdefault(self._insert(tokens), worth)
        starts = self._next[self.OUTSIDE]
        # Within a Latin word only one of another script can begin.
        self._next[self.INSIDE] = {t: n for t, n in starts.items() if t not in speller.latin}
        self._connect(own)

    def __len__(self) -> int:
        return len(self._next)

    def after(self, state: int, token: int) -> int:
        """The state that a token leads to."""
        while (found := self._next[state].get(token)) is None:
            if state <= self.INSIDE:
                return self.INSIDE if token in self._unfinished else self.OUTSIDE
            state = self._back[state]
        return found

    def _insert(self, tokens: Sequence[int]) -> int:
        """The state of a complete word."""
        state = self.OUTSIDE
        for token in tokens:
            known = self._next[state].get(token)
            if known is None:
                known = self._next[state][token] = len(self._next)
                self._next.append({})
                self._back.append(self.OUTSIDE)
                self.bonuses.append(0.0)
            state = known
        return state

    def _connect(self, own: Mapping[int, float]) -> None:
        """For each state the longest other one that its text ends with, shorter ones first."""
        waiting = deque([self.OUTSIDE])
        while waiting:
            state = waiting.popleft()
            for token, found in self._next[state].items():
                if state != self.OUTSIDE:
                    self._back[found] = self.after(self._back[state], token)
                elif token in self._unfinished:
                    self._back[found] = self.INSIDE
                self.bonuses[found] = own.get(found, self.bonuses[self._back[found]])
                waiting.append(found)


_Link = tuple[int, "_Link"] | None
"""The tokens of a text, the last one first."""


class Search:
    """The best text of one sentence so far.

    ``take`` may change the end of what it said before, while a hotword is under way; at the end of
    the sentence it is the best text of all. To be bounded, no more than the best 256 states are
    followed, and what is undecided for 512 tokens is decided; with hotwords that are words neither
    comes near.
    """

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._decided: list[int] = []
        self._undecided = 0
        self._states: dict[int, tuple[float, _Link]] = {Automaton.OUTSIDE: (0.0, None)}

    def take(self, ids: NDArray[np.int64], scores: NDArray[np.float32]) -> list[int]:
        """All tokens so far, after those that are new.

        ``ids`` (t, k): the best tokens at each new place, the best one first; ``scores`` (t, k):
        their log-probabilities, up to a constant for each place.
        """
        for tokens, values in zip(ids.tolist(), scores.tolist(), strict=True):
            self._add(tokens, values)
        _, link = max(self._states.values(), key=_score)
        return [*self._decided, *_tokens(link)]

    def _add(self, tokens: Sequence[int], values: Sequence[float]) -> None:
        if tokens[0] in self._automaton.silent:
            # No text, so nothing to choose; hotwords go on behind it.
            self._states = {
                state: (score, (tokens[0], link)) for state, (score, link) in self._states.items()
            }
        else:
            self._states = self._followed(tokens, values)
        self._undecided += 1
        if len(self._states) > _MOST_STATES:
            self._keep(_MOST_STATES)
        if self._undecided > _MOST_UNDECIDED:
            self._keep(1)
        if len(self._states) == 1:
            self._decide()

    def _followed(
        self, tokens: Sequence[int], values: Sequence[float]
    ) -> dict[int, tuple[float, _Link]]:
        """The best way into each state. The scores are what a text lacks to that of the best
        tokens, which so has exactly 0 before its bonuses."""
        after, bonuses, silent = (
            self._automaton.after,
            self._automaton.bonuses,
            self._automaton.silent,
        )
        readings = [
            (token, value - values[0])
            for token, value in zip(tokens, values, strict=True)
            if token not in silent
        ]
        found: dict[int, tuple[float, _Link]] = {}
        for state, (score, link) in self._states.items():
            for token, lack in readings:
                reached = after(state, token)
                total = score + lack + bonuses[reached]
                known = found.get(reached)
                if known is None or total > known[0]:
                    found[reached] = (total, (token, link))
        return found

    def _keep(self, most: int) -> None:
        best = sorted(self._states.items(), key=lambda entry: -entry[1][0])
        self._states = dict(best[:most])

    def _decide(self) -> None:
        """One state is left, so all of its past is certain."""
        ((state, (score, link)),) = self._states.items()
        self._decided += _tokens(link)
        self._undecided = 0
        self._states = {state: (score, None)}


class Automata:
    """The automata of the lists of hotwords that were used last. For one thread.

    Of a list, the first 512 words count; words that the model cannot write, or only in more than
    16 tokens, are ignored, and so are those with weight 0.
    """

    def __init__(self, names: Sequence[str], syllables: Mapping[str, Sequence[str]]) -> None:
        self._speller = Speller(names, syllables)
        self._kept: OrderedDict[Weighted, Automaton | None] = OrderedDict()

    def automaton(self, hotwords: Weighted) -> Automaton | None:
        """None if none of the hotwords counts. The first time, building it takes up to some 30 ms
        for a full list."""
        if hotwords in self._kept:
            self._kept.move_to_end(hotwords)
            return self._kept[hotwords]
        words = list(self._words(hotwords[:MOST_WORDS]))
        built = self._kept[hotwords] = Automaton(words, self._speller) if words else None
        if len(self._kept) > _KEPT_AUTOMATA:
            self._kept.popitem(last=False)
        return built

    def _words(self, hotwords: Weighted) -> Iterator[tuple[tuple[int, ...], float]]:
        unwritable = 0
        for word, weight in hotwords:
            if weight == 0 or math.isnan(weight):
                continue
            spellings = self._speller.spellings(word)
            unwritable += not spellings
            for tokens in spellings:
                yield tokens, bonus(weight, len(tokens))
        if unwritable:
            # Only how many: hotwords are often names.
            log.debug("hotwords that the model cannot write are ignored", words=unwritable)


def _score(entry: tuple[float, _Link]) -> float:
    return entry[0]


def _tokens(link: _Link) -> list[int]:
    """In the order of the text."""
    found: list[int] = []
    while link is not None:
        token, link = link
        found.append(token)
    return found[::-1]


def _is_punctuation(part: str) -> bool:
    return len(part) == 1 and unicodedata.category(part).startswith("P")
