"""The REST client against scripted answers."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from app.client.errors import (
    AccessRefused,
    AnswerTimeout,
    ClientError,
    ConnectionLost,
    NlsTaskFailed,
    ProtocolViolation,
    RequestRefused,
    ServerUnreachable,
)
from app.client.rest import RestClient


def client(handler: Callable[[httpx.Request], httpx.Response]) -> RestClient:
    return RestClient("ws://host:1", "secret", "key", transport=httpx.MockTransport(handler))


def always(response: httpx.Response) -> RestClient:
    return client(lambda request: response)


async def test_recognize() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        assert request.url.copy_with(query=None) == "http://host:1/stream/v1/asr"
        assert dict(request.url.params) == {
            "appkey": "key",
            "format": "wav",
            "sample_rate": "8000",
            "enable_punctuation_prediction": "true",
        }
        assert request.headers["X-NLS-Token"] == "secret"
        assert request.headers["Content-Type"] == "application/octet-stream"
        assert request.content == b"audio"
        answer = {"task_id": "t", "result": "hello", "status": 20_000_000, "message": "SUCCESS"}
        return httpx.Response(200, json=answer)

    async with client(handler) as rest:
        answer = await rest.recognize(
            b"audio", format="wav", sample_rate=8_000, enable_punctuation_prediction=True
        )
    assert (answer.result, answer.task_id) == ("hello", "t")


async def test_synthesize() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == {
            "appkey": "key",
            "text": "你好",
            "format": "wav",
            "voice": "aixia",
            "sample_rate": 16_000,
            "volume": 80,
        }
        return httpx.Response(200, content=b"RIFF", headers={"Content-Type": "audio/mpeg"})

    async with client(handler) as rest:
        assert await rest.synthesize("你好", voice="aixia", volume=80) == b"RIFF"


async def test_voices_in_the_servers_order() -> None:
    voices = {
        "中文女": {
            "type": "preset",
            "language": "zh-CN",
            "gender": "female",
            "sample_rate": 22_050,
        },
        "张三": {"type": "clone", "reference_text": "…"},
    }
    async with always(httpx.Response(200, json={"voices": voices, "total": 2})) as rest:
        found = await rest.voices()
    assert [(voice.name, voice.type, voice.language) for voice in found] == [
        ("中文女", "preset", "zh-CN"),
        ("张三", "clone", ""),
    ]


async def test_health() -> None:
    async with always(httpx.Response(200, json={"status": "healthy"})) as rest:
        assert await rest.health() == {"status": "healthy"}


@pytest.mark.parametrize("http_status", [200, 400, 401, 429, 503])
async def test_an_nls_error_has_its_code(http_status: int) -> None:
    answer = {"task_id": "t", "result": "", "status": 40_000_003, "message": "no such voice"}
    async with always(httpx.Response(http_status, json=answer)) as rest:
        for call in (rest.recognize(b""), rest.synthesize("x")):
            with pytest.raises(NlsTaskFailed, match="no such voice") as caught:
                await call
            assert caught.value.code == 40_000_003


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx.Response(403, text="ACCESS_DENIED"), AccessRefused),
        (httpx.Response(404, text="<html>" * 1_000), RequestRefused),
        (httpx.Response(200, text="hello"), ProtocolViolation),
        (httpx.Response(200, json={"voices": []}), ProtocolViolation),
    ],
)
async def test_other_answers(response: httpx.Response, expected: type[ClientError]) -> None:
    async with always(response) as rest:
        with pytest.raises(expected) as caught:
            await rest.voices()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("refused"), ServerUnreachable),
        (httpx.ConnectTimeout("slow"), ServerUnreachable),
        (httpx.ReadTimeout("slow"), AnswerTimeout),
        (httpx.RemoteProtocolError("garbage"), ConnectionLost),
    ],
)
async def test_network_errors(error: httpx.HTTPError, expected: type[ClientError]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    async with client(handler) as rest:
        with pytest.raises(expected):
            await rest.health()


@pytest.mark.parametrize("token", ["geheim-ü", "line\r\nbreak"])
async def test_a_token_that_is_no_header_travels_in_the_query(token: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert "X-NLS-Token" not in request.headers
        assert request.url.params["token"] == token
        return httpx.Response(200, json={"voices": {}})

    transport = httpx.MockTransport(handler)
    async with RestClient("http://host", token, "key & more", transport=transport) as rest:
        assert await rest.voices() == []


def refused() -> httpx.ConnectError:
    """As the network makes it: the reason is below wrappers, one for each address tried."""
    tries = ExceptionGroup("tries", [ConnectionRefusedError(111, "refused"), OSError("no route")])
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = tries
    return error


async def test_nobody_listens_is_said_as_for_websockets() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise refused()

    async with client(handler) as rest:
        with pytest.raises(ServerUnreachable, match=r"^nothing listens at http://host:1$"):
            await rest.health()
