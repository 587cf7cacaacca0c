"""What the doors answer to what they do not know, and to what nobody expected."""

from __future__ import annotations

import re
from typing import Any

import pytest


@pytest.mark.parametrize("path", ["/nowhere", "/stream/v1/asr/", "/v1/models", "/health/../etc"])
async def test_unknown_path(world: Any, path: str) -> None:
    async with world.client() as client:
        answer = await client.get(path)
    body = answer.json()
    assert (answer.status_code, body["status"], body["result"]) == (404, 40010001, "")
    assert body["message"] == "Gateway:NAMESPACE_NOT_FOUND:RESTful url path illegal"
    assert re.fullmatch("[0-9a-f]{32}", body["task_id"])


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/redoc"])
async def test_documentation_is_closed_without_debug(world: Any, path: str) -> None:
    async with world.client() as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["status"]) == (404, 40010001)


async def test_documentation_with_debug(world: Any) -> None:
    async with world.client(debug=True) as client:
        assert (await client.get("/docs")).status_code == 200
        schema = (await client.get("/openapi.json")).json()
        index = (await client.get("/")).json()
    assert "text" in str(schema["paths"]["/stream/v1/tts"]["post"]["requestBody"])
    assert index["docs"] == "/docs"


async def test_a_wrong_method(world: Any) -> None:
    async with world.client() as client:
        answer = await client.delete("/stream/v1/tts/voices")
    assert (answer.status_code, answer.json()["status"]) == (405, 40000000)
    assert answer.headers["allow"] == "GET"


async def test_an_unexpected_exception_is_logged_once_and_not_shown(
    world: Any, logged: list[Any]
) -> None:
    world.synthesis.check_error = RuntimeError("internal /secret/path")
    async with world.client() as client:
        answer = await client.get("/stream/v1/tts", params={"text": "hi"})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (500, 50000000)
    assert "secret" not in answer.text
    errors = [entry for entry in logged if entry["log_level"] == "error"]
    assert [entry["task_id"] for entry in errors] == [body["task_id"]]
    assert errors[0]["exc_info"]


async def test_a_refusal_is_no_error_in_the_log(
    world: Any, locked: dict[str, Any], logged: list[Any]
) -> None:
    async with world.client(**locked) as client:
        await client.get("/stream/v1/tts/voices")
        await client.get("/nowhere")
    assert {entry["log_level"] for entry in logged} == {"info"}
    assert [(entry["path"], entry["status"]) for entry in logged] == [
        ("/stream/v1/tts/voices", 401),
        ("/nowhere", 404),
    ]


async def test_answer_log_line_and_service_share_the_task_id(world: Any, logged: list[Any]) -> None:
    async with world.client() as client:
        answer = await client.post("/stream/v1/asr", content=b"audio")
    assert [entry["task_id"] for entry in logged] == [answer.json()["task_id"]]
    assert world.recognition.requests[0].task_id == answer.json()["task_id"]


async def test_health_probes_are_not_logged(world: Any, logged: list[Any]) -> None:
    async with world.client() as client:
        await client.get("/health/live")
        await client.get("/health/ready")
        world.pool.down.add("asr")
        await client.get("/health/ready")
        assert logged == []
        await client.post("/health/ready")
    assert [entry["status"] for entry in logged] == [405]


async def test_cors_only_for_the_origins_that_the_owner_named(world: Any) -> None:
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    async with world.client(cors_origins=("https://app.example",)) as client:
        allowed = await client.options("/stream/v1/tts", headers=preflight)
        other = await client.options(
            "/stream/v1/tts", headers={**preflight, "Origin": "https://other.example"}
        )
        failed = await client.get("/stream/v1/tts", headers={"Origin": "https://app.example"})
    async with world.client() as client:
        closed = await client.get("/health", headers={"Origin": "https://app.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in other.headers
    # Errors too, or a page could not read why it was refused.
    assert failed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in closed.headers
