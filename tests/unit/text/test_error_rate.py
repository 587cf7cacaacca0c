"""Error rates: against a naive alignment, and on texts that must count as the same."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.error_rate import Errors, disagreement, errors, interval, measure, units

SHORT = st.text("abc", max_size=9)


def naive(reference: str, hypothesis: str) -> tuple[int, int]:
    """(errors, -deletions) by the definition, without any cleverness."""

    @cache
    def best(rows: int, columns: int) -> tuple[int, int]:
        if rows == 0:
            return columns, 0
        if columns == 0:
            return rows, -rows
        same = reference[rows - 1] == hypothesis[columns - 1]
        kept, deleted, inserted = (
            best(rows - 1, columns - 1),
            best(rows - 1, columns),
            best(rows, columns - 1),
        )
        return min(
            (kept[0] + (not same), kept[1]),
            (deleted[0] + 1, deleted[1] - 1),
            (inserted[0] + 1, inserted[1]),
        )

    return best(len(reference), len(hypothesis))


@given(SHORT, SHORT)
def test_the_counts_are_those_of_the_best_alignment(reference: str, hypothesis: str) -> None:
    found = errors(reference, hypothesis)
    assert (found.count, -found.deletions) == naive(reference, hypothesis)
    assert min(found.substitutions, found.deletions, found.insertions) >= 0
    assert found.units == len(reference)
    assert found.units - found.deletions + found.insertions == len(hypothesis)


@given(SHORT, SHORT)
def test_disagreement_has_no_sides(one: str, other: str) -> None:
    found = disagreement(one, other)
    assert found.count == disagreement(other, one).count
    assert found.units == max(len(one), len(other))
    assert (found.rate or 0) <= 1


def test_known_counts() -> None:
    assert errors("今天天气很好", "今天天汽好的") == Errors(
        units=6, substitutions=1, deletions=1, insertions=1
    )
    # One error more right than "c became d, d became x".
    assert errors("abcdef", "abdxef") == Errors(units=6, deletions=1, insertions=1)
    assert errors("abcdef", "bcdefgh") == Errors(
        units=6, substitutions=0, deletions=1, insertions=2
    )
    assert errors("", "ab") == Errors(insertions=2)
    assert errors("", "ab").rate is None
    assert errors("ab", "").rate == 1


def test_long_texts_fit_into_memory() -> None:
    random = np.random.default_rng(1)
    reference = [str(unit) for unit in random.integers(0, 3000, 4000)]
    hypothesis = [unit for index, unit in enumerate(reference) if index % 10]
    assert errors(reference, hypothesis) == Errors(units=4000, deletions=400)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("今天，天气很好。", "今天 天气很好"),
        ("ＷｉＦｉ密码", "wifi密码"),
        ("Turn it ON, please!", "turn it on please"),
        ("don’t", "don't"),
        ("“hello” — world…", "hello world"),
        ("二十个苹果", "20个苹果"),
        ("三个人", "3个人"),
        ("两点半", "2:30"),
        ("百分之二十", "20%"),
        ("２０２６年", "二零二六年"),
        ("1,200元", "一千二百元"),
        ("twenty one apples", "21 apples"),
        ("three people", "3 people"),
        ("O'Brien's", "o'brien's"),
        ("caf\u00e9", "cafe\u0301"),
        ("", " ，。"),
    ],
)
def test_what_sounds_the_same_is_the_same(one: str, other: str) -> None:
    assert units(one) == units(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("20%", "20"),
        ("3.5", "35"),
        ("cant", "can't"),
        ("二十", "三十"),
        ("1,2,3", "1,2"),
    ],
)
def test_what_sounds_different_is_different(one: str, other: str) -> None:
    assert units(one) != units(other)


def test_units_are_characters_digits_and_words() -> None:
    assert units("我用iPhone 15, don't you?") == [
        *("我", "用", "iphone", "1", "5", "don't", "you"),
    ]
    assert units("안녕 세상") == ["안녕", "세상"]
    assert units("ที่นี่ ดี") == ["ที่นี่", "ดี"]
    assert units("こんにちはワールド") == list("こんにちはワールド")


def test_raw_numbers_stay_as_they_were_written() -> None:
    assert units("二十", numerals=False) == ["二", "十"]
    assert units("20", numerals=False) == ["2", "0"]


@given(st.text(max_size=40), st.booleans())
def test_any_text_has_units_without_spaces(text: str, numerals: bool) -> None:
    found = units(text, numerals=numerals)
    assert all(unit and not any(char.isspace() for char in unit) for unit in found)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("今天20度", "CER"),
        ("turn it on 3 times", "WER"),
        ("打开WiFi", "MER"),
        ("2026", "CER"),
        ("", "CER"),
    ],
)
def test_the_name_of_the_measure(text: str, name: str) -> None:
    assert measure(units(text)) == name


# --- the confidence interval ----------------------------------------------------------------


def clips(counts: list[int], size: int = 20) -> list[Errors]:
    return [Errors(units=size, substitutions=count) for count in counts]


def test_a_clear_difference_excludes_zero_and_the_interval_holds_it() -> None:
    first, second = clips([1, 2, 1, 0] * 25), clips([2, 3, 2, 2] * 25)
    found = interval(first, second, seed=0)
    assert found is not None
    low, high = found
    assert 0 < low < 1.25 / 20 < high
    reversed_ = interval(second, first, seed=0)
    assert reversed_ is not None
    assert reversed_ == pytest.approx((-high, -low))


def test_pairing_takes_the_difficulty_of_the_clips_out() -> None:
    """Error rates from 0 to 95 %, but B has one error more in each clip."""
    first = clips([*range(20)])
    second = clips([count + 1 for count in range(20)])
    assert interval(first, second, seed=3) == pytest.approx((0.05, 0.05))


def test_chance_includes_zero() -> None:
    random = np.random.default_rng(5)
    first, second = (clips(random.poisson(2, 200).tolist()) for _ in range(2))
    found = interval(first, second, seed=0)
    assert found is not None
    assert found[0] < 0 < found[1]


def test_the_seed_decides() -> None:
    first, second = clips([1, 0, 4, 2, 3]), clips([0, 2, 1, 3, 3])
    assert interval(first, second, seed=1) == interval(first, second, seed=1)
    assert interval(first, second, seed=1) != interval(first, second, seed=2)


def test_where_there_is_no_interval() -> None:
    assert interval(clips([1]), clips([2]), seed=0) is None
    assert interval(clips([1, 1], 0), clips([2, 2], 0), seed=0) is None
