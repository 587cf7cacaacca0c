"""What there is to choose from: recognition models and voices, in the shapes of the
earlier FunSpeech (zaigie/FunSpeech)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from app.api.auth import enter
from app.api.doors import Doors
from app.api.health import notices
from app.core.errors import InvalidRequest
from app.core.speech import Voice
from app.engines.base import RecognizerCapabilities
from app.voices.aliases import AliasFileError

if TYPE_CHECKING:
    from app.serving.pool import Pool, ReplicaStatus


def router(doors: Doors) -> APIRouter:
    """``/stream/v1/asr/models`` and ``/stream/v1/tts/voices…``."""
    routes = APIRouter(tags=["catalogue"])

    @routes.get("/stream/v1/asr/models", summary="Recognition models")
    async def models(request: Request) -> dict[str, Any]:
        enter(request, doors.access)
        listed = _models(doors.pool.status("asr"), doors.asr_model_mode)
        return {
            "models": listed,
            "total": len(listed),
            "loaded_count": sum(model["loaded"] for model in listed),
            "asr_model_mode": doors.asr_model_mode,
        }

    @routes.get("/stream/v1/tts/voices", summary="Names of the voices")
    async def voices(request: Request) -> dict[str, Any]:
        enter(request, doors.access)
        names = [voice.name for voice in doors.voices.list()]
        return {"voices": names, "total": len(names)}

    @routes.get("/stream/v1/tts/voices/info", summary="The voices in detail")
    async def voices_info(request: Request) -> dict[str, Any]:
        enter(request, doors.access)
        listed = doors.voices.list()
        sample_rate = _synthesis_rate(doors.pool)
        available = doors.pool.ready("tts")
        presets = sum(voice.kind == "preset" for voice in listed)
        return {
            "voices": {voice.name: _voice(voice, sample_rate, available) for voice in listed},
            "total": len(listed),
            "preset_count": presets,
            "clone_count": len(listed) - presets,
        }

    @routes.post("/stream/v1/tts/voices/refresh", summary="Read the voice files again")
    async def refresh(request: Request) -> dict[str, Any]:
        enter(request, doors.access)
        try:
            await asyncio.to_thread(doors.voices.refresh)
        except AliasFileError as error:
            raise InvalidRequest(f"{error}; the voices stay as they were") from None
        names = [voice.name for voice in doors.voices.list()]
        return {"message": "音色配置已刷新", "voices": names, "total": len(names)}

    return routes


def _models(replicas: list[ReplicaStatus], mode: str) -> list[dict[str, Any]]:
    """One entry per model that has been ready: the server's own, which is the default, by its
    engine's name, and those of MODELS_FILE by their labels, which projects choose by."""
    by_model: dict[tuple[str, str], list[ReplicaStatus]] = {}
    for replica in replicas:
        if replica.engine:
            by_model.setdefault((replica.model, replica.engine), []).append(replica)
    return [_model(label, engine, group, mode) for (label, engine), group in by_model.items()]


def _model(label: str, engine: str, group: list[ReplicaStatus], mode: str) -> dict[str, Any]:
    loaded = any(replica.ready for replica in group)
    known = next((replica.capabilities for replica in group if replica.capabilities), None)
    # The earlier FunSpeech shows folders here. Our path is the engine's name: where files lie is
    # our own affair.
    files = {"path": engine, "exists": loaded}
    notice = " ".join(notices(group))
    return {
        "id": label or engine,
        "name": label or engine,
        "engine": engine,
        "description": notice,
        "languages": list(known.languages) if known else [],
        "default": not label,
        "loaded": loaded,
        "supports_realtime": isinstance(known, RecognizerCapabilities) and known.partials,
        "offline_model": files,
        "realtime_model": files,
        "asr_model_mode": mode,
        "notice": notice,
    }


def _synthesis_rate(pool: Pool) -> int | None:
    """Hz of the synthesis engine's own audio; None while no worker has told."""
    rates = (r.capabilities.sample_rate for r in pool.status("tts") if r.capabilities)
    return next(rates, None)


def _voice(voice: Voice, sample_rate: int | None, available: bool) -> dict[str, object]:
    return {
        "type": voice.kind,
        "language": voice.language,
        "gender": voice.gender,
        "description": voice.description,
        "name": voice.name,
        "sample_rate": sample_rate,
        "available": available,
    }
