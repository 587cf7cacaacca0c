"""The first start downloads the models before it serves, with several replicas once; the next one
needs no hub."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from app.engines.funasr.catalogue import find
from tests.support.model_hub import running
from tests.support.process import serving
from tests.support.random_paraformer import write_streaming


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
