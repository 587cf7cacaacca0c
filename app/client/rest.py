"""The REST calls of an NLS server (nls-protocol.md 6.1 and 6.2), and its health and voices."""

from __future__ import annotations

from collections.abc import Mapping
from ssl import SSLContext, create_default_context
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec

from app.client.credentials import token_header, with_token
from app.client.errors import (
    AnswerTimeout,
    ConnectionLost,
    NlsTaskFailed,
    ProtocolViolation,
)
from app.client.messages import SUCCESS
from app.client.unreachable import unreachable
from app.client.urls import http_url, is_secure
from app.client.wire import refusal

_Shape = TypeVar("_Shape")


class Answer(msgspec.Struct, frozen=True):
    """The JSON answer of a recognition, and of any call that fails."""

    status: int
    message: str = ""
    task_id: str = ""
    result: str = ""


class VoiceInfo(msgspec.Struct, frozen=True):
    """A voice of the server. ``language`` is a BCP 47 tag."""

    name: str = ""
    type: str = ""
    language: str = ""
    gender: str = ""
    description: str = ""


class _Voices(msgspec.Struct, frozen=True):
    voices: dict[str, VoiceInfo]


_OCTETS: Final = {"Content-Type": "application/octet-stream"}


class RestClient:
    """REST calls to one server; an async context manager that closes its connections.

    ``url``: the server's http, https, ws or wss address. ``timeout_s``: for any silence of the
    server. ``transport``: replaces the network, for tests.

    Every call raises ServerUnreachable, ConnectionLost, AnswerTimeout, AccessRefused,
    RequestRefused and ProtocolViolation as their classes say, and NlsTaskFailed where the server
    answers with an NLS status.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        appkey: str = "default",
        *,
        timeout_s: float = 60.0,
        ssl: SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._appkey = appkey
        self._token = token
        self._base = http_url(url)
        # Without TLS there is nothing to verify, and loading the certificates takes its time.
        verify = (ssl or create_default_context()) if is_secure(url) else False
        self._http = httpx.AsyncClient(
            base_url=self._base,
            headers=token_header(token),
            timeout=timeout_s,
            verify=verify,
            transport=transport,
            trust_env=False,  # a proxy of the environment is for the web, not for one's own server
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def recognize(
        self, audio: bytes, *, format: str = "pcm", sample_rate: int = 16_000, **options: object
    ) -> Answer:
        """Recognise one short recording. ``options``: nls-protocol.md 6.1."""
        response = await self._call(
            "POST",
            "/stream/v1/asr",
            params=self._query(format=format, sample_rate=sample_rate, **options),
            content=audio,
            headers=_OCTETS,
        )
        answer = _decode(response, Answer)
        if answer.status != SUCCESS:
            raise NlsTaskFailed(answer.status, answer.message)
        return answer

    async def synthesize(
        self,
        text: str,
        *,
        voice: str | None = None,
        format: str = "wav",
        sample_rate: int = 16_000,
        **options: object,
    ) -> bytes:
        """The audio file of ``text``. ``options``: nls-protocol.md 6.2."""
        body = {"appkey": self._appkey, "text": text, "format": format, **options}
        body["sample_rate"] = sample_rate
        if voice is not None:
            body["voice"] = voice
        response = await self._call("POST", "/stream/v1/tts", json=body)
        if not response.headers.get("Content-Type", "").startswith("audio/"):
            answer = _decode(response, Answer)
            raise NlsTaskFailed(answer.status, answer.message)
        return response.content

    async def voices(self) -> list[VoiceInfo]:
        """The server's voices, in its order."""
        response = await self._call("GET", "/stream/v1/tts/voices/info", params=self._query())
        found = _decode(response, _Voices).voices
        return [msgspec.structs.replace(info, name=name) for name, info in found.items()]

    async def health(self) -> dict[str, Any]:
        """What ``/health`` says. It needs no token."""
        response = await self._call("GET", "/health")
        return _decode(response, dict[str, Any])

    def _query(self, **options: object) -> dict[str, str]:
        return {"appkey": self._appkey, **{name: _text(value) for name, value in options.items()}}

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: object = None,
    ) -> httpx.Response:
        query = f"?{urlencode(params)}" if params else ""
        url = with_token(f"{path}{query}", self._token)
        try:
            response = await self._http.request(
                method, url, headers=headers, content=content, json=json
            )
        except (httpx.ConnectTimeout, httpx.ConnectError) as error:
            raise unreachable(self._base, error) from error
        except httpx.TimeoutException as error:
            raise AnswerTimeout(f"{self._base}{path} does not answer") from error
        except httpx.HTTPError as error:
            raise ConnectionLost(f"no usable answer from {self._base}{path}: {error}") from error
        if response.is_success:
            return response
        raise _failure(response)


def _failure(response: httpx.Response) -> Exception:
    """The NLS error in an answer, if it has one."""
    try:
        answer = msgspec.json.decode(response.content, type=Answer)
    except msgspec.MsgspecError:
        return refusal(response.status_code, response.text.strip())
    return NlsTaskFailed(answer.status, answer.message)


def _decode(response: httpx.Response, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(response.content, type=shape)
    except msgspec.MsgspecError as error:
        raise ProtocolViolation(f"{response.url.path} did not answer as expected") from error


def _text(value: object) -> str:
    """A query parameter: NLS wants ``true`` and ``false`` (nls-protocol.md 6.1)."""
    return str(value).lower() if isinstance(value, bool) else str(value)
