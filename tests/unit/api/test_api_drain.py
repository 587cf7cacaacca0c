"""The order of a drain, with connections and a server that only note what they are told."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.access.policy import AccessPolicy
from app.api import drain as drain_module
from app.api.doors import Doors
from app.api.drain import Drain, RequestDoor
from app.api.nls_ws import OUTBOX_FRAMES, WebSocketDoor
from app.core.config import Config
from app.main import build_drain
from app.nls import task as task_module
from tests.support.rawsocket import start


class FakeServer:
    def __init__(self) -> None:
        self.accepting = True
        self.should_exit = False
        self.has_websockets = False
        self.ended_now = False

    def stop_accepting(self) -> None:
        self.accepting = False

    def end_now(self) -> None:
        self.ended_now = self.should_exit = True


class FakeConnection:
    """Closes (leaves the stack) when it is told the step ``closes_at``."""

    def __init__(self, drain: Drain, closes_at: str = "drain") -> None:
        self.told: list[str] = []
        self.stack = ExitStack()
        self.stack.enter_context(drain.connection(self))
        self._closes_at = closes_at

    def _tell(self, step: str) -> None:
        self.told.append(step)
        if step == self._closes_at:
            asyncio.get_running_loop().call_soon(self.stack.close)

    def drain(self) -> None:
        self._tell("drain")

    def finish_early(self) -> None:
        self._tell("finish_early")

    def cut_off(self) -> None:
        self._tell("cut_off")


@pytest.fixture
def server() -> Any:
    return FakeServer()


async def finished(server: Any) -> None:
    async with asyncio.timeout(20):
        while not server.should_exit:  # noqa: ASYNC110 - the server is only told by this field
            await asyncio.sleep(0.001)


async def refusing(drain: Drain) -> None:
    async with asyncio.timeout(20):
        while not drain.refusing:  # noqa: ASYNC110 - nobody else waits for this
            await asyncio.sleep(0.001)


async def test_without_work_it_ends_by_itself(server: Any) -> None:
    drain = Drain(0, 60)
    assert (drain.begun, drain.refusing) == (False, False)
    idle = FakeConnection(drain)
    drain.begin(server)
    assert drain.begun
    await finished(server)
    assert drain.refusing
    assert not server.accepting
    assert idle.told == ["drain"]
    assert not server.ended_now


async def test_it_waits_for_tasks_and_requests(server: Any) -> None:
    drain = Drain(0, 60)
    busy = FakeConnection(drain, closes_at="")
    request = drain.request()
    request.__enter__()
    drain.begin(server)
    await refusing(drain)
    busy.stack.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not server.should_exit
    request.__exit__(None, None, None)
    await finished(server)
    assert busy.told == ["drain"]


async def test_at_the_deadline_each_gets_what_it_needs(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "EARLY_FINISH_S", 0.01)
    drain = Drain(0, 0)
    ends = FakeConnection(drain, closes_at="finish_early")
    hangs = FakeConnection(drain, closes_at="cut_off")
    drain.begin(server)
    await finished(server)
    assert ends.told == ["drain", "finish_early"]
    assert hangs.told == ["drain", "finish_early", "cut_off"]


async def test_a_newcomer_holds_nobody_up_and_is_closed_in_the_end(server: Any) -> None:
    drain = Drain(0, 60)
    busy = FakeConnection(drain, closes_at="")
    drain.begin(server)
    await refusing(drain)
    late = FakeConnection(drain, closes_at="cut_off")
    busy.stack.close()
    await finished(server)
    assert late.told == ["cut_off"]


async def test_during_the_delay_nothing_is_refused_and_the_second_time_ends_it(server: Any) -> None:
    drain = Drain(60, 60)
    busy = FakeConnection(drain)
    drain.begin(server)
    await asyncio.sleep(0)
    assert (drain.begun, drain.refusing, server.accepting) == (True, False, True)
    drain.begin(server)
    assert server.ended_now
    assert busy.told == ["cut_off"]


async def test_a_mistake_of_ours_does_not_keep_the_process_alive(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError

    monkeypatch.setattr(server, "stop_accepting", broken)
    drain = Drain(0, 60)
    drain.begin(server)
    await finished(server)


async def test_requests_are_told_to_use_another_connection(server: Any) -> None:
    drain = Drain(0, 60)
    app = FastAPI()

    @app.get("/")
    async def answer() -> dict[str, str]:
        return {}

    transport = httpx.ASGITransport(RequestDoor(app, drain))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        before = await client.get("/")
        busy = FakeConnection(drain, closes_at="")
        drain.begin(server)
        await refusing(drain)
        after = await client.get("/")
    assert "connection" not in before.headers
    assert (after.status_code, after.headers["connection"]) == (200, "close")
    busy.stack.close()
    await finished(server)


async def test_the_settings_reach_it(server: Any) -> None:
    drain = build_drain(Config(drain_delay_seconds=60, drain_timeout_seconds=0))
    drain.begin(server)
    await asyncio.sleep(0)
    assert not drain.refusing
    drain.begin(server)


class SlowClient:
    """A WebSocket client in memory that takes nothing until it is told to."""

    def __init__(self, *texts: str) -> None:
        self.takes = asyncio.Event()
        self.got: list[Any] = []
        self._says = [{"type": "websocket.connect"}] + [
            {"type": "websocket.receive", "text": text} for text in texts
        ]

    async def receive(self) -> Any:
        if not self._says:
            await asyncio.Event().wait()
        return self._says.pop(0)

    async def send(self, message: Any) -> None:
        if message["type"] != "websocket.accept":
            await self.takes.wait()
        self.got.append(message)


async def test_a_task_whose_client_is_behind_is_logged_before_the_connection_closes(
    world: Any, server: Any, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_module, "REPLY_DELAY_S", 0.0)  # its pause would hide the race
    drain = Drain(0, 60)
    world.synthesis.pieces = [b"x" * 100] * OUTBOX_FRAMES
    client = SlowClient(start("SpeechSynthesizer"))
    doors = Doors(
        recognition=world.recognition,
        synthesis=world.synthesis,
        pool=world.pool,
        voices=world.voices,
        access=AccessPolicy(None, None),
        drain=drain,
    )
    scope = {"type": "websocket", "path": "/ws/v1", "headers": [], "query_string": b""}
    serving = asyncio.create_task(
        WebSocketDoor(FastAPI(), doors)(scope, client.receive, client.send)
    )
    async with asyncio.timeout(20):
        await world.synthesis.closed.wait()  # all that is left to do is to send
        drain.begin(server)
        await refusing(drain)
        client.takes.set()
        await serving
    assert [message["type"] for message in client.got[-2:]] == ["websocket.send", "websocket.close"]
    assert client.got[-1]["code"] == 1001
    assert len(client.got) == OUTBOX_FRAMES + 3  # accept, Completed, close
    assert [entry["event"] for entry in logged if "task_id" in entry] == ["task completed"]
    await finished(server)
