"""``POST /stream/v1/asr``: one utterance in the body, its text in the answer
(nls-protocol.md 6.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.api.auth import admit, credentials
from app.api.body import chunks
from app.api.calls import Call, call_of
from app.api.concurrency import alongside, watch_disconnect
from app.api.doors import Doors
from app.api.fetched import fetched
from app.core.errors import BadAudio
from app.core.joining import join_sentences
from app.core.project import Project
from app.core.speech import RecognitionRequest, SentenceEnded
from app.nls.parameters import WHOLE_UTTERANCE_MS, recognition_request, with_defaults
from app.nls.status import SUCCESS

if TYPE_CHECKING:
    from app.services.recognition import RecognitionTask

_OPENAPI: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "schema": {"type": kind}, "description": text}
        for name, kind, text in (
            ("appkey", "string", "project"),
            ("format", "string", "pcm by default; a hint: see the README for what is read"),
            ("sample_rate", "integer", "Hz of pcm audio, 16000 by default"),
            ("enable_punctuation_prediction", "boolean", "punctuation in the result"),
            ("enable_inverse_text_normalization", "boolean", "numbers as digits"),
            ("disfluency", "boolean", "leave out fillers and repetitions"),
            ("vocabulary_id", "string", "a list of hotwords"),
            ("customization_id", "string", "likewise"),
            ("audio_address", "string", "URL of the audio, in place of a body"),
            ("token", "string", "instead of the header X-NLS-Token"),
        )
    ],
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}


def router(doors: Doors) -> APIRouter:
    """The route, on the given services."""
    routes = APIRouter(tags=["recognition"])

    @routes.post("/stream/v1/asr", summary="Recognise one utterance", openapi_extra=_OPENAPI)
    async def recognise(request: Request) -> Response:
        call = call_of(request.scope)
        project = admit(request, doors.access)
        wanted = _request(request, project, call, doors)
        async with aclosing(_audio(request, doors)) as audio:
            first = await anext(audio, b"")  # no place at an engine for a client that sends nothing
            if not first:
                raise BadAudio("The request body is empty; send the audio in it.")
            async with doors.recognition.open(wanted) as task:
                try:
                    sentences = await alongside(_feed(task, first, audio, request), _collect(task))
                finally:
                    call.details.update(task.heard_as)
        return JSONResponse(
            {
                "task_id": call.task_id,
                "result": join_sentences(sentences),
                "status": SUCCESS.code,
                "message": "SUCCESS",
            },
            headers=call.headers,
        )

    return routes


def _request(request: Request, project: Project, call: Call, doors: Doors) -> RecognitionRequest:
    wanted = recognition_request(
        with_defaults(dict(request.query_params), project),
        task_id=call.task_id,
        appkey=credentials(request).appkey or "",
        formats=doors.recognition_formats,
        max_audio_ms=doors.limits.max_audio_ms,
        project=project,
    )
    options = msgspec.structs.replace(
        wanted.options,
        partials=False,
        live=False,
        max_sentence_silence_ms=WHOLE_UTTERANCE_MS,
    )
    # A file is what somebody chose to send, however quiet; the gate is for live microphones.
    return msgspec.structs.replace(wanted, options=options, near_field_gate=False, progress=False)


async def _audio(request: Request, doors: Doors) -> AsyncGenerator[bytes, None]:
    """The client's bytes: the body as it arrives, or what ``audio_address`` leads to, whole."""
    address = request.query_params.get("audio_address", "").strip()
    if address:
        yield await alongside(watch_disconnect(request.receive), fetched(address, doors))
        return
    limits = doors.limits
    # Live audio may come in real time, so its length is part of the time that it may take.
    longest_s = limits.max_audio_ms / 1000 + limits.idle_timeout_s
    body = chunks(request, limits.max_audio_bytes, limits.idle_timeout_s, longest_s)
    async with aclosing(body):
        async for piece in body:
            yield piece


async def _feed(
    task: RecognitionTask, first: bytes, audio: AsyncGenerator[bytes, None], request: Request
) -> None:
    """Hand the audio over as it arrives, then watch the client. Ends only by an exception or by
    being cancelled."""
    await task.feed_all(first)
    async for piece in audio:
        await task.feed_all(piece)
    task.finish()
    await watch_disconnect(request.receive)


async def _collect(task: RecognitionTask) -> list[str]:
    return [event.text async for event in task.events() if isinstance(event, SentenceEnded)]
