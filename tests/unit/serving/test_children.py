"""Supervising one process."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil
import pytest

from app.serving import children
from app.serving.children import Child, ChildSpec, StartFailed


def child(does: str, lines: list[bytes] | None = None, start_timeout_s: float = 30.0) -> Child:
    spec = ChildSpec("stub", "tests.support.stub_child", {"does": does, "secret": "s3cret"}, [])
    kept = [] if lines is None else lines
    return Child(spec, start_timeout_s, lambda source, line: kept.append(line))


async def test_a_child_gets_its_config_is_ready_and_ends_when_told() -> None:
    lines: list[bytes] = []
    stub = child("serve", lines)
    keeping = asyncio.create_task(stub.keep())
    await stub.ready.wait()
    assert stub.facts["config"] == {"does": "serve", "secret": "s3cret"}
    assert stub.pid is not None
    assert "s3cret" not in " ".join(psutil.Process(stub.pid).cmdline())
    pid = stub.pid
    await stub.stop(grace_s=10)
    await keeping
    assert not psutil.pid_exists(pid)
    assert lines == [b"a line without a record"]


async def test_a_killed_child_is_started_again() -> None:
    stub = child("serve")
    keeping = asyncio.create_task(stub.keep())
    await stub.ready.wait()
    first = stub.facts["pid"]
    os.kill(first, signal.SIGKILL)
    while not stub.ready.is_set() or stub.facts["pid"] == first:  # noqa: ASYNC110 - two facts
        await asyncio.sleep(0.01)
    assert stub.restarts == 1
    await stub.stop(grace_s=10)
    await keeping


async def test_what_cannot_work_stops_the_start_with_its_reason() -> None:
    with pytest.raises(StartFailed, match="stub: no weights: run funspeech models pull"):
        await child("refuse").keep()


@pytest.mark.parametrize("does", ["crash", "hang"])
async def test_a_child_that_never_gets_ready_is_given_up(
    does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0,))
    with pytest.raises(StartFailed, match="before it was ready"):
        await child(does, start_timeout_s=0.5).keep()


async def test_a_child_ends_when_its_supervisor_is_gone() -> None:
    stub = child("serve")
    keeping = asyncio.create_task(stub.keep())
    await stub.ready.wait()
    process = psutil.Process(stub.facts["pid"])
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert not process.is_running()
