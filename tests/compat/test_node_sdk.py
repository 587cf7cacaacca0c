"""The official Node SDK, unmodified, against a live server (`make test` installs it from npm)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.access.store import open_store
from app.core.config import Config
from tests.support.decoded import decoded
from tests.support.live import live_server
from tests.support.process import serving
from tests.support.sound import joined, main_frequency, silence, tone

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


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_transcribes_recognises_and_synthesises(tmp_path: Path, workers: str) -> None:
    two, one = tmp_path / "two.pcm", tmp_path / "one.pcm"
    two.write_bytes(joined(tone(700), silence(1000), tone(450)).tobytes())
    one.write_bytes(joined(tone(300), silence(500), tone(200)).tobytes())
    async with serving(tmp_path, APPTOKEN="right-token", WORKERS=workers) as served:
        answers = await asyncio.gather(
            node("transcribe", served.ws, "right-token", str(two)),
            node("recognize", served.ws, "right-token", str(one)),
            node("synthesize", served.ws, "right-token", "hello"),
        )
    assert [(code, errors) for code, _, errors in answers] == [(0, "")] * 3
    transcribed, recognised, synthesised = (events for _, events, _ in answers)
    assert [each["result"] for each in named(transcribed, "end")] == [
        "heard 700 ms",
        "heard 450 ms",
    ]
    assert [each["index"] for each in named(transcribed, "begin")] == [1, 2]
    assert named(transcribed, "changed")
    assert transcribed[-1]["event"] == "completed"
    (completed,) = named(recognised, "completed")
    assert completed["result"] == "heard 1000 ms"
    assert synthesised[-1] == {"event": "audio", "bytes": 44 + 32_000}


@pytest.mark.parametrize("format", ["pcm", "mp3", "opus", "opu", "aac", "flac"])
async def test_it_gets_every_format(tmp_path: Path, format: str) -> None:
    file = tmp_path / "audio"
    async with live_server(tmp_path) as live:
        code, events, errors = await node("synthesize", live.ws, "any", "hello", format, str(file))
    assert (code, errors) == (0, "")
    audio, rate = decoded(format, file.read_bytes(), 16_000)
    assert events[-1] == {"event": "audio", "bytes": file.stat().st_size}
    assert 1.0 <= len(audio) / rate < 1.13
    assert abs(main_frequency(audio[rate // 4 : -rate // 4], rate) - 280) < 2


async def test_it_synthesises_a_long_text(tmp_path: Path) -> None:
    """In the namespace of its own, and with subtitles."""
    text = "今天天气很好。" * 200
    async with live_server(tmp_path) as live:
        code, events, errors = await node("synthesize-long", live.ws, "any", text)
    assert (code, errors) == (0, "")
    assert events[-1] == {"event": "audio", "bytes": 44 + len(text) * 6_400}
    headers = [event["message"]["header"] for event in events[:-1]]
    assert {header["namespace"] for header in headers} == {"SpeechLongSynthesizer"}
    subtitles = [entry for meta in named(events, "meta") for entry in meta["subtitles"]]
    assert "".join(entry["text"] for entry in subtitles) == text
    assert [event["event"] for event in events[-2:]] == ["completed", "audio"]


async def test_a_wrong_token_is_refused_at_the_handshake(tmp_path: Path) -> None:
    async with live_server(tmp_path, apptoken="right-token") as live:
        code, events, errors = await node("synthesize", live.ws, "wrong-token-123", "hello")
    assert (code, events) == (1, [])
    assert "403" in errors


async def test_it_creates_a_token(tmp_path: Path) -> None:
    config = Config.model_validate({"data_dir": tmp_path / "data"})
    async with (
        live_server(tmp_path, require_token=True) as live,
        open_store(config) as store,
    ):
        key = await store.create_key()
        code, events, errors = await node("token", live.http, key.id, key.secret)
        assert (code, errors) == (0, "")
        token = events[0]["message"]["Token"]
        assert type(token["ExpireTime"]) is int
        assert token["ExpireTime"] > time.time()
        code, events, errors = await node("synthesize", live.ws, token["Id"], "hello")
        assert (code, errors) == (0, "")
        assert events[-1] == {"event": "audio", "bytes": 44 + 32_000}
        code, events, errors = await node("token", live.http, key.id, "wrong-secret")
    assert (code, events) == (1, [])
    assert errors.startswith("Specified signature is not matched with our calculation.")


async def test_many_starts_in_a_row_do_not_hang(tmp_path: Path) -> None:
    """Answers are not faster than the SDKs can take them (nls-protocol.md 0.10)."""
    audio = tmp_path / "audio.pcm"
    audio.write_bytes(tone(200).tobytes())
    async with live_server(tmp_path) as live:
        for _ in range(5):
            code, events, _ = await node("recognize", live.ws, "any", str(audio))
            assert code == 0
            assert named(events, "completed")[0]["result"] == "heard 200 ms"
