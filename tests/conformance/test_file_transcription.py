"""nls-protocol.md 9, REST: numbers 72 and 73, by real sockets. The fake engine tells how long it
heard sound."""

from __future__ import annotations

import asyncio
import io
import json
import time
import uuid
import wave
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.access.rows import KeyRow
from app.access.store import Store, open_store
from app.core.config import Config
from app.nls import pop
from tests.support.live import live_server
from tests.support.sound import Int16, joined, silence, tone

SPOKEN = joined(silence(340), tone(1_030), silence(2_000), tone(500), silence(300))


def wav(samples: Int16) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as header:
        header.setparams((1, 2, 16_000, 0, "NONE", ""))
        header.writeframes(samples.tobytes())
    return file.getvalue()


class Site:
    """A web server that has one recording, and gives it when ``give`` is set."""

    def __init__(self) -> None:
        self.give = asyncio.Event()
        self.asked = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        await self.give.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + wav(SPOKEN))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def a_site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    async with server:
        site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.wav"
        yield site


@dataclass
class Client:
    """Calls as the SDKs make them."""

    http: httpx.AsyncClient
    key: KeyRow

    async def submit(self, task: Mapping[str, object], where: str) -> Any:
        """``where``: the Task is in the body or in the query."""
        parameters = {"Task": json.dumps(task)}
        query = self._signed("POST", "SubmitTask", parameters)
        if where == "query":
            return (await self.http.post("/", params={**query, **parameters})).json()
        return (await self.http.post("/", params=query, data=parameters)).json()

    async def result(self, task_id: str) -> Any:
        parameters = {"TaskId": task_id}
        query = self._signed("GET", "GetTaskResult", parameters)
        answer = await self.http.get("/", params={**query, **parameters})
        assert answer.status_code == 200
        return answer.json()

    async def until_ended(self, task_id: str) -> tuple[list[str], Any]:
        """All states until there is a result, and that."""
        states = list[str]()
        async with asyncio.timeout(60):
            while True:
                found = await self.result(task_id)
                states.append(found["StatusText"])
                if states[-1] not in ("QUEUEING", "RUNNING"):
                    return states, found
                await asyncio.sleep(0.02)

    def _signed(self, method: str, action: str, parameters: dict[str, str]) -> dict[str, str]:
        query = {
            "AccessKeyId": self.key.id,
            "Action": action,
            "Format": "JSON",
            "RegionId": "cn-shanghai",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": str(uuid.uuid4()),
            "SignatureVersion": "1.0",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Version": "2018-08-17",
        }
        signature = pop.sign_rpc(method, {**query, **parameters}, self.key.secret)
        return {**query, "Signature": signature}


def database(folder: Path) -> AbstractAsyncContextManager[Store]:
    """The server's."""
    return open_store(Config.model_validate({"data_dir": folder / "data"}))


@asynccontextmanager
async def a_client(folder: Path) -> AsyncIterator[tuple[Client, Site]]:
    async with (
        live_server(folder, tts=None, allow_private_urls=True) as live,
        database(folder) as store,
        httpx.AsyncClient(base_url=live.http, timeout=60) as http,
        a_site() as site,
    ):
        yield Client(http, await store.create_key()), site


async def test_72_both_spellings_of_the_appkey_and_both_places_of_the_task(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (client, site):
        site.give.set()
        for name in ("appkey", "app_key"):
            for where in ("body", "query"):
                answer = await client.submit({name: "k", "file_link": site.url}, where)
                assert (answer["StatusText"], answer["StatusCode"]) == ("SUCCESS", 21050000)
                assert len(answer["TaskId"]) == 32 and answer["RequestId"]
                _, found = await client.until_ended(answer["TaskId"])
                assert found["StatusCode"] == 21050000
        refused = await client.submit({"file_link": site.url}, "body")
        assert refused["StatusCode"] == 41050014
    # They count as every task does.
    async with database(tmp_path) as store:
        (usage,) = await store.usage("2000-01-01", "2999-12-31")
    assert (usage.used.tasks, usage.used.failed, usage.used.audio_ms) == (4, 0, 4 * 4_170)


async def test_73_the_states_of_a_task(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (client, site):
        task = {"appkey": "k", "file_link": site.url, "version": "4.0"}
        task_id = (await client.submit(task, "body"))["TaskId"]
        await site.asked.wait()
        running = await client.result(task_id)
        assert (running["StatusText"], running["StatusCode"]) == ("RUNNING", 21050001)
        site.give.set()
        states, found = await client.until_ended(task_id)
        assert set(states[:-1]) <= {"RUNNING"}
        assert (states[-1], found["StatusCode"]) == ("SUCCESS", 21050000)
        assert (found["TaskId"], found["BizDuration"]) == (task_id, 4_170)
        assert abs(found["SolveTime"] / 1000 - time.time()) < 60
        shown = {"ChannelId": 0, "SpeechRate": 3 * 60_000 // 1_030, "EmotionValue": 7.6}
        first, second = found["Result"]["Sentences"]
        assert abs(first.pop("EmotionValue") - shown.pop("EmotionValue")) < 0.3
        assert first == {
            **shown,
            "Text": "heard 1030 ms",
            "BeginTime": 340,
            "EndTime": 1_370,
            "SilenceDuration": 0,
        }
        assert (second["BeginTime"], second["EndTime"]) == (3_370, 3_870)
        assert second["SilenceDuration"] == 2
        unknown = await client.result("0" * 32)
        assert unknown["StatusCode"] == 41050010
        assert "Result" not in unknown
