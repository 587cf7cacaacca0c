"""GET and POST /stream/v1/tts."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.core import errors

URL = "/stream/v1/tts"
LONG = "字" * 301


async def _ask(client: httpx.AsyncClient, method: str, fields: dict[str, Any]) -> httpx.Response:
    if method == "GET":
        return await client.get(URL, params=fields)
    return await client.post(URL, json=fields)


both = pytest.mark.parametrize("method", ["GET", "POST"])


@both
async def test_short_text_is_buffered(world: Any, method: str) -> None:
    async with world.client() as client:
        answer = await _ask(client, method, {"text": "字" * 300, "appkey": "k"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.content == b"".join(world.synthesis.pieces)
    assert answer.headers["content-length"] == str(len(answer.content))
    task_id = world.synthesis.requests[0].task_id
    assert answer.headers["x-nls-requestid"] == answer.headers["task_id"] == task_id
    assert (world.synthesis.buffered, world.synthesis.streamed) == (1, 0)


@both
async def test_long_text_is_streamed(world: Any, method: str) -> None:
    async with world.client() as client:
        answer = await _ask(client, method, {"text": LONG})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
    assert "content-length" not in answer.headers
    assert answer.headers["x-nls-requestid"] == world.synthesis.requests[0].task_id
    assert answer.content == b"".join(world.synthesis.pieces)
    assert world.synthesis.closed.is_set()
    assert (world.synthesis.buffered, world.synthesis.streamed) == (0, 1)


@both
async def test_parameters(world: Any, method: str) -> None:
    fields = {
        "text": "100% 糖 + 水",
        "voice": "aixia",
        "format": "WAV",
        "sample_rate": "24000",
        "volume": "100",
        "speech_rate": "500",
        "pitch_rate": "-500",
    }
    async with world.client() as client:
        await _ask(client, method, fields)
    (request,) = world.synthesis.requests
    assert (request.text, request.voice, request.format) == ("100% 糖 + 水", "aixia", "wav")
    assert (request.sample_rate, request.volume) == (24000, 2.0)
    assert (request.speed, request.pitch) == (2.0, 0.5)


@both
async def test_defaults_are_the_clouds(world: Any, method: str) -> None:
    async with world.client() as client:
        await _ask(client, method, {"text": "hi"})
    (request,) = world.synthesis.requests
    assert (request.voice, request.format, request.sample_rate) == ("xiaoyun", "pcm", 16000)
    assert (request.speed, request.pitch, request.volume) == (1.0, 1.0, 1.0)


@both
@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({}, 40010003, "No text specified!"),
        ({"text": ""}, 40010003, "No text specified!"),
        ({"text": "  \n"}, 40010003, "No text specified!"),
        ({"text": "x" * 401}, 40010003, "at most 400"),
        ({"text": "hi", "format": "wma"}, 40010003, "Invalid format 'wma'"),
        ({"text": "hi", "sample_rate": "123"}, 40010003, "Invalid sample_rate 123"),
        ({"text": "hi", "volume": "loud"}, 40000003, "Invalid volume"),
    ],
)
async def test_bad_parameters(
    world: Any, small: dict[str, Any], method: str, fields: dict[str, str], code: int, text: str
) -> None:
    async with world.client(**small) as client:
        answer = await _ask(client, method, fields)
    assert (answer.status_code, answer.json()["status"]) == (400, code)
    assert answer.headers["content-type"] == "application/json"
    assert text in answer.json()["message"]
    assert answer.json()["result"] == ""
    assert not world.synthesis.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ["a"]},
        {"text": 5},
        {"text": {"a": 1}},
        {"text": "hi", "voice": 7},
        {"text": "hi", "format": []},
        {"text": "hi", "speech_rate": {"a": 1}},
        {"text": "hi", "volume": True},
    ],
)
async def test_wrong_types(world: Any, fields: dict[str, Any]) -> None:
    async with world.client() as client:
        answer = await client.post(URL, json=fields)
    assert answer.status_code == 400
    assert answer.json()["status"] in (40000003, 40010003)
    assert len(answer.json()["message"]) < 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"text": "\xff"}',
        b'{"text": "a"} trailing',
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b"[" * 50_000,
        b"text=hello",
    ],
    ids=repr,
)
async def test_malformed_json(world: Any, body: bytes) -> None:
    async with world.client() as client:
        answer = await client.post(URL, content=body)
        good = await client.post(URL, json={"text": "hi"})
    assert (answer.status_code, answer.json()["status"]) == (400, 40000000)
    assert answer.json()["message"] == "Gateway:CLIENT_ERROR:in post data, json format illegal"
    assert good.status_code == 200


async def test_oversize_json(world: Any, small: dict[str, Any]) -> None:
    async with world.client(**small) as client:
        answer = await client.post(URL, json={"text": "x" * 2000})
    assert (answer.status_code, answer.json()["status"]) == (413, 40000000)


@both
@pytest.mark.parametrize("voice", ["nobody", "../../etc/passwd", "/etc/passwd"])
async def test_unknown_voice(world: Any, method: str, voice: str) -> None:
    world.synthesis.check_error = errors.UnknownVoice()
    async with world.client() as client:
        answer = await _ask(client, method, {"text": LONG, "voice": voice})
    assert (answer.status_code, answer.json()["status"]) == (400, 40000003)
    assert "Invalid voice name" in answer.json()["message"]
    assert "passwd" not in answer.text
    assert world.synthesis.streamed == world.synthesis.buffered == 0


@pytest.mark.parametrize("text", ["hi", LONG], ids=["buffered", "streamed"])
@pytest.mark.parametrize(
    ("error", "http_status", "code"),
    [
        (errors.EngineFailed(), 500, 50000000),
        (errors.Overloaded(), 429, 40000005),
        (errors.UnknownVoice(), 400, 40000003),
        (RuntimeError("internal /secret/path"), 500, 50000000),
    ],
)
async def test_error_before_the_first_audio_is_json(
    world: Any, text: str, error: Exception, http_status: int, code: int
) -> None:
    world.synthesis.error, world.synthesis.error_after = error, 0
    async with world.client() as client:
        answer = await client.post(URL, json={"text": text})
    assert (answer.status_code, answer.json()["status"]) == (http_status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["task_id"] == answer.json()["task_id"]
    assert "secret" not in answer.text
    assert world.synthesis.closed.is_set()


@pytest.mark.parametrize(
    "error", [errors.EngineFailed(), RuntimeError("a bug")], ids=["engine", "bug"]
)
async def test_error_in_the_middle_truncates_the_body(
    world: Any, live: Any, error: Exception
) -> None:
    world.synthesis.error, world.synthesis.error_after = error, 2
    async with (
        live(world.app()) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await client.post(URL, json={"text": LONG})
        world.synthesis.error_after = None
        good = await client.post(URL, json={"text": LONG})
    assert good.content == b"".join(world.synthesis.pieces)


async def test_streams_before_the_engine_is_done(world: Any, live: Any) -> None:
    world.synthesis.hangs = True
    expected = b"".join(world.synthesis.pieces)
    async with (
        live(world.app()) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        client.stream("POST", URL, json={"text": LONG}) as answer,
    ):
        assert answer.headers["transfer-encoding"] == "chunked"
        got = b""
        async for piece in answer.aiter_raw():
            got += piece
            if len(got) == len(expected):
                break
        assert got == expected


@pytest.mark.parametrize("text", ["hi", LONG], ids=["buffered", "streamed"])
async def test_a_client_that_leaves_ends_its_task(world: Any, live: Any, text: str) -> None:
    world.synthesis.hangs = True
    async with live(world.app()) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"text": "%s"}' % text.encode()
        writer.write(b"POST /stream/v1/tts HTTP/1.1\r\nHost: x\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        await world.synthesis.hanging.wait()
        assert not world.synthesis.closed.is_set()
        writer.close()
        await asyncio.wait_for(world.synthesis.closed.wait(), 10)
