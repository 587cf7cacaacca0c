"""The signed calls of Alibaba's open API (nls-protocol.md 7): CreateToken, those for hotword
vocabularies, and those for the transcription of recordings.

A request for ``/`` with ``Action`` is such a call; without it, ``/`` is the index. Neither keys nor
signatures are ever logged.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.access.rows import KeyRow
from app.access.store import Store
from app.api import index
from app.api.body import chunks
from app.api.calls import Call, call_of
from app.api.doors import Doors
from app.api.pop_calls import Action, PopCall
from app.api.pop_transcription import TRANSCRIPTION_ACTIONS
from app.api.pop_vocabularies import VOCABULARY_ACTIONS
from app.core.errors import InvalidRequest, Overloaded
from app.nls import pop
from app.nls.pop import Nonces, PopError, RoaRequest, RpcRequest
from app.nls.status import ProtocolError
from app.storage.errors import StorageError

log = structlog.get_logger(__name__)

_MAX_FORM_BYTES: Final = 1024 * 1024
"""A vocabulary of a thousand words of 64 Chinese characters takes 600 KB, percent-encoded."""

_MAX_PARAMETERS: Final = 100
_FORM: Final = "application/x-www-form-urlencoded"


async def create_token(call: PopCall) -> dict[str, object]:
    """CreateToken: a token for the appkey of the access key, or for any."""
    token, row = await call.store.create_token(
        seconds=call.token_s, appkey=call.key.appkey, key_id=call.key.id
    )
    return pop.token_answer(call.request_id, token, row.expires_at, call.key.id)


ACTIONS: Final[Mapping[str, Action]] = MappingProxyType(
    {"CreateToken": create_token, **VOCABULARY_ACTIONS, **TRANSCRIPTION_ACTIONS}
)


def router(doors: Doors) -> APIRouter:
    """The routes, ``/`` among them."""
    routes = APIRouter()
    door = _PopDoor(doors)

    @routes.get("/", tags=["index"], summary="What this server offers; with Action, a signed call")
    async def ask(request: Request) -> Any:
        if "Action" not in request.query_params:
            return index.about(doors)
        return await door.answer(request)

    @routes.post("/", tags=["tokens"], summary="A signed call of the open API")
    async def post(request: Request) -> Response:
        return await door.answer(request)

    # Other SDKs than Java's name a version here, and sign as if they had asked for "/".
    @routes.api_route(
        "/pop/{version}/tokens",
        methods=["GET", "POST"],
        tags=["tokens"],
        summary="CreateToken of the Java and C++ SDKs",
        include_in_schema=False,
    )
    async def tokens(request: Request, version: str) -> Response:
        return await door.answer(request)

    return routes


class _PopDoor:
    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._nonces = Nonces()

    async def answer(self, request: Request) -> Response:
        """Check the signature and do what is asked.

        Raises:
            HTTPException: ``POST /`` without Action.
        """
        call = call_of(request.scope)
        request_id = str(uuid.UUID(call.task_id)).upper()
        try:
            return _answer(await self._serve(request, call, request_id), 200)
        except PopError as error:
            refusal = error
        except InvalidRequest as error:
            refusal = pop.invalid(error.text)
        except Overloaded as error:
            call.reason = error.reason
            refusal = PopError("Throttling.User", 429, error.text)
        except ProtocolError as error:  # the body is too large or too slow
            refusal = PopError("InvalidParameter", error.status.http_status, error.text)
        except StorageError as error:
            log.error("a signed call was not served", error=str(error), task_id=call.task_id)
            refusal = PopError("ServiceUnavailable", 503, "Try again later.")
        call.details["refused"] = refusal.code
        return _answer(pop.error_answer(request_id, refusal), refusal.http_status)

    async def _serve(self, request: Request, call: Call, request_id: str) -> dict[str, object]:
        headers, path = _headers(request), request.scope["path"]
        if path != "/" and pop.is_roa(headers):
            name, parameters = "CreateToken", dict[str, str]()
            signed: RoaRequest | RpcRequest = pop.read_roa(
                request.method, headers, path, time.time()
            )
        else:
            parameters = await self._parameters(request, headers)
            name = _action(path, parameters)
            signed = pop.read_rpc(request.method, parameters, time.time())
        call.details["action"] = name
        store, projects = self._doors.store, self._doors.projects
        if store is None or projects is None:
            raise PopError("ServiceUnavailable", 503, "There is no database.")
        key = await _key(store, signed.key_id)
        # In a thread: to encode a form of that size twice takes tens of milliseconds.
        await asyncio.to_thread(signed.verify, key.secret if key is not None else None)
        assert key is not None  # else verify has raised
        if isinstance(signed, RpcRequest):
            self._nonces.use(signed, time.time())
        return await ACTIONS[name](
            PopCall(
                parameters=parameters,
                key=key,
                request_id=request_id,
                store=store,
                projects=projects,
                token_s=self._doors.token_s,
                access=self._doors.access,
                jobs=self._doors.jobs,
                draining=self._doors.drain.refusing,
            )
        )

    async def _parameters(self, request: Request, headers: Mapping[str, str]) -> dict[str, str]:
        """Of the query, and of the form where there is one."""
        form = bytearray()
        if request.method == "POST" and headers.get("content-type", _FORM).startswith(_FORM):
            idle_s = self._doors.limits.idle_timeout_s
            async with aclosing(chunks(request, _MAX_FORM_BYTES, idle_s, 3 * idle_s)) as pieces:
                async for piece in pieces:
                    form += piece
        return await asyncio.to_thread(_merged, request.scope["query_string"], bytes(form))


def _answer(body: Mapping[str, object], http_status: int) -> Response:
    # Not JSONResponse, whose encoder would hold up the event loop for a long transcription.
    return Response(msgspec.json.encode(body), http_status, media_type="application/json")


async def _key(store: Store, key_id: str) -> KeyRow | None:
    """The access key of this id, unless it is revoked."""
    if not (key_id.isascii() and key_id.isalnum()):
        return None  # nor would every database take it as it is
    key = await store.key(key_id)
    return key if key is not None and key.revoked_at is None else None


def _action(path: str, parameters: Mapping[str, str]) -> str:
    """The action that is asked for, which there is."""
    name = parameters.get("Action")
    if not name:
        if path == "/":
            raise HTTPException(405, headers={"Allow": "GET"})
        raise pop.missing("Action")
    if name not in ACTIONS:
        raise pop.unknown_action()
    return name


def _headers(request: Request) -> dict[str, str]:
    """By lower-case name; of a header that is there twice, the first."""
    headers: dict[str, str] = {}
    for name, value in request.scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())
    return headers


def _merged(*queries: bytes) -> dict[str, str]:
    return pop.merged(pair for query in queries for pair in _pairs(query))


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise pop.invalid(f"There are more than {_MAX_PARAMETERS} parameters.") from None
