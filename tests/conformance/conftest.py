"""Servers for the checklist of nls-protocol.md 9.

Most tests of a file share one server, ``live``, and its event loop; the others bring their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog

from app.api import nls_ws
from tests.conformance.clock import Clock
from tests.support.live import Live, live_server
from tests.support.sharing import in_one_task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """A server as its users have it, with the fake engines."""
    async with in_one_task(live_server(tmp_path_factory.mktemp("live"))) as live:
        yield live


@pytest_asyncio.fixture(loop_scope="function")
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that the test moves. Its test has an event loop of its own (``OWN_LOOP``) and its own
    server: what was begun ahead of time would otherwise outlast it."""
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    monkeypatch.setattr(loop, "time", clock.loop_time)
    monkeypatch.setattr(nls_ws._Driver, "now", staticmethod(clock.session_time))
    return clock


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does is no error of ours."""
    with structlog.testing.capture_logs() as ours:
        yield
    assert [entry for entry in ours if entry["log_level"] in ("error", "critical")] == []
    theirs = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert theirs == []
