"""The first start downloads the models before it serves, with several replicas once; the next one
needs no hub."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import httpx
import pytest

from app.engines.funasr.catalogue import find
from benchmarks.server import end, launch
from tests.support.model_hub import running
from tests.support.process import serving
from tests.support.random_paraformer import write_streaming


async def test_the_port_answers_while_models_come(tmp_path: Path) -> None:
    model = find("paraformer-zh-streaming")
    assert model is not None
    with running({model.source: dict.fromkeys(model.files, b"x" * 1000)}) as hub:
        hub.held, hub.cut_at["model.pt"] = threading.Event(), 500
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        variables = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "LOG_FILE": str(tmp_path / "funspeech.log"),
            "ASR_ENGINE": "funasr",
            "TTS_ENGINE": "fake",
            "ASR_MODEL_MODE": "realtime",
            "MODELSCOPE_CACHE": str(tmp_path / "cache"),
            "MODELSCOPE_ENDPOINT": hub.url,
            "NO_PROXY": "127.0.0.1",
            "HOME": str(tmp_path / "home"),
        }
        process = await launch("app", "serve", folder=tmp_path, variables=variables)
        try:
            assert await asyncio.to_thread(hub.reached.wait, 60)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                assert (await http.get("/health/live")).status_code == 200
                ready = await http.get("/health/ready")
        finally:
            await end(process)
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert process.stdout is not None
    assert b"FunSpeech serves at" not in await process.stdout.read()


@pytest.mark.slow
async def test_models_are_downloaded_once_and_before_it_serves(tmp_path: Path) -> None:
    model = find("paraformer-zh-streaming")
    assert model is not None
    small = write_streaming(tmp_path / "published")
    content = {path.name: path.read_bytes() for path in small.iterdir()}
    with running({model.source: content}) as hub:
        variables = {
            "ASR_ENGINE": "funasr",
            "ASR_GPUS": "cpu,cpu",
            "ASR_MODEL_MODE": "realtime",
            "FUNASR_PUNCTUATION_MODEL": "none",
            "FUNASR_VAD_MODEL": "none",
            "FUNASR_THREADS": "1",
            "MAX_STREAMS": "2",
            "MODELSCOPE_CACHE": str(tmp_path / "cache"),
            "MODELSCOPE_ENDPOINT": hub.url,
            "NO_PROXY": "127.0.0.1",
            "HOME": str(tmp_path / "home"),
        }
        async with serving(tmp_path, **variables) as served:
            assert "recognition  funasr: " in served.banner
            async with httpx.AsyncClient(base_url=served.http, timeout=30) as http:
                assert (await http.get("/health/ready")).status_code == 200
            assert len(served.children("app.serving.worker")) == 3
        assert sorted(hub.fetched()) == sorted(model.files)
    folder = tmp_path / "cache" / "models" / model.source
    assert {name: (folder / name).read_bytes() for name in model.files} == content

    async with serving(tmp_path, **variables) as served:  # the hub has gone
        assert "recognition  funasr: " in served.banner
