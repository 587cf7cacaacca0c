"""An HTTP response whose audio is still being made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.concurrency import alongside, watch_disconnect
from app.core.errors import SpeechError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "audio/mpeg"
"""Of every format: the cloud's samples compare for this very string (nls-protocol.md 6.2)."""


class AudioStream(Response):
    """Send pieces of audio as they come, in HTTP chunks.

    The status line waits for the first piece, which has to hold audio and not only a format's
    header, so an engine that fails at once gives a proper error answer: such an error is raised,
    for the exception handlers. A later one can only break the connection off, which the client
    sees as a truncated body. The generator is closed in every case, also when the client goes away
    in the middle.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str], task_id: str
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(headers)
        self._pieces = pieces
        self._task_id = task_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the response. Raises SpeechError only before the first byte."""
        async with aclosing(self._pieces) as pieces:
            try:
                await alongside(watch_disconnect(receive), self._send_all(pieces, send))
            except ClientDisconnect:
                log.info("client left during synthesis", task_id=self._task_id)

    async def _send_all(self, pieces: AsyncGenerator[bytes, None], send: Send) -> None:
        first = await anext(pieces, b"")
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except SpeechError as error:
            # Without a last chunk: a complete body would pass for complete audio.
            log.warning("synthesis broke off", task_id=self._task_id, error=type(error).__name__)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
