"""The limit of file descriptors."""

from __future__ import annotations

import resource

import pytest
import structlog

from app.serving.descriptors import RESERVE, raise_limit


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The soft and the hard limit of a process that is not this one."""
    values = [1_024, 4_096]

    def set_limit(kind: int, wanted: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        values[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(values))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    return values


def test_the_soft_limit_becomes_the_hard_one(limits: list[int]) -> None:
    with structlog.testing.capture_logs() as entries:
        raise_limit(4_096 - RESERVE)
    assert limits == [4_096, 4_096]
    assert entries == []


def test_too_few_are_one_warning_with_both_numbers(limits: list[int]) -> None:
    with structlog.testing.capture_logs() as entries:
        raise_limit(5_000)
    (entry,) = entries
    assert entry["log_level"] == "warning"
    assert (entry["max_connections"], entry["limit"]) == (5_000, 4_096)


def test_a_system_that_does_not_raise_it_keeps_its_own(
    limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kind: int, wanted: tuple[int, int]) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    with structlog.testing.capture_logs() as entries:
        raise_limit(1_000)
    (entry,) = entries
    assert entry["limit"] == 1_024


def test_no_limit_is_enough(limits: list[int]) -> None:
    limits[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    with structlog.testing.capture_logs() as entries:
        raise_limit(10**9)
    assert entries == []
