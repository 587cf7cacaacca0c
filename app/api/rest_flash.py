"""``POST /stream/v1/FlashRecognizer``: a recording in the body, or its URL; all of its sentences in
the answer (nls-protocol.md 6.3)."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.api.auth import admit, credentials
from app.api.body import chunks
from app.api.calls import Call, call_of
from app.api.concurrency import alongside, watch_disconnect
from app.api.doors import Doors
from app.core.errors import UnsupportedFormat
from app.core.project import Project
from app.core.speech import RecognitionRequest
from app.nls.parameters import (
    Values,
    boolean,
    given,
    recognition_request,
    string,
    with_defaults,
)
from app.nls.recordings import Channels, channels, punctuation_marks, sentence_max_length
from app.nls.status import FLASH_NO_VALID_AUDIO, SUCCESS, ProtocolError
from app.services.files import FileSentence, Transcript, recognise_file
from app.services.spool import Spool
from app.text.captions import Caption, CaptionWord, captions

MAX_SPOOLED_FILES: Final = 10
"""Of the greatest size that one API process keeps at the same time; of smaller ones, more. The
cloud serves as many at once (nls-protocol.md 8.3)."""

UPLOAD_TIMEOUT_S: Final = 900.0
"""For a body: 100 MB at 1 Mbit/s. It takes its room on the disk meanwhile."""

FETCH_TIMEOUT_S: Final = 300.0
"""For a recording that is fetched: 100 MB at 3 Mbit/s."""

_OPENAPI: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "schema": {"type": kind}, "description": text}
        for name, kind, text in (
            ("appkey", "string", "project"),
            ("format", "string", "wav, mp3, mp4, aac, opus …; required"),
            ("sample_rate", "integer", "16000 by default; 8000 for a telephone call"),
            ("vocabulary_id", "string", "a list of hotwords"),
            ("customization_id", "string", "likewise"),
            ("enable_inverse_text_normalization", "boolean", "numbers as digits"),
            ("enable_word_level_result", "boolean", "the words of each sentence with their times"),
            ("first_channel_only", "boolean", "true: the first channel; false: each by itself; "
             "by default each of a call, else all of them mixed"),
            ("speech_noise_threshold", "number", "-1 to 1: more is taken for noise"),
            ("special_word_filter", "string", "words to leave out or to mask, as JSON"),
            ("punctuation_mark", "string", "marks that end a sentence besides"),
            ("sentence_max_length", "integer", "4 to 50 characters"),
            ("audio_address", "string", "URL of the recording, in place of a body"),
            ("token", "string", "instead of the header X-NLS-Token"),
        )
    ],
    "requestBody": {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """What a request asks for. ``marks``, ``max_chars``: how sentences are cut."""

    request: RecognitionRequest
    channels: Channels
    words: bool
    marks: str
    max_chars: int | None
    address: str


def router(doors: Doors) -> APIRouter:
    """The route, on the given services."""
    routes = APIRouter(tags=["recognition"])
    limits = doors.limits
    spool = Spool(doors.fetch_folder, MAX_SPOOLED_FILES * limits.max_flash_bytes)

    @routes.post(
        "/stream/v1/FlashRecognizer", summary="Recognise a recording", openapi_extra=_OPENAPI
    )
    async def recognise(request: Request) -> Response:
        call = call_of(request.scope)
        call.family = "flash"
        project = admit(request, doors.access)
        wanted = _wanted(
            with_defaults(dict(request.query_params), project), request, project, doors
        )
        if wanted.address:
            fetching = dataclasses.replace(
                doors.fetch, max_bytes=limits.max_flash_bytes, timeout_s=FETCH_TIMEOUT_S
            )
            recording = spool.fetched(wanted.address, fetching)
            working = _transcribed(recording, wanted, doors, call)
            result = await alongside(watch_disconnect(request.receive), working)
        else:
            async with _uploaded(request, spool, doors) as path:
                working = _recognised(path, wanted, doors, call)
                result = await alongside(watch_disconnect(request.receive), working)
        answer = {
            "task_id": call.task_id,
            "result": "SUCCESS",
            "status": SUCCESS.code,
            "message": "SUCCESS",
            "flash_result": result,
        }
        # In a thread: hours of speech are tens of thousands of words.
        return await asyncio.to_thread(JSONResponse, answer, headers=call.headers)

    return routes


def _wanted(query: Values, request: Request, project: Project, doors: Doors) -> _Wanted:
    if not given(query, "format"):
        # No default: what is no pcm would be heard as noise.
        accepted = ", ".join(doors.recognition_formats)
        raise UnsupportedFormat(f"The format is missing! Accepted: {accepted}.")
    asked = recognition_request(
        query,
        task_id=call_of(request.scope).task_id,
        appkey=credentials(request).appkey or "",
        formats=doors.recognition_formats,
        max_audio_ms=doors.limits.max_flash_ms,
        project=project,
    )
    words = boolean(query, "enable_word_level_result", False)
    marks, max_chars = punctuation_marks(query), sentence_max_length(query)
    options = msgspec.structs.replace(
        asked.options,
        partials=False,
        live=False,
        # A sentence is cut between words.
        words=words or bool(marks) or max_chars is not None,
        punctuation=boolean(query, "enable_punctuation_prediction", True),
    )
    return _Wanted(
        # A file is what somebody chose to send, however quiet; the gate is for live microphones.
        msgspec.structs.replace(asked, options=options, near_field_gate=False, progress=False),
        channels(query, asked.sample_rate),
        words,
        marks,
        max_chars,
        string(query, "audio_address", ""),
    )


@asynccontextmanager
async def _uploaded(request: Request, spool: Spool, doors: Doors) -> AsyncIterator[Path]:
    limits = doors.limits
    body = chunks(request, limits.max_flash_bytes, limits.idle_timeout_s, UPLOAD_TIMEOUT_S)
    async with aclosing(body), spool.kept(body) as path:
        yield path


async def _transcribed(
    recording: AbstractAsyncContextManager[Path], wanted: _Wanted, doors: Doors, call: Call
) -> Mapping[str, object]:
    async with recording as path:
        return await _recognised(path, wanted, doors, call)


async def _recognised(
    path: Path, wanted: _Wanted, doors: Doors, call: Call
) -> Mapping[str, object]:
    """The ``flash_result``.

    Raises:
        ProtocolError: nobody speaks in the recording.
        SpeechError: as :func:`recognise_file`.
    """
    began = time.monotonic()
    found = await recognise_file(
        doors.recognition,
        path,
        wanted.request,
        wanted.channels,
        max_bytes=doors.limits.max_flash_bytes,
    )
    call.details.update(found.heard_as)
    latency_ms = round((time.monotonic() - began) * 1000)
    return await asyncio.to_thread(_result, found, wanted, latency_ms)


def _result(found: Transcript, wanted: _Wanted, latency_ms: int) -> Mapping[str, object]:
    sentences = [shown for each in found.sentences for shown in _sentences(each, wanted)]
    if not sentences:
        raise ProtocolError(FLASH_NO_VALID_AUDIO, "Nobody speaks in the recording.")
    return {
        "duration": found.audio_ms,
        "completed": True,
        "latency": latency_ms,
        "sentences": sentences,
    }


def _sentences(found: FileSentence, wanted: _Wanted) -> list[dict[str, object]]:
    """One, or its parts; none of one in which nothing is said."""
    parts = captions(found.sentence, marks=wanted.marks, max_chars=wanted.max_chars)
    return [_sentence(part, found.channel, wanted) for part in parts if part.text]


def _sentence(part: Caption, channel: int, wanted: _Wanted) -> dict[str, object]:
    shown: dict[str, object] = {
        "text": part.text,
        "begin_time": part.start_ms,
        "end_time": part.end_ms,
        "channel_id": channel,
    }
    if wanted.words:
        shown["words"] = [_word(each) for each in part.words]
    return shown


def _word(shown: CaptionWord) -> dict[str, str]:
    """Its times are strings, other than those of sentences."""
    word = shown.word
    return {
        "text": word.text,
        "begin_time": str(word.start_ms),
        "end_time": str(word.end_ms),
        "punc": shown.marks,
    }
