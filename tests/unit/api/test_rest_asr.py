"""POST /stream/v1/asr."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.api.doors import Limits
from app.core import errors

URL = "/stream/v1/asr"
AUDIO = bytes(range(256)) * 2


async def test_recognises_the_body(world: Any) -> None:
    world.recognition.texts = ["hello", "world.", "你好", "世界"]
    async with world.client() as client:
        answer = await client.post(URL, params={"appkey": "k"}, content=AUDIO)
    body = answer.json()
    assert answer.status_code == 200
    assert body == {
        "task_id": body["task_id"],
        "result": "hello world.你好世界",
        "status": 20000000,
        "message": "SUCCESS",
    }
    assert re.fullmatch("[0-9a-f]{32}", body["task_id"])
    assert answer.headers["task_id"] == answer.headers["x-nls-requestid"] == body["task_id"]
    assert world.recognition.audio == AUDIO
    assert world.recognition.closed.is_set()
    assert world.recognition.requests[0].task_id == body["task_id"]


async def test_is_one_utterance_with_the_parameters_of_the_query(world: Any) -> None:
    query = {
        "format": "WAV",
        "sample_rate": "8000",
        "enable_punctuation_prediction": "true",
        "enable_inverse_text_normalization": "TRUE",
        "vocabulary_id": "ignored",
    }
    async with world.client(limits=Limits(max_audio_ms=5_000)) as client:
        await client.post(URL, params=query, content=AUDIO)
    (request,) = world.recognition.requests
    assert (request.format, request.sample_rate, request.max_audio_ms) == ("wav", 8000, 5_000)
    assert request.options.max_sentence_silence_ms == 60_000
    assert request.options.partials is False
    assert request.options.punctuation and request.options.inverse_text_normalization


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "application/json",
        "nonsense",
    ],
)
async def test_takes_the_body_as_it_is_whatever_its_type(
    world: Any, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    async with world.client() as client:
        answer = await client.post(URL, content=AUDIO, headers=headers)
    assert answer.json()["status"] == 20000000
    assert world.recognition.audio == AUDIO


async def test_takes_a_chunked_body(world: Any, live: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(AUDIO), 7):
            yield AUDIO[start : start + 7]

    async with (
        live(world.app()) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answer = await client.post(URL, content=pieces())
    assert answer.json()["result"] == "hello world"
    assert world.recognition.audio == AUDIO


async def test_silence_is_an_empty_result(world: Any) -> None:
    world.recognition.texts = []
    async with world.client() as client:
        answer = await client.post(URL, content=AUDIO)
    assert (answer.json()["status"], answer.json()["result"]) == (20000000, "")


@pytest.mark.parametrize(
    ("query", "http_status", "code", "text"),
    [
        ({"format": "midi"}, 400, 41010100, "Invalid format 'midi'"),
        ({"sample_rate": "7999"}, 400, 41010101, "Invalid sample_rate 7999"),
        ({"sample_rate": "fast"}, 400, 40000003, "Invalid sample_rate"),
        ({"enable_punctuation_prediction": "perhaps"}, 400, 40000003, "expected true or false"),
        ({"audio_address": "http://127.0.0.1/x"}, 400, 40000003, "not on the public internet"),
        ({"audio_address": "file:///etc/hosts"}, 400, 40000003, "begin with http"),
    ],
)
async def test_refuses_bad_parameters_before_a_task_is_opened(
    world: Any, query: dict[str, str], http_status: int, code: int, text: str
) -> None:
    async with world.client() as client:
        answer = await client.post(URL, params=query, content=AUDIO)
    assert (answer.status_code, answer.json()["status"]) == (http_status, code)
    assert text in answer.json()["message"]
    assert not world.recognition.requests


@pytest.mark.parametrize(
    ("error", "http_status", "code"),
    [
        (errors.Overloaded(), 429, 40000005),
        (errors.EngineUnavailable(), 503, 50000001),
        (errors.UnsupportedFormat(), 400, 41010100),
        (ValueError("internal /secret/path"), 500, 50000000),
    ],
)
async def test_a_task_that_cannot_be_opened(
    world: Any, error: Exception, http_status: int, code: int
) -> None:
    world.recognition.open_error = error
    async with world.client() as client:
        answer = await client.post(URL, content=AUDIO)
    body = answer.json()
    assert (answer.status_code, body["status"], body["result"]) == (http_status, code, "")
    assert "secret" not in answer.text
    assert answer.headers["task_id"] == body["task_id"]


@pytest.mark.parametrize("where", ["feed_error", "events_error"])
@pytest.mark.parametrize(
    ("error", "http_status", "code"),
    [
        (errors.BadAudio("Invalid wav header!"), 400, 40000009),
        (errors.AudioTooLong(), 400, 41010104),
        (errors.EngineFailed(), 500, 50000000),
        (errors.DeadlineExceeded(), 504, 50000000),
    ],
)
async def test_a_task_that_fails(
    world: Any, where: str, error: errors.SpeechError, http_status: int, code: int
) -> None:
    setattr(world.recognition, where, error)
    async with world.client() as client:
        answer = await client.post(URL, content=AUDIO)
    assert (answer.status_code, answer.json()["status"]) == (http_status, code)
    assert error.text in answer.json()["message"]
    assert world.recognition.closed.is_set()


async def test_empty_body(world: Any) -> None:
    async with world.client() as client:
        answer = await client.post(URL)
    assert (answer.status_code, answer.json()["status"]) == (400, 40000009)
    assert "empty" in answer.json()["message"]


@pytest.mark.parametrize("declared", [True, False])
async def test_body_over_the_limit(world: Any, small: dict[str, Any], declared: bool) -> None:
    async def undeclared() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 400

    async with world.client(**small) as client:
        answer = await client.post(URL, content=b"x" * 1001 if declared else undeclared())
        good = await client.post(URL, content=b"x" * 1000)
    assert (answer.status_code, answer.json()["status"]) == (413, 40000000)
    assert "larger than 1000 bytes" in answer.json()["message"]
    assert good.status_code == 200


async def test_body_that_stops_arriving(world: Any, live: Any) -> None:
    async with live(world.app(limits=Limits(idle_timeout_s=0.05))) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /stream/v1/asr HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        answer = await reader.readuntil(b"}")
        writer.close()
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b'"status":40000004' in answer
    assert world.recognition.closed.is_set()


@pytest.mark.parametrize("body", [b"only a part", b"x" * 100], ids=["in the body", "after it"])
async def test_a_client_that_leaves_ends_its_task(world: Any, live: Any, body: bytes) -> None:
    world.recognition.hangs = True
    async with live(world.app()) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /stream/v1/asr HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        writer.write(body)
        await world.recognition.fed.wait()
        if len(body) == 100:
            await world.recognition.hanging.wait()
        assert not world.recognition.closed.is_set()
        writer.close()
        await asyncio.wait_for(world.recognition.closed.wait(), 10)


async def test_get_is_refused_in_the_same_shape(world: Any) -> None:
    async with world.client() as client:
        answer = await client.get(URL)
    assert (answer.status_code, answer.json()["status"]) == (405, 40000000)
    assert answer.headers["allow"] == "POST"
