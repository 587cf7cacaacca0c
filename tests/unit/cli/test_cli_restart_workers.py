"""``funspeech restart-workers``, against a scripted supervisor."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.serving.rolling import socket_name
from app.serving.runtime_folder import runtime_folder

PORT = 20_000 + os.getpid() % 40_000  # other tests of these may run in other processes


@contextmanager
def supervisor(*reports: dict[str, Any]) -> Iterator[list[Any]]:
    """Answers one request with ``reports``; yields what it was asked."""
    asked: list[Any] = []
    with runtime_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / socket_name(PORT)))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as lines:
                asked.append(json.loads(lines.readline()))
                for report in reports:
                    lines.write(json.dumps(report).encode() + b"\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield asked
        thread.join()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["restart-workers", *arguments])


def test_it_tells_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", str(PORT))
    with supervisor(
        {"worker": "asr-0", "state": "restarting"},
        {"worker": "asr-0", "state": "ready", "seconds": 1.5},
        {"done": 1},
    ) as asked:
        done = run("asr-0")
    assert done.exit_code == 0
    assert done.output == "asr-0: restarting\nasr-0: ready again after 1.5 s\n"
    assert asked == [{"restart": ["asr-0"]}]


def test_an_error_is_the_servers_own_text() -> None:
    with supervisor({"error": "the workers are being restarted already"}) as asked:
        done = run("--port", str(PORT))
    assert done.exit_code == 1
    assert "funspeech: the workers are being restarted already" in done.output
    assert asked == [{"restart": []}]


def test_a_server_that_ends_in_the_middle() -> None:
    with supervisor({"worker": "asr-0", "state": "restarting"}):
        done = run("--port", str(PORT))
    assert done.exit_code == 1
    assert "the server ended before it was done" in done.output


def test_no_server() -> None:
    done = run("--port", str(PORT))
    assert done.exit_code == 1
    assert f"no server of this user runs on port {PORT}" in done.output
