"""A server in a thread for the commands, which run their own event loops, and clean settings."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from app.core.config import Config

Script = Callable[[ServerConnection], None]


class FakeServer:
    """Plays ``script`` on each WebSocket; answers GET from ``pages`` (path to JSON value)."""

    def __init__(self) -> None:
        self.script: Script = lambda socket: None
        self.pages: dict[str, Any] = {}
        self.tokens: list[str | None] = []
        self._server: Server | None = None

    def start(self, stack: ExitStack, tls: ssl.SSLContext | None = None) -> None:
        """Listen until ``stack`` is closed."""
        self._scheme = "http" if tls is None else "https"
        server = stack.enter_context(
            serve(self._handle, "127.0.0.1", 0, process_request=self._process, ssl=tls)
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        self._server = server

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its http:// or https:// address."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def _handle(self, socket: ServerConnection) -> None:
        self.script(socket)

    def _process(self, socket: ServerConnection, request: Request) -> Response | None:
        self.tokens.append(request.headers.get("X-NLS-Token"))
        path = request.path.partition("?")[0]
        if path == "/ws/v1":
            return None
        if path in self.pages:
            return socket.respond(200, json.dumps(self.pages[path]))
        return socket.respond(404, "not found")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A running fake server."""
    with ExitStack() as stack:
        fake = FakeServer()
        fake.start(stack)
        yield fake


@pytest.fixture
def certificate() -> Path:
    """What ``tls_server`` shows: for another name, signed by itself. The file has its key too."""
    return Path(__file__).parents[2] / "support" / "self_signed.pem"


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[FakeServer]:
    """A running fake server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ExitStack() as stack:
        fake = FakeServer()
        fake.start(stack, context)
        yield fake


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, and no settings in the environment."""
    for name in Config.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
