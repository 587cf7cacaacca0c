"""The official Node SDK, unmodified, against a live server (`make test` installs it from npm)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import live_server
from tests.support.sound import joined, silence, tone

HERE = Path(__file__).parent / "node"
NODE = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
INSTALLED = NODE is not None and (HERE / "node_modules" / "alibabacloud-nls").is_dir()

if not INSTALLED and os.environ.get("REQUIRE_ALL") == "1":
    raise RuntimeError("Node.js or the npm package alibabacloud-nls is missing: run `make test`")

pytestmark = pytest.mark.skipif(
    not INSTALLED, reason="Node.js or the npm package is missing: run `make test`"
)


async def node(*arguments: str) -> tuple[int | None, list[dict[str, Any]], str]:
    """Run the script; exit code, its events, and stderr."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE,
        str(HERE / "session.cjs"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, [json.loads(line) for line in output.splitlines()], errors.decode()


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event["message"]["payload"] for event in events if event["event"] == name]


async def test_it_transcribes(tmp_path: Path) -> None:
    audio = tmp_path / "audio.pcm"
    audio.write_bytes(joined(tone(700), silence(1000), tone(450)).tobytes())
    async with live_server(tmp_path, apptoken="right-token") as live:
        code, events, errors = await node("transcribe", live.ws, "right-token", str(audio))
    assert (code, errors) == (0, "")
    assert [each["result"] for each in named(events, "end")] == ["heard 700 ms", "heard 450 ms"]
    assert [each["index"] for each in named(events, "begin")] == [1, 2]
    assert named(events, "changed")
    assert [event["event"] for event in events][-1] == "completed"


async def test_it_recognises(tmp_path: Path) -> None:
    audio = tmp_path / "audio.pcm"
    audio.write_bytes(joined(tone(300), silence(500), tone(200)).tobytes())
    async with live_server(tmp_path, apptoken="right-token") as live:
        code, events, errors = await node("recognize", live.ws, "right-token", str(audio))
    assert (code, errors) == (0, "")
    (completed,) = named(events, "completed")
    assert completed["result"] == "heard 1000 ms"


async def test_it_synthesises(tmp_path: Path) -> None:
    async with live_server(tmp_path, apptoken="right-token") as live:
        code, events, errors = await node("synthesize", live.ws, "right-token", "hello")
    assert (code, errors) == (0, "")
    assert events[-1] == {"event": "audio", "bytes": 44 + 32_000}


async def test_a_wrong_token_is_refused_at_the_handshake(tmp_path: Path) -> None:
    async with live_server(tmp_path, apptoken="right-token") as live:
        code, events, errors = await node("synthesize", live.ws, "wrong-token-123", "hello")
    assert (code, events) == (1, [])
    assert "403" in errors
