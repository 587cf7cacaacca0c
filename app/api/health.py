"""Health, for orchestrators, load balancers and people. No token is needed, so nothing secret is
told: no path, no address, no name of a task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app import __version__
from app.api.doors import Doors
from app.core.speech import Role

if TYPE_CHECKING:
    from app.serving.pool import ReplicaStatus

_ROLES: tuple[Role, ...] = ("asr", "tts")


def router(doors: Doors) -> APIRouter:
    """``/health``, ``/health/live``, ``/health/ready`` and the two of the earlier
    FunSpeech (zaigie/FunSpeech)."""
    routes = APIRouter(tags=["health"])
    pool = doors.pool

    @routes.get("/health", summary="Engines, replicas and what they are good for")
    async def health() -> dict[str, Any]:
        found = {role: pool.status(role) for role in _ROLES}
        return {
            "status": _word(all(pool.ready(role) for role in pool.roles)),
            "version": __version__,
            "engines": {role: engines(replicas) for role, replicas in found.items()},
            "replicas": [
                {"role": role, **_replica(replica)}
                for role, replicas in found.items()
                for replica in replicas
            ],
            "notices": [text for replicas in found.values() for text in notices(replicas)],
        }

    @routes.get("/health/live", summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get(
        "/health/ready",
        summary="All that this server offers is ready (503: not yet, or not any more)",
    )
    async def ready() -> JSONResponse:
        if doors.drain.begun:
            return JSONResponse({"status": "draining"}, 503)
        waiting = [role for role in pool.roles if not pool.ready(role)]
        if waiting:
            return JSONResponse({"status": "not ready", "waiting_for": waiting}, 503)
        return JSONResponse({"status": "ready"})

    @routes.get("/stream/v1/asr/health", summary="Recognition")
    async def asr_health() -> dict[str, Any]:
        replicas = pool.status("asr")
        running = pool.ready("asr")
        return {
            "status": _word(running),
            "version": __version__,
            "message": f"ASR service is {'running normally' if running else 'not ready'}",
            "model_loaded": running,
            "device": _devices(replicas),
            "loaded_models": engines([replica for replica in replicas if replica.ready]),
            "asr_model_mode": doors.asr_model_mode,
            "replicas": [_replica(replica) for replica in replicas],
            "notice": " ".join(notices(replicas)),
        }

    @routes.get("/stream/v1/tts/health", summary="Synthesis")
    async def tts_health() -> dict[str, Any]:
        replicas = pool.status("tts")
        running = pool.ready("tts")
        return {
            "status": _word(running),
            "sft_model_loaded": running,
            "tts_model_loaded": running,
            "device": _devices(replicas),
            "preset_voices": [v.name for v in doors.voices.list() if v.kind == "preset"],
            "version": __version__,
            "replicas": [_replica(replica) for replica in replicas],
            "notice": " ".join(notices(replicas)),
        }

    return routes


def engines(replicas: list[ReplicaStatus]) -> list[str]:
    """The engines of some replicas, each once, in their order; a replica that has not yet been
    ready has none to tell."""
    return _distinct(replica.engine for replica in replicas)


def notices(replicas: list[ReplicaStatus]) -> list[str]:
    """What the engines say about themselves for people, each once."""
    return _distinct(replica.capabilities.notice for replica in replicas if replica.capabilities)


def _word(good: bool) -> str:
    return "healthy" if good else "unhealthy"


def _devices(replicas: list[ReplicaStatus]) -> str:
    return ",".join(_distinct(replica.device for replica in replicas))


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))


def _replica(replica: ReplicaStatus) -> dict[str, object]:
    return {
        "name": replica.name,
        "model": replica.model,
        "engine": replica.engine,
        "device": replica.device,
        "ready": replica.ready,
        "ok": replica.ready,  # the word of the earlier FunSpeech
        "active": replica.active,
        "capacity": replica.capacity,
    }
