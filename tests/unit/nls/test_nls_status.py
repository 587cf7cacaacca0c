from __future__ import annotations

from typing import get_args

import pytest

from app.core import errors
from app.nls.status import (
    ACCESS_DENIED,
    CLIENT_ERROR,
    Family,
    ProtocolError,
    code_of,
    quote,
    status_text,
)


@pytest.mark.parametrize(
    ("error", "family", "code", "http_status"),
    [
        (errors.InvalidRequest(), "recognition", 40000003, 400),
        (errors.InvalidText(), "synthesis", 40010003, 400),
        (errors.UnknownVoice(), "synthesis", 40000003, 400),
        (errors.UnsupportedFormat(), "recognition", 41010100, 400),
        (errors.UnsupportedFormat(), "synthesis", 40010003, 400),
        (errors.UnsupportedSampleRate(), "recognition", 41010101, 400),
        (errors.UnsupportedSampleRate(), "synthesis", 40010003, 400),
        (errors.BadAudio(), "recognition", 40000009, 400),
        (errors.AudioTooLong(), "recognition", 41010104, 400),
        (errors.UnsupportedFormat(), "flash", 40270001, 400),
        (errors.UnsupportedSampleRate(), "flash", 41010101, 400),
        (errors.BadAudio(), "flash", 40270003, 400),
        (errors.AudioTooLong(), "flash", 40270003, 400),
        (errors.InvalidSsml(), "synthesis", 41020001, 400),
        (errors.UnknownAppkey(), "recognition", 40020105, 403),
        (errors.AppkeyMismatch(), "synthesis", 40020106, 403),
        (errors.DailyQuotaUsed(), "flash", 40000005, 429),
        (errors.AccessDenied(), "synthesis", 40000001, 401),
        (errors.Overloaded(), "recognition", 40000005, 429),
        (errors.DeadlineExceeded(), "recognition", 50000000, 504),
        (errors.EngineFailed(), "recognition", 50000000, 500),
        (errors.EngineUnavailable(), "synthesis", 50000001, 503),
        (errors.SpeechError(), "synthesis", 50000000, 500),
        (
            ProtocolError(CLIENT_ERROR, "in post data, json format illegal"),
            "synthesis",
            40000000,
            400,
        ),
    ],
)
def test_each_error_has_its_documented_code(
    error: errors.SpeechError, family: Family, code: int, http_status: int
) -> None:
    status = code_of(error, family)
    assert (status.code, status.http_status) == (code, http_status)


@pytest.mark.parametrize("cls", errors.Overloaded.__subclasses__())
def test_a_refusal_has_a_reason_of_its_own_that_survives_the_way_between_processes(
    cls: type[errors.Overloaded],
) -> None:
    error = errors.from_wire(cls.__name__, "full")
    assert isinstance(error, cls)
    assert error.text == "full"
    assert code_of(error, "synthesis").code == 40000005
    others = [each for each in errors.Overloaded.__subclasses__() if each is not cls]
    assert error.reason not in {errors.Overloaded.reason, *(each.reason for each in others)}


def test_a_new_subclass_has_the_code_of_its_base() -> None:
    class TokenExpired(errors.AccessDenied):
        pass

    assert code_of(TokenExpired(), "recognition") is ACCESS_DENIED


def test_every_class_of_the_error_tree_is_mapped_more_precisely_than_the_root() -> None:
    def tree(cls: type[errors.SpeechError]) -> list[type[errors.SpeechError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in tree(sub))]

    ours = {cls for cls in tree(errors.SpeechError) if cls.__module__ == errors.__name__}
    client_side = ours - {
        errors.SpeechError,
        errors.EngineFailed,
        errors.EngineLost,
        errors.EngineUnavailable,
        errors.DeadlineExceeded,
    }
    families: tuple[Family, ...] = get_args(Family)
    for cls in client_side:
        for family in families:
            assert str(code_of(cls(), family).code).startswith("4"), cls


def test_status_text_is_one_bounded_line() -> None:
    assert status_text(ACCESS_DENIED, "no") == "Gateway:ACCESS_DENIED:no"
    text = status_text(ACCESS_DENIED, "a\r\nb\x00\u202e" + "x" * 10_000)
    assert text.startswith("Gateway:ACCESS_DENIED:abx")
    assert text.isprintable()
    assert len(text) < 400


def test_quoted_client_text_is_cut_and_printable() -> None:
    assert quote("PCM") == "'PCM'"
    assert quote("a\nb\x1b[31m") == "'ab[31m'"
    assert quote("x" * 1_000_000) == "'" + "x" * 64 + "'"
