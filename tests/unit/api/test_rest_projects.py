"""What a project has set, at the REST doors: defaults under the request's own parameters, hotwords,
model, voices, and the refusals that only a project knows."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from app.access import tokens
from app.access.policy import AccessPolicy
from app.access.snapshot import Snapshot
from app.core.project import Project
from app.core.speech import SyntheticMark

WORDS = {"a" * 32: (("西瓜", 3.0),)}
MINE = Project(
    appkey="mine",
    model="telephone",
    max_rate=8000,
    language="zh",
    hotwords=(("北京", 2.0),),
    defaults={"format": "wav", "voice": "aixia", "disfluency": True, "enable_aigc_tag": True},
    voices=frozenset({"aixia"}),
    vocabularies=WORDS,
)
OFF = Project(appkey="off", enabled=False)
USED_UP = Project(appkey="used up", daily_characters=10)


@pytest.fixture
def projects() -> dict[str, Any]:
    """Settings of doors that know these projects."""
    known = {project.appkey: project for project in (MINE, OFF, USED_UP)}
    snapshot = Snapshot(revision=1, projects=known, vocabularies=WORDS)
    return {
        "access": AccessPolicy(
            None, None, projects=lambda: snapshot, used=lambda appkey: (10_000, 10)
        )
    }


async def test_recognition_has_the_projects_own(world: Any, projects: dict[str, Any]) -> None:
    async with world.client(**projects) as client:
        await client.post("/stream/v1/asr", params={"appkey": "mine"}, content=b"x")
        await client.post("/stream/v1/asr", params={"appkey": "other"}, content=b"x")
    mine, other = world.recognition.requests
    assert (mine.format, mine.disfluency, mine.max_rate, mine.sample_rate) == (
        "wav",
        True,
        8000,
        8000,
    )
    assert (mine.options.model, mine.options.language) == ("telephone", "zh")
    assert mine.options.hotwords == (("北京", 2.0),)
    assert (other.format, other.disfluency, other.max_rate) == ("pcm", False, None)
    assert (other.options.model, other.options.hotwords) == ("", ())


@pytest.mark.parametrize("name", ["vocabulary_id", "customization_id"])
async def test_the_request_overrules_the_project(
    world: Any, projects: dict[str, Any], name: str
) -> None:
    query = {"appkey": "mine", "format": "mp3", "disfluency": "false", name: "a" * 32}
    async with world.client(**projects) as client:
        await client.post("/stream/v1/asr", params=query, content=b"x")
    (request,) = world.recognition.requests
    assert (request.format, request.disfluency) == ("mp3", False)
    assert request.options.hotwords == WORDS["a" * 32]


async def test_synthesis_has_the_projects_own(world: Any, projects: dict[str, Any]) -> None:
    async with world.client(**projects) as client:
        good = await client.post("/stream/v1/tts", json={"text": "hi", "appkey": "mine"})
        wrong = await client.get(
            "/stream/v1/tts", params={"text": "hi", "appkey": "mine", "voice": "xiaoyun"}
        )
    (request,) = world.synthesis.requests
    assert (request.voice, request.format) == ("aixia", "wav")
    assert request.mark == SyntheticMark()
    assert good.status_code == 200
    assert (wrong.status_code, wrong.json()["status"]) == (401, 40000001)


@pytest.mark.parametrize(
    ("appkey", "http_status", "code"), [("off", 403, 40020105), ("used up", 429, 40000005)]
)
async def test_projects_that_are_not_served(
    world: Any, projects: dict[str, Any], appkey: str, http_status: int, code: int
) -> None:
    query = {"appkey": appkey, "text": "hi"}
    async with world.client(**projects) as client:
        answers = [
            await client.post("/stream/v1/asr", params=query, content=b"x"),
            await client.get("/stream/v1/tts", params=query),
            await client.post("/stream/v1/tts", json=query),
        ]
    for answer in answers:
        assert (answer.status_code, answer.json()["status"]) == (http_status, code)
    assert not world.recognition.requests
    assert not world.synthesis.requests


async def test_synthesis_takes_all_its_parameters(world: Any) -> None:
    fields = {
        "text": "<speak>hi</speak>",
        "prompt": "cheerfully",
        "enable_ssml": "false",
        "enable_subtitle": "true",
        "enable_aigc_tag": "true",
        "aigc_propagator": "us",
        "aigc_propagate_id": "7",
    }
    async with world.client() as client:
        await client.get("/stream/v1/tts", params=fields)
        await client.post("/stream/v1/tts", json={**fields, "enable_ssml": None})
    as_text, ssml = world.synthesis.requests
    assert (as_text.prompt, as_text.ssml, ssml.ssml) == ("cheerfully", False, None)
    assert as_text.mark == SyntheticMark(propagator="us", propagate_id="7")
    assert as_text.subtitles is False  # there is nowhere to put them


@pytest.mark.parametrize("path", ["/metrics", "/stream/v1/asr/models", "/stream/v1/tts/voices"])
async def test_what_is_no_task_asks_no_project(
    world: Any, projects: dict[str, Any], path: str
) -> None:
    nobody = Project(enabled=False)
    access = dataclasses.replace(
        projects["access"], projects=lambda: Snapshot(projects={nobody.appkey: nobody, "off": OFF})
    )
    async with world.client(access=access) as client:
        unknown = await client.get(path)
        known = await client.get(path, params={"appkey": "off"})
        task = await client.get("/stream/v1/tts", params={"text": "hi"})
    assert [unknown.status_code, known.status_code, task.status_code] == [200, 200, 403]


async def test_a_token_of_one_appkey_is_enough_where_there_is_none(world: Any) -> None:
    key = bytes(32)
    token = tokens.issue(key, expires_at=1 << 36, appkey="mine", token_id=bytes(8))
    access = AccessPolicy(None, None, require_token=True, projects=lambda: Snapshot(token_key=key))
    async with world.client(access=access) as client:
        figures = await client.get("/metrics", headers={"X-NLS-Token": token})
        without = await client.get("/metrics")
        other = await client.get("/stream/v1/tts", params={"text": "hi", "token": token})
    assert (figures.status_code, without.status_code) == (200, 401)
    assert (other.status_code, other.json()["status"]) == (403, 40020106)
