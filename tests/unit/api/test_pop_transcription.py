"""SubmitTask and GetTaskResult, signed, on a real database and a recogniser that says what it is
told."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.rows import ProjectRow, UsageSum
from app.access.running import Access, running_access
from app.api.drain import Drain
from app.core.config import Config
from app.core.errors import BadAudio, RecordingsFull
from app.core.speech import SentenceEnded, Word
from app.jobs.runner import Runner
from app.jobs.running import running_jobs
from app.jobs.store import Job, JobStore
from app.nls import pop
from app.storage.errors import StorageError

SENTENCE = SentenceEnded(340, 2_365, "北京的天气。", (Word("北京", 340, 900),))


@dataclass
class Caller:
    """An access key, and a client that signs with it."""

    http: httpx.AsyncClient
    key_id: str
    secret: str

    async def call(self, method: str, action: str, **parameters: str) -> httpx.Response:
        """What is common in the query, as all have it; the rest in a form, or, of a GET, there."""
        query = {
            "AccessKeyId": self.key_id,
            "Action": action,
            "Format": "JSON",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": str(uuid.uuid4()),
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Version": "2018-08-17",
        }
        query["Signature"] = pop.sign_rpc(method, {**query, **parameters}, self.secret)
        if method == "GET":
            return await self.http.get("/", params={**query, **parameters})
        return await self.http.post("/", params=query, data=parameters)

    async def submit(self, **task: object) -> Any:
        answer = await self.call("POST", "SubmitTask", Task=json.dumps(task))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def result(self, task_id: str) -> Any:
        answer = await self.call("GET", "GetTaskResult", TaskId=task_id)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    async def ended(self, task_id: str) -> Any:
        """The result, which is asked for as clients do."""
        async with asyncio.timeout(30):
            while True:
                found = await self.result(task_id)
                if found["StatusText"] not in ("RUNNING", "QUEUEING"):
                    return found
                await asyncio.sleep(0.01)


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    config = Config.model_validate({"data_dir": tmp_path / "data", "require_token": True})
    async with running_access(config) as running:
        yield running


@pytest.fixture
async def jobs(world: Any, access: Access, tmp_path: Path) -> AsyncIterator[Runner]:
    async with running_jobs(
        access.store, world.recognition, tmp_path, allow_private_urls=True
    ) as runner:
        yield runner


@pytest.fixture
async def http(world: Any, access: Access, jobs: Runner) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(
        access=access.policy, store=access.store, projects=access.projects, jobs=jobs
    ) as client:
        yield client


async def caller_of(http: httpx.AsyncClient, access: Access, appkey: str | None = None) -> Caller:
    key = await access.store.create_key(appkey)
    return Caller(http, key.id, key.secret)


@pytest.fixture
async def caller(http: httpx.AsyncClient, access: Access) -> Caller:
    return await caller_of(http, access)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Where a recording is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = b"200 OK" if b"/a.wav" in head else b"404 Not Found"
        writer.write(b"HTTP/1.1 " + found + b"\r\nContent-Length: 5\r\n\r\naudio")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.wav"


async def test_from_submission_to_result(world: Any, caller: Caller, url: str) -> None:
    world.recognition.sentences = {None: [SENTENCE]}
    submitted = await caller.submit(appkey="k", file_link=url, version="4.0", enable_words=True)
    assert set(submitted) == {"TaskId", "RequestId", "StatusText", "StatusCode"}
    assert (submitted["StatusText"], submitted["StatusCode"]) == ("SUCCESS", 21050000)
    found = await caller.ended(submitted["TaskId"])
    assert set(found) == {
        "TaskId", "RequestId", "StatusText", "StatusCode", "BizDuration", "SolveTime", "Result"
    }  # fmt: skip
    assert (found["TaskId"], found["StatusCode"]) == (submitted["TaskId"], 21050000)
    assert found["RequestId"] != submitted["RequestId"]
    assert found["BizDuration"] == 1_500
    assert abs(found["SolveTime"] / 1000 - time.time()) < 60
    (sentence,) = found["Result"]["Sentences"]
    assert (sentence["Text"], sentence["BeginTime"], sentence["EndTime"]) == (
        "北京的天气。", 340, 2_365
    )  # fmt: skip
    assert found["Result"]["Words"] == [
        {"ChannelId": 0, "Word": "北京", "BeginTime": 340, "EndTime": 900}
    ]
    (request,) = world.recognition.requests
    assert (request.appkey, request.task_id) == ("k", submitted["TaskId"])
    assert world.recognition.audio == b"audio"


async def test_it_runs_until_it_has_ended(world: Any, caller: Caller, url: str) -> None:
    world.recognition.hangs = True
    task_id = (await caller.submit(appkey="k", file_link=url))["TaskId"]
    await world.recognition.hanging.wait()
    running = await caller.result(task_id)
    assert (running["StatusText"], running["BizDuration"]) == ("RUNNING", 0)


async def test_nobody_speaks(world: Any, caller: Caller, url: str) -> None:
    world.recognition.texts = []
    found = await caller.ended((await caller.submit(appkey="k", file_link=url))["TaskId"])
    assert found["StatusCode"] == 21050003
    assert "Result" not in found


async def test_what_fails(world: Any, caller: Caller, url: str) -> None:
    missing = await caller.ended((await caller.submit(appkey="k", file_link=url + "x"))["TaskId"])
    gone = await caller.ended(
        (await caller.submit(appkey="k", file_link=url.replace("a.wav", "b")))["TaskId"]
    )
    world.recognition.events_error = BadAudio("not that")
    damaged = await caller.ended((await caller.submit(appkey="k", file_link=url))["TaskId"])
    assert missing["StatusCode"] == 21050000  # it only looks as if it were another file
    assert (gone["StatusCode"], gone["StatusText"]) == (41050024, "FILE_404_NOT_FOUND")
    assert (damaged["StatusCode"], damaged["Message"]) == (41050006, "not that")
    assert set(damaged) == set(gone) == {
        "TaskId", "RequestId", "StatusText", "StatusCode", "BizDuration", "SolveTime", "Message"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ({"file_link": "http://host/a"}, 41050014),
        ({"appkey": "k"}, 41050011),
        ({"appkey": "closed", "file_link": "http://host/a"}, 41050015),
        ({"appkey": "used", "file_link": "http://host/a"}, 41050001),
        ({"appkey": "k", "file_link": "http://host/a", "enable_words": "x"}, 41050013),
    ],
)
async def test_tasks_that_are_not_accepted(
    caller: Caller, access: Access, jobs: Runner, task: dict[str, object], code: int
) -> None:
    await access.store.save_project(ProjectRow(appkey="closed", enabled=False), new=True)
    await access.store.save_project(ProjectRow(appkey="used", daily_characters=1), new=True)
    await access.store.add_usage(*_one_character())
    await access.projects.reload()
    await access.ledger._look()
    refused = await caller.submit(**task)
    assert refused["StatusCode"] == code
    assert refused["TaskId"] == ""
    assert refused["Message"]
    assert not jobs._held


def _one_character() -> tuple[str, Any]:
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return day, {("used", "tts"): UsageSum(tasks=1, characters=1)}


async def test_a_task_that_is_none(caller: Caller) -> None:
    answer = await caller.call("POST", "SubmitTask", Task="no JSON")
    assert (answer.status_code, answer.json()["StatusCode"]) == (200, 41050013)
    for action in ("SubmitTask", "GetTaskResult"):
        answer = await caller.call("POST", action)
        assert (answer.status_code, answer.json()["Code"]) == (400, "MissingParameter")


@pytest.mark.parametrize("task_id", ["0" * 32, "x", "0" * 33, "\x00", "0" * 31 + "\n"])
async def test_an_unknown_task(caller: Caller, task_id: str) -> None:
    found = await caller.result(task_id)
    assert (found["StatusCode"], found["StatusText"]) == (41050010, "FILE_TRANS_TASK_EXPIRED")
    assert found["TaskId"] == (task_id if task_id == "0" * 32 else "")


async def test_a_key_of_one_appkey(
    http: httpx.AsyncClient, access: Access, caller: Caller, url: str
) -> None:
    mine, other = await caller_of(http, access, "mine"), await caller_of(http, access, "other")
    refused = await mine.submit(appkey="other", file_link=url)
    assert refused["StatusCode"] == 41050021
    task_id = (await mine.submit(app_key="mine", file_link=url))["TaskId"]
    assert (await mine.ended(task_id))["StatusCode"] == 21050000
    assert (await caller.ended(task_id))["StatusCode"] == 21050000
    unknown, others = await other.result("0" * 32), await other.result(task_id)
    # It cannot be told whether somebody else has such a task.
    assert (others.pop("TaskId"), unknown.pop("TaskId")) == (task_id, "0" * 32)
    assert others.pop("RequestId") != unknown.pop("RequestId")
    assert others == unknown
    assert others["StatusCode"] == 41050010


async def test_a_job_of_another_kind_is_unknown(caller: Caller, access: Access) -> None:
    job = Job(id="0" * 32, kind="synthesis", appkey="k", request="{}")
    await JobStore(access.store.engine).add(job, "a")
    assert (await caller.result(job.id))["StatusCode"] == 41050010


async def test_another_process_tells_the_same(
    world: Any, caller: Caller, access: Access, tmp_path: Path, url: str
) -> None:
    async with (
        running_jobs(access.store, world.recognition, tmp_path, allow_private_urls=True) as jobs,
        world.client(
            access=access.policy, store=access.store, projects=access.projects, jobs=jobs
        ) as http,
    ):
        elsewhere = Caller(http, caller.key_id, caller.secret)
        task_id = (await elsewhere.submit(appkey="k", file_link=url))["TaskId"]
        assert (await caller.ended(task_id))["StatusCode"] == 21050000
        world.recognition.hangs = True
        interrupted = (await elsewhere.submit(appkey="k", file_link=url))["TaskId"]
        await world.recognition.hanging.wait()
    found = await caller.result(interrupted)
    assert (found["StatusCode"], found["StatusText"]) == (51050003, "RECOGNIZE_INTERRUPT")
    assert "submit it again" in found["Message"]


async def test_too_many_wait(
    caller: Caller, jobs: Runner, monkeypatch: pytest.MonkeyPatch, url: str, logged: list[Any]
) -> None:
    async def full(*_: object) -> None:
        raise RecordingsFull

    monkeypatch.setattr(jobs, "submit", full)
    task = json.dumps({"appkey": "k", "file_link": url})
    answer = await caller.call("POST", "SubmitTask", Task=task)
    assert (answer.status_code, answer.json()["Code"]) == (429, "Throttling.User")
    (line,) = [entry for entry in logged if entry["event"] == "request"]
    assert line["reason"] == "recordings"


async def test_nothing_is_accepted_that_is_not_saved(
    caller: Caller, jobs: Runner, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    async def away(*_: object) -> None:
        raise StorageError("The database /secret/path cannot be used")

    monkeypatch.setattr(jobs._store, "add", away)
    task = json.dumps({"appkey": "k", "file_link": url})
    answer = await caller.call("POST", "SubmitTask", Task=task)
    assert (answer.status_code, answer.json()["Code"]) == (503, "ServiceUnavailable")
    assert "secret" not in answer.text


async def test_a_server_that_ends_accepts_none(
    world: Any, caller: Caller, access: Access, jobs: Runner, url: str
) -> None:
    drain = Drain()
    drain._refusing = True
    async with world.client(
        access=access.policy, store=access.store, projects=access.projects, jobs=jobs, drain=drain
    ) as http:
        ending = Caller(http, caller.key_id, caller.secret)
        task = json.dumps({"appkey": "k", "file_link": url})
        answer = await ending.call("POST", "SubmitTask", Task=task)
        assert (answer.status_code, answer.json()["Code"]) == (503, "ServiceUnavailable")
        assert (await ending.result("0" * 32))["StatusCode"] == 41050010


async def test_no_jobs_are_run(world: Any, access: Access) -> None:
    key = await access.store.create_key()
    async with world.client(
        access=access.policy, store=access.store, projects=access.projects
    ) as http:
        answer = await Caller(http, key.id, key.secret).call("GET", "GetTaskResult", TaskId="x")
    assert (answer.status_code, answer.json()["Code"]) == (503, "ServiceUnavailable")
