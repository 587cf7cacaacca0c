"""``GET`` and ``POST /stream/v1/tts``: text in, audio out (nls-protocol.md 6.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api.audio_stream import MEDIA_TYPE, AudioStream
from app.api.auth import admit, credentials
from app.api.body import read_json
from app.api.calls import Call, call_of
from app.api.concurrency import alongside, watch_disconnect
from app.api.doors import Doors
from app.audio.encode import ENCODABLE
from app.core.errors import SpeechError
from app.core.project import Project
from app.nls.parameters import synthesis_request, with_defaults

_LONGEST_BUFFERED = 300
"""Characters. Up to here (the cloud's own limit for this door) the audio is small enough to be
held back until its length is known; beyond, the client hears it while it is being made."""

_FIELDS = {
    "text": ("string", "what to say, or SSML"),
    "voice": ("string", "see /stream/v1/tts/voices; xiaoyun by default"),
    "format": ("string", f"pcm by default; one of {', '.join(ENCODABLE)}"),
    "sample_rate": ("integer", "Hz, 16000 by default"),
    "volume": ("integer", "0 to 100, 50 by default"),
    "speech_rate": ("integer", "-500 to 500, 0 by default"),
    "pitch_rate": ("integer", "-500 to 500, 0 by default"),
    "prompt": ("string", "how to speak, for engines that take such a thing"),
    "enable_ssml": ("boolean", "false: a text that looks like SSML is none"),
    "enable_aigc_tag": (
        "boolean",
        "say in the file that a machine made it, where it can hold that",
    ),
    "aigc_propagator": ("string", "who passes the file on, for that mark"),
    "aigc_propagate_id": ("string", "and their number for it"),
    "appkey": ("string", "project"),
    "token": ("string", "instead of the header X-NLS-Token"),
}
_OPENAPI_GET: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": name == "text",
            "schema": {"type": kind},
            "description": text,
        }
        for name, (kind, text) in _FIELDS.items()
    ]
}
_OPENAPI_POST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["text"],
                    "properties": {
                        name: {"type": kind, "description": text}
                        for name, (kind, text) in _FIELDS.items()
                    },
                }
            }
        },
    }
}


def router(doors: Doors) -> APIRouter:
    """The two routes, on the given services."""
    routes = APIRouter(tags=["synthesis"])
    limits = doors.limits

    @routes.get("/stream/v1/tts", summary="Speak a text", openapi_extra=_OPENAPI_GET)
    async def speak_query(request: Request) -> Response:
        call = _call(request)
        project = admit(request, doors.access)
        appkey = credentials(request).appkey
        return await _speak(request, dict(request.query_params), appkey, project, call, doors)

    @routes.post("/stream/v1/tts", summary="Speak a text", openapi_extra=_OPENAPI_POST)
    async def speak_json(request: Request) -> Response:
        call = _call(request)
        try:
            fields = await read_json(request, limits.max_json_bytes, limits.idle_timeout_s)
        except SpeechError:
            # The credentials may be in the body that cannot be read; without any, say that first.
            admit(request, doors.access)
            raise
        presented = credentials(request).or_else(fields.get("token"), fields.get("appkey"))
        project = doors.access.check(presented.token, presented.appkey)
        return await _speak(request, fields, presented.appkey, project, call, doors)

    return routes


def _call(request: Request) -> Call:
    call = call_of(request.scope)
    call.family = "synthesis"
    return call


async def _speak(
    request: Request,
    fields: Mapping[str, object],
    appkey: str | None,
    project: Project,
    call: Call,
    doors: Doors,
) -> Response:
    wanted = synthesis_request(
        with_defaults(fields, project),
        task_id=call.task_id,
        appkey=appkey or "",
        formats=doors.synthesis_formats,
        max_text_chars=doors.limits.max_text_chars,
        project=project,
    )
    # There is nowhere to put them (nls-protocol.md 6.2), so nobody need work them out.
    wanted = msgspec.structs.replace(wanted, subtitles=False)
    doors.synthesis.check(wanted)
    if len(wanted.text) > _LONGEST_BUFFERED:
        return AudioStream(doors.synthesis.speak(wanted), call.headers, call.task_id)
    audio = await alongside(watch_disconnect(request.receive), doors.synthesis.whole(wanted))
    return Response(audio, headers=call.headers, media_type=MEDIA_TYPE)
