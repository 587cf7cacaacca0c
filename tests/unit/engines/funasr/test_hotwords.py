"""The best text with hotwords, from the best readings of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.core.errors import EngineNotUsable
from app.engines.funasr.hotwords import (
    MOST_TOKENS,
    MOST_WORDS,
    SYLLABLES_FILE,
    Automata,
    Automaton,
    Search,
    Speller,
    bonus,
    read_syllables,
)

NAMES = [
    *("<blank>", "<s>", "</s>", "阿", "里", "巴", "云", "hel@@", "lo", "he@@", "l@@", "world"),
    *("n", "b", "a", "'s", "<unk>"),
]
ID = {name: token for token, name in enumerate(NAMES)}
SPELLER = Speller(NAMES, {"nihao": ["n", "a"], "lost": ["absent"]})
Words = Sequence[tuple[tuple[int, ...], float]]


def ids(*names: str) -> tuple[int, ...]:
    return tuple(ID[name] for name in names)


def readings(*places: Mapping[str, float]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The tokens of each place with their scores, the best one first; all are equally many."""
    ordered = [sorted(place.items(), key=lambda one: -one[1]) for place in places]
    return (
        np.array([[ID[name] for name, _ in place] for place in ordered]),
        np.array([[score for _, score in place] for place in ordered], np.float32),
    )


def best(words: Words, *places: Mapping[str, float]) -> list[int]:
    return Search(Automaton(words, SPELLER)).take(*readings(*places))


# The search


def worth(words: Words, text: Sequence[int]) -> float:
    """The bonuses of a text, by the book."""
    heard = [token for token in text if token not in SPELLER.silent]
    total = 0.0
    for end in range(1, len(heard) + 1):
        ending = [
            (len(word), -number, value)
            for number, (word, value) in enumerate(words)
            if tuple(heard[end - len(word) : end]) == word and end >= len(word)
            if not (
                end > len(word)
                and heard[end - len(word) - 1] in SPELLER.unfinished
                and word[0] in SPELLER.latin
            )
        ]
        total += max(ending)[2] if ending else 0.0
    return total


