"""The outer edge of every HTTP request: its log line, and the end of what nobody expected."""

from __future__ import annotations

import time
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.calls import Call, call_of
from app.api.errors import failure
from app.core import metrics
from app.core.errors import EngineFailed
from app.core.logs import log_ids
from app.nls.status import SERVER_ERROR

log = structlog.get_logger(__name__)

_QUIET_PATHS: Final = frozenset(
    {"/health", "/health/live", "/health/ready", "/stream/v1/asr/health", "/stream/v1/tts/health"}
)
"""Asked every few seconds by an orchestrator: what they answer is not worth a line."""

_LONGEST_LOGGED_PATH: Final = 200


_TASK_PATHS: Final = frozenset({"/stream/v1/asr", "/stream/v1/FlashRecognizer", "/stream/v1/tts"})
"""Each request is a task, to be counted; other paths are a client's choice and no label."""


class Boundary:
    """The outer edge of every HTTP request: one log line, and an answer to what nobody expected.

    The line has no query string: it may carry a token or a text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request. An exception ends here, logged once with its task id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = call_of(scope)
        with log_ids(task_id=call.task_id):
            await self._serve(call, scope, receive, send)

    async def _serve(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        http_status = 0

        async def watched(message: Message) -> None:
            nonlocal http_status
            if message["type"] == "http.response.start":
                http_status = message["status"]
            await send(message)

        began = time.monotonic()
        try:
            await self._app(scope, receive, watched)
        except Exception:
            log.exception("request failed unexpectedly", task_id=call.task_id)
            # If the answer has begun, uvicorn breaks the connection off: the client sees that.
            if not http_status:
                answer = failure(SERVER_ERROR, EngineFailed.default_text, call)
                await answer(scope, receive, watched)
        if scope["path"] in _TASK_PATHS:
            metrics.TASKS.labels(scope["path"], call.code).inc()
        if call.reason:
            metrics.REFUSED.labels(call.reason).inc()
            call.details["reason"] = call.reason
        if http_status not in (200, 503) or scope["path"] not in _QUIET_PATHS:
            log.info(
                "request",
                task_id=call.task_id,
                method=scope["method"],
                path=scope["path"][:_LONGEST_LOGGED_PATH],
                status=http_status,
                ms=round((time.monotonic() - began) * 1000),
                **call.details,
            )
