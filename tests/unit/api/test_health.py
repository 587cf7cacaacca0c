"""Health, models, voices and the index, in the shapes of zaigie/FunSpeech."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import msgspec

from app import __version__
from app.api.drain import Drain


async def test_health(world: Any) -> None:
    async with world.client() as client:
        answer = await client.get("/health")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["status"], body["version"]) == ("healthy", __version__)
    assert body["engines"] == {"asr": ["embedded"], "tts": ["embedded"]}
    assert body["notices"] == ["English commands only.", "For trying out."]
    assert body["replicas"][1] == {
        "role": "asr",
        "name": "asr-1",
        "model": "",
        "engine": "embedded",
        "device": "cpu",
        "ready": True,
        "ok": True,
        "active": 1,
        "capacity": 4,
    }


async def test_live_and_ready(world: Any) -> None:
    async with world.client() as client:
        assert (await client.get("/health/ready")).status_code == 200
        world.pool.down.add("tts")
        waiting = await client.get("/health/ready")
        live = await client.get("/health/live")
        health = await client.get("/health")
    assert waiting.status_code == 503
    assert waiting.json() == {"status": "not ready", "waiting_for": ["tts"]}
    assert (live.status_code, live.json()) == (200, {"status": "alive"})
    assert health.json()["status"] == "unhealthy"
    assert health.json()["engines"]["tts"] == []


async def test_asr_health(world: Any) -> None:
    async with world.client(asr_model_mode="realtime") as client:
        up = (await client.get("/stream/v1/asr/health")).json()
        world.pool.down.add("asr")
        down = (await client.get("/stream/v1/asr/health")).json()
    assert up.pop("replicas")[0]["name"] == "asr-0"
    assert up == {
        "status": "healthy",
        "version": __version__,
        "message": "ASR service is running normally",
        "model_loaded": True,
        "device": "cpu",
        "loaded_models": ["embedded"],
        "asr_model_mode": "realtime",
        "notice": "English commands only.",
    }
    assert (down["status"], down["model_loaded"]) == ("unhealthy", False)
    assert (down["loaded_models"], down["device"]) == ([], "")


async def test_tts_health(world: Any) -> None:
    async with world.client() as client:
        body = (await client.get("/stream/v1/tts/health")).json()
    assert body.pop("replicas")[0]["ok"] is True
    assert body == {
        "status": "healthy",
        "sft_model_loaded": True,
        "tts_model_loaded": True,
        "device": "cpu",
        "preset_voices": ["中文女"],
        "version": __version__,
        "notice": "For trying out.",
    }


async def test_models(world: Any) -> None:
    async with world.client() as client:
        body = (await client.get("/stream/v1/asr/models")).json()
        world.pool.down.add("asr")
        none = (await client.get("/stream/v1/asr/models")).json()
    files = {"path": "embedded", "exists": True}
    assert body == {
        "models": [
            {
                "id": "embedded",
                "name": "embedded",
                "engine": "embedded",
                "description": "English commands only.",
                "languages": ["en-US"],
                "default": True,
                "loaded": True,
                "supports_realtime": True,
                "offline_model": files,
                "realtime_model": files,
                "asr_model_mode": "all",
                "notice": "English commands only.",
            }
        ],
        "total": 1,
        "loaded_count": 1,
        "asr_model_mode": "all",
    }
    assert (none["models"], none["loaded_count"]) == ([], 0)


async def test_each_model_of_the_server_is_listed_by_its_label(world: Any) -> None:
    own = world.pool.status
    telephone = [SimpleNamespace(**vars(each)) for each in own("asr")]
    for each in telephone:
        each.model = "telephone"
    telephone[1].ready = False
    world.pool.status = lambda role: own(role) + (telephone if role == "asr" else [])
    async with world.client() as client:
        body = (await client.get("/stream/v1/asr/models")).json()
        replicas = (await client.get("/health")).json()["replicas"]
    listed = [(each["id"], each["engine"], each["default"]) for each in body["models"]]
    assert listed == [("embedded", "embedded", True), ("telephone", "embedded", False)]
    assert (body["total"], body["loaded_count"]) == (2, 2)
    assert [each["model"] for each in replicas] == ["", "", "telephone", "telephone", "", ""]


async def test_an_engine_without_interim_results_is_not_for_real_time(world: Any) -> None:
    world.pool.recognizer = msgspec.structs.replace(world.pool.recognizer, partials=False)
    async with world.client() as client:
        body = (await client.get("/stream/v1/asr/models")).json()
    assert body["models"][0]["supports_realtime"] is False


async def test_voices(world: Any) -> None:
    async with world.client() as client:
        names = (await client.get("/stream/v1/tts/voices")).json()
        info = (await client.get("/stream/v1/tts/voices/info")).json()
    assert names == {"voices": ["中文女", "me"], "total": 2}
    assert info["voices"]["中文女"] == {
        "type": "preset",
        "language": "zh-CN",
        "gender": "female",
        "description": "标准中文女声",
        "name": "中文女",
        "sample_rate": 22050,
        "available": True,
    }
    assert info["voices"]["me"]["type"] == "clone"
    assert (info["total"], info["preset_count"], info["clone_count"]) == (2, 1, 1)


async def test_voices_while_no_worker_is_ready(world: Any) -> None:
    world.pool.down.add("tts")
    async with world.client() as client:
        info = (await client.get("/stream/v1/tts/voices/info")).json()
    assert info["voices"]["中文女"]["available"] is False
    assert info["voices"]["中文女"]["sample_rate"] is None


async def test_refresh(world: Any) -> None:
    async with world.client() as client:
        body = (await client.post("/stream/v1/tts/voices/refresh")).json()
    assert body == {"message": "音色配置已刷新", "voices": ["中文女", "me"], "total": 2}
    assert world.voices.refreshed == 1


async def test_index(world: Any) -> None:
    async with world.client() as client:
        body = (await client.get("/")).json()
    assert body["name"] == "FunSpeech"
    assert body["websocket"] == "/ws/v1"
    assert "docs" not in body


async def test_a_server_that_is_about_to_end_is_alive_and_not_ready(world: Any) -> None:
    drain = Drain(delay_s=60)
    server: Any = Mock()
    async with world.client(drain=drain) as client:
        drain.begin(server)
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
        drain.begin(server)
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert live.status_code == 200