def possible(place: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    if place[0][0] in SPELLER.silent:
        return [place[0]]
    return [one for one in place if one[0] not in SPELLER.silent]


token = st.sampled_from(range(2, len(NAMES)))
few = st.sampled_from(ids("阿", "里", "hel@@", "lo"))
words_of_few = st.lists(
    st.tuples(
        st.lists(few, min_size=1, max_size=4).map(tuple),
        st.sampled_from([-1000.0, -10.0, -3.0, 1.0, 2.0, 4.0, 10.0]),
    ),
    max_size=8,
)
texts_of_few = st.lists(
    st.tuples(
        st.lists(st.one_of(few, few, token), min_size=3, max_size=3, unique=True),
        st.tuples(*[st.sampled_from([0.5, 1.5, 3.25, 6.0])] * 2),
    ),
    max_size=6,
)


@given(words_of_few, texts_of_few, st.integers(0, 6))
def test_no_text_is_better(
    words: Words, places: list[tuple[list[int], tuple[float, float]]], border: int
) -> None:
    """Compared with all texts that there are; also where a chunk ends in the middle."""
    found_ids = np.array([one for one, _ in places], np.int64).reshape(-1, 3)
    scores = np.array([[0, -min(lacks), -max(lacks)] for _, lacks in places], np.float32)
    scores = scores.reshape(-1, 3)
    search = Search(Automaton(words, SPELLER))
    search.take(found_ids[:border], scores[:border])
    text = search.take(found_ids[border:], scores[border:])
    assert Search(Automaton(words, SPELLER)).take(found_ids, scores) == text
    choices = [
        possible(list(zip(row.tolist(), values.tolist(), strict=True)))
        for row, values in zip(found_ids, scores, strict=True)
    ]
    by_text = {
        tuple(token for token, _ in path): sum(lack for _, lack in path)
        for path in product(*choices)
    }
    totals = {one: lack + worth(words, one) for one, lack in by_text.items()}
    assert totals[tuple(text)] == pytest.approx(max(totals.values()), abs=1e-3)


def test_a_hotword_replaces_what_is_little_more_probable() -> None:
    places = ({"云": 0, "阿": -3}, {"里": 0, "巴": -9})
    assert best([], *places) == list(ids("云", "里"))
    assert best([(ids("阿", "里"), 2.9)], *places) == list(ids("云", "里"))
    assert best([(ids("阿", "里"), 3.1)], *places) == list(ids("阿", "里"))
    assert best([(ids("阿", "云"), 10.0)], *places) == list(ids("云", "里"))  # 云 is no choice


def test_half_a_hotword_is_not_favoured() -> None:
    search = Search(Automaton([(ids("阿", "里", "巴"), 10.0)], SPELLER))
    first = readings({"云": 0, "阿": -3}, {"里": 0, "云": -1})
    assert search.take(*first) == list(ids("云", "里"))
    # The word is complete in the next chunk only, and changes what was said before.
    assert search.take(*readings({"云": 0, "巴": -4})) == list(ids("阿", "里", "巴"))
    assert search.take(*readings({"云": 0, "巴": -4})) == list(ids("阿", "里", "巴", "云"))


def test_a_hotword_goes_on_behind_what_is_no_text() -> None:
    places = ({"阿": 0, "里": -1}, {"<unk>": 0, "云": -1}, {"云": 0, "里": -2})
    assert best([(ids("阿", "里"), 3.0)], *places) == list(ids("阿", "<unk>", "里"))


def test_no_text_is_no_way_around_a_hotword() -> None:
    """To leave a token out is no reading of it."""
    places = ({"阿": 0, "<unk>": -1}, {"里": 0, "云": -5})
    assert best([(ids("阿", "里"), -1000.0)], *places) == list(ids("阿", "云"))


def test_latin_hotwords_begin_with_a_word() -> None:
    word = [(ids("lo"), 5.0), (ids("阿"), 1.5)]
    assert best(word, {"hel@@": 0, "n": -9}, {"world": 0, "lo": -1}) == list(ids("hel@@", "world"))
    assert best(word, {"n": 0, "hel@@": -9}, {"world": 0, "lo": -1}) == list(ids("n", "lo"))
    assert best(word, {"hel@@": 0, "n": -9}, {"world": 0, "阿": -1}) == list(ids("hel@@", "阿"))


def test_hotwords_that_overlap() -> None:
    """Where one breaks off another one may be under way, or complete."""
    longer = (ids("阿", "里", "巴", "云"), 1.0)
    aside = ({"阿": 0, "world": -9}, {"里": 0, "world": -9})
    assert best([longer, (ids("里", "云"), 2.0)], *aside, {"巴": 0, "云": -1})[2:] == [ID["云"]]
    assert best([longer, (ids("里"), -1000.0)], *aside)[1:] == [ID["world"]]
    within = ({"hel@@": 0, "n": -9}, {"b": 0, "world": -1})
    latin = [(ids("hel@@", "lo"), 1.0), (ids("world"), 5.0)]
    assert best(latin, *within) == list(ids("hel@@", "b"))


def test_the_longest_hotword_counts() -> None:
    """So one may be an exception to another."""
    words = [(ids("里"), -1000.0), (ids("阿", "里"), 2.0)]
    assert best(words, {"阿": 0, "巴": -1}, {"里": 0, "云": -1}) == list(ids("阿", "里"))
    assert best(words, {"巴": 0, "云": -9}, {"里": 0, "云": -1}) == list(ids("巴", "云"))
    words = [(ids("阿"), 2.0), (ids("阿"), -1000.0)]
    assert best(words, {"云": 0, "阿": -1}) == list(ids("阿"))  # the first of two


def test_the_higher_the_weight_the_likelier_the_word() -> None:
    places = ({"云": 0, "阿": -2}, {"里": 0, "巴": -3})
    for lack in (*range(-12, 0), -0.5):
        found = []
        for weight in np.arange(-7, 8, 0.5).tolist():
            automaton = Automata(NAMES, {}).automaton((("阿巴", weight),))
            taken = [] if automaton is None else Search(automaton).take(*readings(*places))
            found.append(taken == list(ids("阿", "巴")))
        assert found == sorted(found), lack
    places = ({"阿": 0, "云": -2}, {"里": 0, "巴": -3})
    shown = []
    for weight in (-6, -5, -2, -1, 1, 5):
        automaton = Automata(NAMES, {}).automaton((("阿里", weight),))
        assert automaton is not None
        shown.append(Search(automaton).take(*readings(*places)) == list(ids("阿", "里")))
    assert shown == [False, False, False, True, True, True]


def test_bonuses() -> None:
    assert [bonus(weight, 2) for weight in (-7, -6, -5, -1, 2, 5, 9)] == [
        *(-1000, -1000, -10, -2, 4, 10, 10)
    ]
    assert [bonus(5, tokens) for tokens in (1, 2, 3, 16)] == [5, 10, 10, 10]
    assert [bonus(-6, tokens) for tokens in (1, 16)] == [-1000, -1000]


# Words as tokens


@pytest.mark.parametrize(
    ("word", "spellings"),
    [
        ("阿里", [("阿", "里")]),
        ("阿里-巴·云", [("阿", "里", "巴", "云")]),
        ("hello", [("hel@@", "lo")]),
        ("Hello World", [("hel@@", "lo", "world")]),
        ("hello阿", [("hel@@", "lo", "阿")]),
        ("hehellohe", []),
        ("helllo", [("hel@@", "l@@", "lo")]),
        ("nihao", [("n", "a")]),
        ("NBA", [("n", "b", "a")]),
        ("阿NBA云", [("阿", "n", "b", "a", "云")]),
        ("nba", []),
        ("HELLO", [("hel@@", "lo")]),
        ("'s", [("'s",)]),
        ("lost", []),
        ("东", []),
        ("阿东", []),
        ("<unk>", []),
        ("@@", []),
        ("", []),
        (" ，", []),
        ("阿" * MOST_TOKENS, [("阿",) * MOST_TOKENS]),
        ("阿" * (MOST_TOKENS + 1), []),
        ("hello " * 1_000_000, []),
    ],
)
def test_words_as_tokens(word: str, spellings: list[tuple[str, ...]]) -> None:
    assert SPELLER.spellings(word) == [ids(*names) for names in spellings]


def test_an_abbreviation_is_a_word_or_letters() -> None:
    speller = Speller([*NAMES, "nba"], {})
    assert speller.spellings("NBA") == [(len(NAMES),), ids("n", "b", "a")]
    assert speller.spellings("nba") == [(len(NAMES),)]


def test_syllables(tmp_path: Path) -> None:
    assert read_syllables(tmp_path) == {}
    path = tmp_path / SYLLABLES_FILE
    path.write_text("hello hel@@ lo\n阿 阿\n\nempty\n", "utf-8")
    assert read_syllables(tmp_path) == {"hello": ["hel@@", "lo"], "阿": ["阿"]}
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EngineNotUsable, match="models verify"):
        read_syllables(tmp_path)


