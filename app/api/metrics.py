"""``GET /metrics`` for Prometheus; a token is required as at every door but health."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api.auth import enter
from app.api.doors import Doors
from app.core import metrics as figures


def router(doors: Doors) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["metrics"])

    @routes.get("/metrics", summary="Figures of all processes, for Prometheus")
    async def metrics(request: Request) -> Response:
        enter(request, doors.access)
        text = await asyncio.to_thread(figures.exposition, doors.metrics_directory)
        return Response(text, media_type=figures.CONTENT_TYPE)

    return routes
