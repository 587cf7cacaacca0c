"""The benchmark's clients, against a real server with a small model."""

from __future__ import annotations

from pathlib import Path

import torch

from app.engines import registry
from benchmarks.asr_server import Bench
from benchmarks.asr_speech import write_model
from benchmarks.asr_streams import Timing, speak
from benchmarks.random_paraformer import SMALL
from tests.support.live import live_server

TIMING = Timing(ramp_s=0.3, settle_s=1.2, seconds=2.4)


async def test_clients_notice_lags_and_the_server_tells_its_batches(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    settings = {
        "FUNASR_STREAMING_MODEL": str(write_model(tmp_path / "model", SMALL)),
        "FUNASR_PUNCTUATION_MODEL": "none",
        "ASR_MODEL_MODE": "realtime",
        "FUNASR_THREADS": 1,
        "OFFLINE": True,
    }
    engine = registry.load("funasr").recognizer("cpu", settings, lambda _: None)
    async with live_server(tmp_path, asr=engine, tts=None) as live:
        trial = await Bench(live, "small").trial(3, TIMING)
    noticed = trial.noticed
    assert noticed.failed == []
    assert noticed.chunks == 3 * 4
    # A chunk may be heard just before or after the time that is measured, or have no new text.
    assert 3 <= len(noticed.lags) <= 3 * 5
    assert min(noticed.lags) > 0
    assert len(noticed.late) >= 3 * 20
    assert 1.0 <= trial.batch <= 3.0
    assert trial.step_ms > 0


async def test_what_fails_is_told(tmp_path: Path) -> None:
    async with live_server(tmp_path, max_streams=1, tts=None) as live:
        noticed = await speak(live.ws, 2, TIMING)
    assert len(noticed.failed) == 1
    assert "40000005" in noticed.failed[0] or "busy" in noticed.failed[0].lower()
