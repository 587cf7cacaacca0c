"""uvicorn, set up for NLS clients.

What differs from its defaults, and why (nls-protocol.md 1.8, 1.9): protocols of our own
(``connections.py``); no server pings; no compression; nothing that could print a URL, since a URL
may carry a token; no signal handlers.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Generator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from app.api.connections import NlsHttpProtocol, NlsWebSocketProtocol


class Server(uvicorn.Server):
    """A uvicorn server that leaves the process's signals alone: whoever runs it drains and ends it
    (``drain.py``). Run it with ``await server.serve(sockets=[...])``, which closes the sockets at
    its end.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting, and say so."""
        await super().startup(sockets)
        if self.started and self._on_started is not None:
            self._on_started()

    @property
    def has_websockets(self) -> bool:
        """Whether a WebSocket is open, or waits for the client's answer to our close frame."""
        return any(isinstance(each, NlsWebSocketProtocol) for each in self.server_state.connections)

    def stop_accepting(self) -> None:
        """Close this server's listening sockets, and only them. A client that connects is refused
        where no other process holds the socket."""
        if self.started:
            for each in self.servers:
                each.close()

    def end_now(self) -> None:
        """End without waiting for anything."""
        self.force_exit = True
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


def build_server(
    app: ASGIApp,
    *,
    max_message_bytes: int,
    stop_grace_s: int = 5,
    ssl_certfile: Path | None = None,
    ssl_keyfile: Path | None = None,
    on_started: Callable[[], None] | None = None,
) -> Server:
    """A server for ``app``.

    ``max_message_bytes``: a larger WebSocket message closes its connection with 1009.
    ``stop_grace_s``: requests that still run when it is told to stop have this long.
    ``on_started`` is called once the server accepts connections.
    """
    config = uvicorn.Config(
        app,
        http=NlsHttpProtocol,
        ws=NlsWebSocketProtocol,
        ws_max_size=max_message_bytes,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        # At INFO its WebSocket protocol prints each URL; at TRACE, scopes and messages.
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=stop_grace_s,
        # The next two would read the environment, which only the config may.
        proxy_headers=False,
        forwarded_allow_ips=[],
        workers=1,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
    )
    return Server(config, on_started)
