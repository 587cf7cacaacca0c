"""Supervising one process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from app.serving import children
from app.serving.children import Child, ChildSpec, Pulse, StartFailed


def child(
    does: str,
    lines: list[bytes] | None = None,
    start_timeout_s: float = 30.0,
    hang_timeout_s: float = 60.0,
) -> Child:
    spec = ChildSpec("stub", "tests.support.stub_child", {"does": does, "secret": "s3cret"}, [])
    kept = [] if lines is None else lines
    return Child(spec, start_timeout_s, hang_timeout_s, lambda source, line: kept.append(line))


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


def needing(file: Path) -> Child:
    """A stub that can work only while ``file`` is there."""
    config = {"does": "need a file", "file": str(file)}
    return Child(
        ChildSpec("stub", "tests.support.stub_child", config, []), 30.0, 60.0, lambda *_: None
    )


async def test_what_cannot_work_any_more_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0, 0.01, 0.02))
    file = tmp_path / "model.pt"
    file.touch()
    stub = needing(file)
    keeping = asyncio.create_task(stub.keep())
    await stub.ready.wait()
    file.unlink()
    with capture_logs() as records:
        os.kill(stub.facts["pid"], signal.SIGKILL)
        while stub.restarts < 5:  # more than MAX_FAILED_STARTS
            await asyncio.sleep(0.01)
            assert not keeping.done()
        file.touch()
        await stub.ready.wait()
    errors = [record for record in records if record["log_level"] == "error"]
    died, *refused = errors
    assert "reason" not in died
    assert {each["reason"] for each in refused} == {"no weights: run funspeech models pull"}
    assert len(errors) == stub.restarts  # one line for each
    assert [each["restart_in_s"] for each in errors[:4]] == [0.0, 0.01, 0.02, 0.02]
    await stub.stop(grace_s=10)
    await keeping


async def test_a_reason_is_not_told_of_a_later_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0,))
    file = tmp_path / "model.pt"
    file.touch()
    stub = needing(file)
    keeping = asyncio.create_task(stub.keep())
    await stub.ready.wait()
    file.unlink()
    with capture_logs() as records:
        os.kill(stub.facts["pid"], signal.SIGKILL)
        while stub.restarts < 2:  # noqa: ASYNC110 - a counter
            await asyncio.sleep(0.01)
        file.touch()
        await stub.ready.wait()
        restarts = stub.restarts
        os.kill(stub.facts["pid"], signal.SIGKILL)
        while stub.restarts == restarts:  # noqa: ASYNC110 - a counter
            await asyncio.sleep(0.01)
    last = [record for record in records if record["log_level"] == "error"][-1]
    assert last["exit_code"] == -signal.SIGKILL
    assert "reason" not in last
    await stub.stop(grace_s=10)
    await keeping


async def test_what_a_child_keeps_is_in_the_config_of_the_next_one() -> None:
    stub = child("serve and keep")
    keeping = asyncio.create_task(stub.keep())
    configs: list[dict[str, Any]] = []
    for _ in range(3):
        await stub.ready.wait()
        configs.append(stub.facts["config"])
        assert "keep" not in stub.facts
        os.kill(stub.facts["pid"], signal.SIGKILL)
        while stub.ready.is_set():  # noqa: ASYNC110 - told by the process' end
            await asyncio.sleep(0.005)
    assert [each.get("kept") for each in configs] == [None, 1, 2]
    assert {each["secret"] for each in configs} == {"s3cret"}
    await stub.stop(grace_s=10)
    await keeping


async def test_one_that_vanishes_at_the_start_is_told_of_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0,))
    with capture_logs() as records, pytest.raises(StartFailed) as failed:
        await child("vanish").keep()
    why = "with exit code 255, loading zipformer; it wrote: model.cc:115 no T in the  [31mmetadata"
    assert str(failed.value) == f"stub ended 3 times before it was ready, at last {why}"
    assert [record["reason"] for record in records if "reason" in record] == [why, why]


async def test_what_one_that_served_wrote_is_in_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0,))
    stub = child("serve and vanish")
    with capture_logs() as records:
        keeping = asyncio.create_task(stub.keep())
        while stub.restarts < 3:  # noqa: ASYNC110 - a counter
            await asyncio.sleep(0.01)
        await stub.stop(grace_s=10)
        await keeping
    ended = [record for record in records if record["event"].startswith("process ended")]
    assert len(ended) >= 2
    assert not any("reason" in record for record in ended)


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


def hung_after(pulse: Pulse, looks: int) -> str:
    """What the pulse says at the last of so many looks; nothing at those before."""
    for _ in range(looks - 1):
        assert pulse.look() == ""
    return pulse.look()


def test_silence_counts_as_hung_after_the_timeout() -> None:
    assert hung_after(Pulse(15), 15) == ""
    assert hung_after(Pulse(15), 16) == "no sign of life for 15 s"


def test_a_beat_ends_the_silence() -> None:
    pulse = Pulse(3)
    for _ in range(10):
        assert hung_after(pulse, 3) == ""
        pulse.beat(0)


def test_work_that_does_not_advance_counts_as_hung_after_the_timeout() -> None:
    pulse = Pulse(15)
    pulse.beat(14)
    assert pulse.look() == ""
    pulse.beat(15)
    assert pulse.look() == "its work has not advanced for 15 s"


async def restarted(stub: Child) -> None:
    """Returns once the child serves in another process than now."""
    await stub.ready.wait()
    first = stub.facts["pid"]
    while not stub.ready.is_set() or stub.facts["pid"] == first:  # noqa: ASYNC110 - two facts
        await asyncio.sleep(0.01)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor looks often, as the stub beats often."""
    monkeypatch.setattr(children, "BEAT_SECONDS", 0.05)


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("stop", "no sign of life for "),
        ("block the loop", "its work has not advanced for "),
        ("get stuck", "its work has not advanced for "),
    ],
)
async def test_a_hung_child_is_replaced(does: str, reason: str) -> None:
    stub = child(does, hang_timeout_s=2)
    with capture_logs() as records:
        keeping = asyncio.create_task(stub.keep())
        await restarted(stub)
    (error,) = [record for record in records if record["log_level"] == "error"]
    assert error["event"] == "process hangs, killing it"
    assert error["reason"].startswith(reason)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@pytest.mark.usefixtures("quick_looks")
