"""What this is, for whoever opens the address in a browser, and what is not here."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, WebSocket

from app import __version__
from app.api.doors import Doors
from app.api.errors import deny_path


def about(doors: Doors) -> dict[str, Any]:
    """What this server offers: the answer to ``GET /``, which is at ``pop.py``'s door, too."""
    return {
        "name": "FunSpeech",
        "version": __version__,
        "protocol": "NLS",
        "websocket": "/ws/v1",
        "recognition": "/stream/v1/asr",
        "synthesis": "/stream/v1/tts",
        "models": "/stream/v1/asr/models",
        "voices": "/stream/v1/tts/voices",
        "health": "/health",
        **({"docs": "/docs"} if doors.debug else {}),
    }


def router(doors: Doors) -> APIRouter:
    """The answer to WebSocket handshakes on unknown paths. Include it last."""
    routes = APIRouter()

    @routes.websocket("/{path:path}")
    async def unknown(websocket: WebSocket) -> None:
        await deny_path(websocket)

    return routes
