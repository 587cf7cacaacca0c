"""What the owner may write into the database."""

from __future__ import annotations

import msgspec
import pytest

from app.access.rows import ProjectRow
from app.access.values import check_appkey, check_project, check_text
from app.core.errors import InvalidRequest

FULL = ProjectRow(
    appkey="film",
    name="Film 电影",
    max_rate=8000,
    language="zh-Hans-CN",
    voices=("Xiaoyun",),
    max_tasks=0,
    daily_audio_s=3600,
    daily_characters=10**12,
)


def test_what_is_right_passes() -> None:
    check_project(FULL)
    check_project(ProjectRow(appkey="*"))
    check_project(msgspec.structs.replace(FULL, language="en_US", max_rate=48_000))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"appkey": ""}, "not empty"),
        ({"appkey": " a"}, "white space"),
        ({"appkey": "a\tb"}, "Invalid appkey"),
        ({"appkey": "a" * 257}, "Invalid appkey"),
        ({"name": "two\nlines"}, "Invalid name"),
        ({"max_rate": 7999}, "Invalid rate 7999: expected 8000 to 48000"),
        ({"max_rate": 48_001}, "Invalid rate"),
        ({"language": "chinese"}, "Invalid language"),
        ({"language": ""}, "Invalid language"),
        ({"language": "zh" + "-abcdefgh" * 4}, "Invalid language"),
        ({"voices": ("ok", "v" * 257)}, "Invalid voice"),
        ({"max_tasks": -1}, "Invalid limit of tasks"),
        ({"daily_audio_s": -1}, "Invalid daily audio"),
        ({"daily_characters": 10**12 + 1}, "Invalid daily characters"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        check_project(msgspec.structs.replace(FULL, **change))


def test_the_default_projects_appkey_names_no_client() -> None:
    with pytest.raises(InvalidRequest, match="names no client"):
        check_appkey("*")


def test_a_text_may_be_as_long_as_it_says() -> None:
    check_text("note", "n" * 5, 5)
    with pytest.raises(InvalidRequest, match="Invalid note: expected at most 5"):
        check_text("note", "n" * 6, 5)
