"""Doing two things for one request, of which one is to watch the client."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.services.alongside import alongside

__all__ = ["alongside", "watch_disconnect"]


async def watch_disconnect(receive: Receive) -> None:
    """Wait until the client has gone.

    Call it when the request's body has been read: what is left of it is thrown away.

    Raises:
        ClientDisconnect: always.
    """
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect
