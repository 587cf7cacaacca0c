"""The end of an API process in good order.

    SIGTERM ─► readiness off, serving goes on for DRAIN_DELAY_SECONDS: load balancers notice
            ─► no new connections, no new tasks; WebSockets without a task are closed (1001)
            ─► running tasks and requests go on, up to DRAIN_TIMEOUT_SECONDS
            ─► what still runs is ended early: recognition delivers what it heard
            ─► whatever is left is closed; the process ends

uvicorn has no such thing: its own shutdown closes every WebSocket at once, with 1012. So the drain
comes before uvicorn is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from app.api.server import Server

log = structlog.get_logger(__name__)

EARLY_FINISH_S: Final = 2.5
"""For a task that is ended early to deliver what it has."""

_LAST_FRAMES_S: Final = 0.5
"""For the clients to answer our close frames. To end TCP before would reset the connection of one
that is sending, and might cost it the last results."""

_LOOK_S: Final = 0.01


class Drainable(Protocol):
    """An open connection."""

    def drain(self) -> None:
        """Take no new task, and close as soon as there is none."""

    def finish_early(self) -> None:
        """End the running task, with what there is."""

    def cut_off(self) -> None:
        """Close now."""


class Drain:
    """Whether this process still serves, and its way to the end. One per server."""

    def __init__(self, delay_s: float = 0.0, timeout_s: float = 10.0) -> None:
        """``delay_s``: serve on for so long after readiness was turned off. ``timeout_s``: tasks
        and requests may go on for so long after that."""
        self._delay_s = delay_s
        self._timeout_s = timeout_s
        self._connections: set[Drainable] = set()
        self._requests = 0
        # Connections that must end before the server does.
        self._held: set[Drainable] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._refusing = False

    @property
    def begun(self) -> bool:
        """Whether this process is about to end: it is not ready any more."""
        return self._task is not None

    @property
    def refusing(self) -> bool:
        """Whether new tasks are refused."""
        return self._refusing

    def begin(self, server: Server) -> None:
        """Drain, then tell ``server`` to stop. Called again: stop at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(server))
            return
        self._task.cancel()
        for connection in list(self._connections):
            connection.cut_off()
        server.end_now()

    @contextlib.contextmanager
    def connection(self, connection: Drainable) -> Generator[None, None, None]:
        """``connection`` is open while the block runs."""
        self._connections.add(connection)
        try:
            yield
        finally:
            self._connections.discard(connection)
            self._held.discard(connection)
            self._changed.set()

    @contextlib.contextmanager
    def request(self) -> Generator[None, None, None]:
        """An HTTP request is served while the block runs."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._changed.set()

    async def _run(self, server: Server) -> None:
        try:
            log.info("draining", connections=len(self._connections), requests=self._requests)
            await asyncio.sleep(self._delay_s)
            self._refusing = True
            server.stop_accepting()
            self._held = set(self._connections)
            for connection in list(self._connections):
                connection.drain()
            if not await self._quiet(self._timeout_s):
                log.warning(
                    "ending tasks early", connections=len(self._held), requests=self._requests
                )
                for connection in list(self._connections):
                    connection.finish_early()
                await self._quiet(EARLY_FINISH_S)
            for connection in list(self._connections):
                connection.cut_off()
            await _websockets_closed(server)
            log.info("drained", requests=self._requests)
        except Exception:
            log.exception("drain failed")
        finally:
            server.should_exit = True

    async def _quiet(self, wait_s: float) -> bool:
        """Whether all tasks and requests ended within ``wait_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._held or self._requests:
                    self._changed.clear()
                    await self._changed.wait()
        return not self._held and not self._requests


async def _websockets_closed(server: Server) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_FRAMES_S):
            while server.has_websockets:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(_LOOK_S)


class RequestDoor:
    """ASGI middleware: counts the HTTP requests in flight; in a drain, none is answered without
    telling the client to use a new connection for the next."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.refusing:
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        with self._drain.request():
            await self._app(scope, receive, answer)
