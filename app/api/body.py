"""Reading request bodies of unknown size and speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request

from app.nls.status import CLIENT_ERROR, IDLE_TIMEOUT, ProtocolError, Status

TOO_LARGE = Status(CLIENT_ERROR.code, CLIENT_ERROR.reason, 413)


async def chunks(
    request: Request, limit: int, idle_s: float, whole_s: float
) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, never empty pieces. The content type does not matter: ``curl
    --data-binary`` labels audio as a form (nls-protocol.md 6.1).

    Raises:
        ProtocolError: more than ``limit`` bytes (known at once if the client declares its
            length), nothing arrived for ``idle_s`` seconds, or not all of it in ``whole_s``.
        ClientDisconnect: the client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    size, until = 0, time.monotonic() + whole_s
    async with aclosing(request.stream()) as stream:
        while (chunk := await _next(stream, min(idle_s, until - time.monotonic()))) is not None:
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            if chunk:
                yield chunk


async def read_json(request: Request, limit: int, idle_s: float) -> dict[str, object]:
    """The body as a JSON object.

    Raises:
        ProtocolError: not JSON, not an object or nested too deeply to read; or as :func:`chunks`.
        ClientDisconnect: as :func:`chunks`.
    """
    body = bytearray()
    async with aclosing(chunks(request, limit, idle_s, 3 * idle_s)) as pieces:
        async for piece in pieces:
            body += piece
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The cloud's words (nls-protocol.md 6.2).
        raise ProtocolError(CLIENT_ERROR, "in post data, json format illegal") from None


async def _next(stream: AsyncGenerator[bytes, None], idle_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(idle_s):
            return await anext(stream, None)
    except TimeoutError:
        raise ProtocolError(
            IDLE_TIMEOUT, "the request body did not arrive in time: send it without pauses"
        ) from None


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError(
        TOO_LARGE, f"the request body is larger than {limit} bytes: send less, or in parts"
    )