# Lists of words, and bounds


def test_words_that_cannot_be_written_are_ignored_and_not_named() -> None:
    automata = Automata(NAMES, {})
    with structlog.testing.capture_logs() as logged:
        assert automata.automaton((("东", 5.0), ("西", 2.0))) is None
        assert automata.automaton((("东", 5.0), ("西", 2.0))) is None
        automaton = automata.automaton((("东", 5.0), ("阿里", 2.0)))
    assert automaton is not None
    assert len(automaton) == 4
    assert [(one["log_level"], one["words"]) for one in logged] == [("debug", 2), ("debug", 1)]
    assert not any("东" in str(one) for one in logged)


@pytest.mark.parametrize("weight", [0, 0.0, float("nan")])
def test_words_without_a_weight_do_not_count(weight: float) -> None:
    assert Automata(NAMES, {}).automaton((("阿里", weight),)) is None
    assert Automata(NAMES, {}).automaton(()) is None


def test_of_a_long_list_the_first_words_count() -> None:
    filler = tuple(("云" * (1 + k % 5), 1.0) for k in range(MOST_WORDS))
    late = Automata(NAMES, {}).automaton((*filler, ("阿里", 5.0)))
    in_time = Automata(NAMES, {}).automaton((*filler[1:], ("阿里", 5.0)))
    assert late is not None
    assert in_time is not None
    assert len(in_time) == len(late) + 2


def test_the_lists_used_last_are_kept() -> None:
    automata = Automata(NAMES, {})
    lists = [(("阿里", 1.0 + k / 64),) for k in range(33)]
    built = [automata.automaton(one) for one in lists[:32]]
    assert automata.automaton(lists[0]) is built[0]
    automata.automaton(lists[32])
    assert automata.automaton(lists[0]) is built[0]
    assert automata.automaton(lists[1]) is not built[1]


def test_states_and_what_is_undecided_are_bounded() -> None:
    """Also with a list that is made for having many."""
    rng = np.random.default_rng(0)
    names = [*NAMES[:3], *(chr(0x4E00 + k) for k in range(10)), "<unk>"]
    words = {"".join(rng.choice(names[3:13], MOST_TOKENS)) for _ in range(MOST_WORDS)}
    automaton = Automata(names, {}).automaton(tuple((word, 5.0) for word in sorted(words)))
    assert automaton is not None
    assert len(automaton) > 6000
    search = Search(automaton)
    most = 0
    for length in range(1, 2000, 40):
        places = np.stack([3 + rng.permutation(10) for _ in range(40)])
        scores = -np.sort(rng.random((40, 10)).astype(np.float32) * 0.1, axis=1)
        assert len(search.take(places, scores)) == length + 39
        most = max(most, len(search._states))
        assert search._undecided <= 512
    assert 100 < most <= 256
