"""40000005 has several causes. The client need not know which; the owner finds it in the log and in
the figures."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from app.client.errors import NlsTaskFailed
from app.client.nls import NlsClient
from app.core import metrics
from app.services import rendering
from app.services import synthesis as synthesis_service
from app.serving.pool import Pool
from app.serving.worker.speaking_queue import SpeakingQueue
from tests.support.live import Live, live_server
from tests.support.rawsocket import Refused, handshake, opened

TOO_MANY = 40000005

Refuse = Callable[[Live], Any]


def counted(reason: str) -> float:
    """Refusals of this process so far."""
    return float(metrics.REFUSED.labels(reason)._value.get())


async def over_websocket(live: Live) -> None:
    """A second recognition is refused."""
    client = NlsClient(live.ws)
    async with client.transcriber():
        with pytest.raises(NlsTaskFailed) as refused:
            async with client.transcriber():
                pass
    assert refused.value.code == TOO_MANY


async def over_rest(live: Live) -> None:
    """A text is refused beside a recognition."""
    async with NlsClient(live.ws).transcriber(), httpx.AsyncClient(base_url=live.http) as http:
        answer = await http.get("/stream/v1/tts", params={"text": "a", "appkey": "default"})
    assert (answer.status_code, answer.json()["status"]) == (429, TOO_MANY)


async def synthesis(live: Live) -> None:
    """A text is refused."""
    with pytest.raises(NlsTaskFailed) as refused:
        await NlsClient(live.ws).synthesize("a")
    assert refused.value.code == TOO_MANY


async def at_handshake(live: Live) -> None:
    """A second connection is refused."""
    async with opened(live):
        with pytest.raises(Refused):
            await handshake(live)


@pytest.mark.parametrize(
    ("reason", "settings", "refuse"),
    [
        ("streams", {"max_streams": 1}, over_websocket),
        ("appkey", {"max_tasks_per_appkey": 1}, over_websocket),
        ("appkey", {"max_tasks_per_appkey": 1}, over_rest),
        ("first_audio", {}, synthesis),
        ("first_audio", {}, over_rest),
        ("connections", {"max_connections": 1, "apis": 1}, at_handshake),
    ],
)
async def test_a_refusal_is_logged_and_counted_with_its_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    settings: dict[str, Any],
    refuse: Refuse,
) -> None:
    if reason == "first_audio":
        monkeypatch.setattr(SpeakingQueue, "_in_time", lambda self, now: False)
    before = counted(reason)
    with structlog.testing.capture_logs() as entries:
        async with live_server(tmp_path, **settings) as live:
            await refuse(live)
    assert [entry["reason"] for entry in entries if "reason" in entry] == [reason]
    assert counted(reason) - before == 1


async def test_first_audio_includes_the_wait_for_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller waits for that too."""
    now = 0.0

    async def wait_ready(self: Pool, role: str, model: str = "") -> None:
        nonlocal now
        now += 7.0

    clock = types.SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(synthesis_service, "time", clock)
    monkeypatch.setattr(rendering, "time", clock)
    monkeypatch.setattr(Pool, "wait_ready", wait_ready)
    before = metrics.FIRST_AUDIO._sum.get()
    async with live_server(tmp_path, asr=None) as live:
        await NlsClient(live.ws).synthesize("a")
    assert metrics.FIRST_AUDIO._sum.get() - before >= 7.0
