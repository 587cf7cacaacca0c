"""Proxies whose processes end with their test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.deploy.proxies import HAPROXY, NGINX, Kind, Proxy, running


class StartProxy(Protocol):
    """Start a proxy in front of a port of this machine."""

    def __call__(
        self, kind: Kind, backend: int, replaced: Mapping[str, str] | None = None
    ) -> Proxy:
        """``replaced``: texts of the delivered configuration, and what stands in their place."""
        ...


@pytest.fixture(params=[NGINX, HAPROXY], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each proxy in turn."""
    found = request.param
    assert isinstance(found, Kind)
    return found


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """As many as a test wants."""
    with ExitStack() as stack:
        count = 0

        def start(kind: Kind, backend: int, replaced: Mapping[str, str] | None = None) -> Proxy:
            nonlocal count
            if kind.program is None:
                need(kind.name)
            count += 1
            folder = tmp_path / f"{kind.name}-{count}"
            return stack.enter_context(running(kind, folder, backend, replaced or {}))

        yield start


@pytest.fixture(autouse=True)
def two_api_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One port, and several servers behind it, as with WORKERS=2 in production."""
    monkeypatch.setenv("WORKERS", "2")


def need(program: str) -> None:
    """Skip the test, or fail where nothing may be skipped."""
    reason = f"{program} is not installed (Debian: apt install {program})"
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
