"""Restarting workers on request: one process, several, and the socket."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from app.serving import children
from app.serving.children import Child, ChildSpec
from app.serving.rolling import Rolling, request_restart


@asynccontextmanager
async def workers(*roles: str, does: str = "idle") -> AsyncIterator[tuple[list[Child], list[str]]]:
    """A running stub for each role, or role and model (``asr/a``), and what they print."""
    lines: list[str] = []
    made = [
        Child(
            ChildSpec(f"{role}-{i}", "tests.support.stub_child", _told(role, does), []),
            30.0,
            60.0,
            lambda source, line: lines.append(f"{source} {line.decode()}"),
        )
        for i, role in enumerate(roles)
    ]
    keeping = [asyncio.create_task(child.keep()) for child in made]
    try:
        for child in made:
            await child.ready.wait()
        lines.clear()
        yield made, lines
    finally:
        for child in made:
            await child.stop(grace_s=10)
        await asyncio.gather(*keeping, return_exceptions=True)


def _told(role: str, does: str) -> dict[str, object]:
    role, _, model = role.partition("/")
    return {"does": does, "role": role, "model": model}


async def reports(rolling: Rolling, *names: str) -> list[dict[str, Any]]:
    found = [dict(each) async for each in rolling.restart(names)]
    for each in found:
        each.pop("seconds", None)
    return found


def drains(lines: list[str]) -> list[str]:
    return [line for line in lines if "drains" in line]


async def test_a_planned_restart_is_no_failure() -> None:
    async with workers("asr") as ((child,), lines):
        told: list[tuple[str, bool]] = []
        child.on_restart = lambda name, planned: told.append((name, planned))
        first = child.pid
        with capture_logs() as logged:
            assert await child.restart(3)
        assert child.ready.is_set()
        assert child.pid != first
        assert child.restarts == 1
        assert told == [("asr-0", True)]
        assert drains(lines) == ["asr-0 drains for 3 s"]
        assert [each for each in logged if each["log_level"] in ("warning", "error")] == []


async def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "DRAIN_GRACE_S", 0.2)
    async with workers("asr", does="ignore a drain") as ((child,), _):
        first = child.pid
        assert await child.restart(0)
        assert child.pid != first


async def test_a_child_that_has_just_ended_by_itself_is_waited_for() -> None:
    async with workers("asr") as ((child,), lines):
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        while child.ready.is_set():  # noqa: ASYNC110 - told by the process' end
            await asyncio.sleep(0.005)
        assert await child.restart(3)
        assert child.restarts == 1
        assert drains(lines) == []


async def test_workers_are_restarted_one_by_one_and_the_only_one_of_its_role_at_once() -> None:
    async with workers("asr", "asr", "tts") as (made, lines):
        pids = [child.pid for child in made]
        done = await reports(Rolling(made, 7.0))
        assert [(each["worker"], each["state"]) for each in done[:-1]] == [
            (name, state)
            for name in ("asr-0", "asr-1", "tts-2")
            for state in ("restarting", "ready")
        ]
        assert done[-1] == {"done": 3}
        assert all(child.pid != pid for child, pid in zip(made, pids, strict=True))
        assert drains(lines) == [
            "asr-0 drains for 7 s", "asr-1 drains for 7 s", "tts-2 drains for 0 s"
        ]  # fmt: skip


async def test_the_only_worker_of_a_model_has_nobody_to_hand_over_to() -> None:
    async with workers("asr", "asr", "asr/a") as (made, lines):
        await reports(Rolling(made, 7.0))
        assert drains(lines) == [
            "asr-0 drains for 7 s",
            "asr-1 drains for 7 s",
            "asr/a-2 drains for 0 s",
        ]


async def test_only_the_named_ones_and_no_unknown_ones() -> None:
    async with workers("asr", "asr") as (made, _):
        rolling = Rolling(made, 1.0)
        assert await reports(rolling, "asr-1", "asr-7") == [
            {"error": "no worker is called asr-7; this server has asr-0, asr-1"}
        ]
        assert [child.restarts for child in made] == [0, 0]
        assert (await reports(rolling, "asr-1"))[-1] == {"done": 1}
        assert [child.restarts for child in made] == [0, 1]


async def test_one_that_does_not_come_back_ends_it() -> None:
    async with workers("asr", "asr") as (made, _):
        made[0].spec = ChildSpec(
            "asr-0", "tests.support.stub_child", {"does": "crash", "role": "asr"}, []
        )
        done = await reports(Rolling(made, 0.1))
        assert done[-1] == {
            "error": "asr-0 did not get ready again; see the log. Not restarted: asr-1"
        }
        assert made[1].restarts == 0


async def test_one_that_cannot_work_any_more_ends_it_but_not_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "RESTART_DELAYS_S", (0.0,))
    async with workers("asr", "asr") as (made, _):
        file = tmp_path / "model.pt"
        config = {"does": "need a file", "file": str(file), "role": "asr"}
        made[0].spec = ChildSpec("asr-0", "tests.support.stub_child", config, [])
        done = await reports(Rolling(made, 0.1))
        assert done[-1] == {
            "error": "asr-0 did not get ready again; see the log. Not restarted: asr-1"
        }
        assert made[1].ready.is_set()
        file.touch()
        await made[0].ready.wait()


async def test_two_requests_at_once_are_one_too_many() -> None:
    async with workers("asr") as (made, _):
        rolling = Rolling(made, 0.1)
        first = aiter(rolling.restart([]))
        await anext(first)
        assert await reports(rolling) == [{"error": "the workers are being restarted already"}]
        assert [each async for each in first][-1] == {"done": 1}
        assert (await reports(rolling))[-1] == {"done": 1}


async def test_the_socket_tells_each_step(tmp_path: Path) -> None:
    async with workers("asr") as (made, _), Rolling(made, 0.1).listening(tmp_path / "s"):
        told = await asyncio.to_thread(lambda: list(request_restart(tmp_path / "s", [])))
    assert [each.get("state") for each in told] == ["restarting", "ready", None]
    assert told[-1] == {"done": 1}


async def test_an_interrupted_command_is_carried_out(tmp_path: Path) -> None:
    async with workers("asr", "tts") as (made, _), Rolling(made, 0.1).listening(tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(msgspec.json.encode({"restart": []}) + b"\n")
        await reader.readline()
        writer.transport.abort()
        while made[1].restarts == 0 or not made[1].ready.is_set():  # noqa: ASYNC110 - two facts
            await asyncio.sleep(0.01)
        assert made[0].restarts == 1


@pytest.mark.parametrize("line", [b"", b"{}\n", b"[1]\n", b'{"restart": 3}\n', b"x" * 100_000])
async def test_nonsense_on_the_socket_is_harmless(tmp_path: Path, line: bytes) -> None:
    async with workers("asr") as (made, _), Rolling(made, 0.1).listening(tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(line)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert made[0].restarts == 0
