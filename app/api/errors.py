"""Errors on their way to an HTTP client, or to a WebSocket client before the handshake is done.

Every error of the REST doors is the cloud's JSON, ``{"task_id", "result", "status", "message"}``,
with the HTTP status that belongs to the code (nls-protocol.md 6.1, 8.1).
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from app.api.calls import Call, call_of
from app.core.errors import AccessDenied, EngineFailed, Overloaded, SpeechError
from app.nls.status import (
    CLIENT_ERROR,
    NAMESPACE_NOT_FOUND,
    PARAMETER_INVALID,
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    Status,
    code_of,
    status_text,
)

log = structlog.get_logger(__name__)


def failure(
    status: Status, text: str, call: Call, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The JSON answer of a failed call."""
    call.code = status.code
    content = {
        "task_id": call.task_id,
        "result": "",
        "status": status.code,
        "message": status_text(status, text),
    }
    return JSONResponse(content, status.http_status, {**(headers or {}), **call.headers})


def install(app: FastAPI) -> None:
    """Give ``app`` the handlers of this module."""
    app.add_exception_handler(SpeechError, _speech_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)


async def deny_handshake(websocket: WebSocket, error: AccessDenied) -> None:
    """Answer a WebSocket handshake with 403 and the text that the C++ SDK looks for.

    That SDK reads the body through a header spelled exactly ``Content-Length``; uvicorn writes it
    so, but only if we send none (nls-protocol.md 1.2).
    """
    body = f"Meta:ACCESS_DENIED:{error.text}".encode()
    await _deny(websocket, 403, body)


async def deny_path(websocket: WebSocket) -> None:
    """Answer a handshake on a path that does not exist: 404, not the framework's 403, which
    clients take for a bad token."""
    await _deny(websocket, 404, status_text(NAMESPACE_NOT_FOUND, _NO_SUCH_PATH).encode())


_NO_SUCH_PATH = "RESTful url path illegal"  # the cloud's words (nls-protocol.md 8.1)


async def deny_overload(websocket: WebSocket, text: str) -> None:
    """Answer a handshake for which there is no room: 503, on which proxies try another server, and
    the code and text that a Start would get, as the REST doors write them."""
    await _deny(websocket, 503, failure(TOO_MANY_REQUESTS, text, Call()).body)


async def _deny(websocket: WebSocket, http_status: int, body: bytes | memoryview) -> None:
    await websocket.send(
        {"type": "websocket.http.response.start", "status": http_status, "headers": []}
    )
    await websocket.send({"type": "websocket.http.response.body", "body": body})


async def _speech_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpeechError)
    call = call_of(request.scope)
    if isinstance(error, EngineFailed):
        log.warning("task failed", task_id=call.task_id, error=type(error).__name__)
    if isinstance(error, Overloaded):
        call.reason = error.reason
    return failure(code_of(error, call.family), error.text, call)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses itself: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    call = call_of(request.scope)
    if error.status_code == 404:
        return failure(NAMESPACE_NOT_FOUND, _NO_SUCH_PATH, call)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        status = Status(CLIENT_ERROR.code, CLIENT_ERROR.reason, 405)
        text = f"{request.method} is not allowed here; use {allowed}"
        return failure(status, text, call, error.headers)
    if error.status_code < 500:
        status = Status(CLIENT_ERROR.code, CLIENT_ERROR.reason, error.status_code)
        return failure(status, "the request cannot be served", call, error.headers)
    return failure(SERVER_ERROR, EngineFailed.default_text, call)


async def _validation_error(request: Request, error: Exception) -> Response:
    # The framework's own text would echo the whole input.
    return failure(PARAMETER_INVALID, "invalid parameter", call_of(request.scope))


async def _client_gone(request: Request, error: Exception) -> Response:
    """Nobody reads this answer; 499 is for our own log line."""
    return Response(status_code=499)
