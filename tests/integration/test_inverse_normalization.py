"""Numbers in figures through the front doors, on the fake engine, which says what a script has."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from app.client.nls import NlsClient
from tests.support.live import live_server
from tests.support.sound import joined, silence, tone

WORDS = [("下午三点半", 200), ("付", 400), ("三点一四元", 600)]
SPOKEN = "".join(text for text, _ in WORDS)
WRITTEN = "下午3:30付3.14元"
AUDIO = joined(tone(1000), silence(1000)).tobytes()


@pytest.fixture
def script(tmp_path: Path) -> dict[str, object]:
    words = [{"text": text, "start_ms": end - 200, "end_ms": end} for text, end in WORDS]
    path = tmp_path / "script.jsonl"
    path.write_text(json.dumps({"text": SPOKEN, "words": words}), encoding="utf-8")
    return {"FAKE_ASR_SCRIPT": str(path)}


async def test_websocket_clients_get_figures_and_the_spoken_words(
    tmp_path: Path, script: dict[str, object]
) -> None:
    async with live_server(tmp_path, engine_settings=script) as live:
        events = await NlsClient(live.ws).transcribe(
            AUDIO,
            enable_inverse_text_normalization=True,
            enable_intermediate_result=True,
            enable_words=True,
        )
    interim = [e.payload["result"] for e in events if e.name == "TranscriptionResultChanged"]
    (final,) = (e.payload for e in events if e.name == "SentenceEnd")
    assert final["result"] == WRITTEN
    assert interim and all(WRITTEN.startswith(text) for text in interim)
    assert [word["text"] for word in final["words"]] == [text for text, _ in WORDS]


@pytest.mark.parametrize(("asked", "text"), [("true", WRITTEN), ("false", SPOKEN), (None, SPOKEN)])
async def test_rest_clients_get_what_they_ask_for(
    tmp_path: Path, script: dict[str, object], asked: str | None, text: str
) -> None:
    query = {"appkey": "demo", "format": "pcm", "sample_rate": "16000"}
    if asked is not None:
        query["enable_inverse_text_normalization"] = asked
    async with (
        live_server(tmp_path, engine_settings=script) as live,
        httpx.AsyncClient(base_url=live.http) as client,
    ):
        answer = await client.post("/stream/v1/asr", params=query, content=AUDIO)
    assert answer.json()["result"] == text