async def test_a_busy_child_whose_work_advances_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats: list[float] = []
    enough = asyncio.Event()

    def beat(pulse: Pulse, stalled_s: float) -> None:
        beats.append(stalled_s)
        if len(beats) == 40:
            enough.set()

    monkeypatch.setattr(Pulse, "beat", beat)
    stub = child("advance")
    keeping = asyncio.create_task(stub.keep())
    await asyncio.wait_for(enough.wait(), 60)
    # Were it stuck, the last would say 2 s. One may come too early to see the next step.
    assert max(beats) < 1
    await stub.stop(grace_s=10)
    await keeping


async def test_reload_reaches_a_child_that_is_ready_or_still_starting() -> None:
    stub = child("serve in a loop")
    keeping = asyncio.create_task(stub.keep())
    while stub.pid is None:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0.01)
    assert not stub.ready.is_set()
    stub.reload()  # is told once it is ready
    for reloads in (1, 2):
        while stub.facts.get("reloads") != reloads:  # noqa: ASYNC110 - a value, no event
            await asyncio.sleep(0.01)
        stub.reload()
    await stub.stop(grace_s=10)
    await keeping


async def test_one_that_crashes_soon_after_its_start_is_restarted_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0, 0.01, 0.02))
    stub = child("serve and crash")
    with capture_logs() as records:
        keeping = asyncio.create_task(stub.keep())
        while stub.restarts < 4:  # noqa: ASYNC110 - a counter
            await asyncio.sleep(0.01)
    delays = [r["restart_in_s"] for r in records if r["log_level"] == "error"]
    assert delays[:4] == [0.0, 0.01, 0.02, 0.02]
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_one_that_served_long_is_restarted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0, 3600.0))
    monkeypatch.setattr(children, "STABLE_AFTER_S", 0.0)
    stub = child("serve and crash")
    keeping = asyncio.create_task(stub.keep())
    while stub.restarts < 3:  # noqa: ASYNC110 - a counter
        await asyncio.sleep(0.01)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
