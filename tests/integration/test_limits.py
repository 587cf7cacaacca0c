"""Limits that hold over all API servers: tasks of an appkey, and connections."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import structlog

from app.client.errors import ClientError, NlsTaskFailed
from app.client.nls import NlsClient
from app.serving import leases
from tests.support.live import Live, live_server
from tests.support.process import serving
from tests.support.rawsocket import Refused, handshake, message, nothing_left, opened, whole_task
from tests.support.sound import tone

BUSY = "an-appkey-of-somebody"
OTHER = "another-appkey"
LONG_TEXT = "ab. " * 200


@pytest.fixture(autouse=True)
def no_key_is_logged() -> Iterator[None]:
    with structlog.testing.capture_logs() as entries:
        yield
    assert BUSY not in repr(entries)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what a socket does has no event here
            await asyncio.sleep(0.005)


def running(live: Live) -> int:
    assert live.quota is not None
    return live.quota.running


async def refusal(url: str, appkey: str = BUSY) -> NlsTaskFailed:
    """The failure of a recognition task that must not start."""
    with pytest.raises(NlsTaskFailed) as failure:
        async with NlsClient(url, appkey=appkey).transcriber():
            pass
    return failure.value


# Tasks of an appkey


async def test_exactly_so_many_tasks_run_over_all_api_servers(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, apis=2, max_tasks_per_appkey=10) as live,
        nothing_left(live),
        AsyncExitStack() as held,
    ):
        codes: list[int] = []

        async def ask(number: int) -> None:
            client = NlsClient(live.ws_of(number % 2), appkey=BUSY)
            try:
                await held.enter_async_context(
                    client.transcriber() if number % 3 else client.recognizer()
                )
            except NlsTaskFailed as failure:
                assert "runs 10 tasks already" in failure.text
                codes.append(failure.code)

        await asyncio.gather(*(ask(number) for number in range(40)))
        assert codes == [40000005] * 30
        assert running(live) == 10


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0)])
async def test_a_place_is_usable_at_once_when_its_task_ends(
    tmp_path: Path, first: int, second: int
) -> None:
    async with live_server(tmp_path, apis=2, max_tasks_per_appkey=1) as live:
        for _ in range(5):
            async with NlsClient(live.ws_of(first), appkey=BUSY).transcriber() as task:
                assert (await refusal(live.ws_of(second))).code == 40000005
                await task.send(tone(300).tobytes())
                await task.finish()
                # Its connection is still open.
                events = await NlsClient(live.ws_of(second), appkey=BUSY).transcribe(
                    tone(300).tobytes()
                )
            assert events[-2].payload["result"] == "heard 300 ms"


async def test_recognition_and_synthesis_of_all_doors_count_together(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, max_tasks_per_appkey=1) as live,
        httpx.AsyncClient(base_url=live.http) as http,
    ):
        query = {"appkey": BUSY}
        asked: list[Callable[[], Any]] = [
            lambda: http.post("/stream/v1/asr", params=query, content=tone(300).tobytes()),
            lambda: http.get("/stream/v1/tts", params={**query, "text": "ab"}),
            lambda: http.get("/stream/v1/tts", params={**query, "text": LONG_TEXT}),
            lambda: http.post("/stream/v1/tts", json={**query, "text": "ab"}),
        ]
        async with NlsClient(live.ws, appkey=BUSY).transcriber():
            for ask in asked:
                answer = await ask()
                assert (answer.status_code, answer.json()["status"]) == (429, 40000005)
            with pytest.raises(NlsTaskFailed) as failure:
                await NlsClient(live.ws, appkey=BUSY).synthesize("ab")
            assert failure.value.code == 40000005
        for ask in asked:
            await until(lambda: running(live) == 0)
            assert (await ask()).status_code == 200
        async with http.stream("GET", "/stream/v1/tts", params={**query, "text": LONG_TEXT}):
            assert (await refusal(live.ws)).code == 40000005


async def test_other_appkeys_have_places_of_their_own(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, max_tasks_per_appkey=1) as live,
        httpx.AsyncClient(base_url=live.http) as http,
        NlsClient(live.ws, appkey=BUSY).transcriber(),
        NlsClient(live.ws, appkey=OTHER).transcriber(),
    ):
        assert (await http.get("/stream/v1/tts", params={"text": "ab"})).status_code == 200
        assert (await refusal(live.ws, OTHER)).code == 40000005


async def test_a_wrong_appkey_takes_no_place(tmp_path: Path) -> None:
    async with live_server(tmp_path, appkey=BUSY, max_tasks_per_appkey=1) as live:
        assert (await refusal(live.ws, OTHER)).code == 40000001
        async with httpx.AsyncClient(base_url=live.http) as http:
            query = {"text": LONG_TEXT, "appkey": OTHER}
            assert (await http.get("/stream/v1/tts", params=query)).status_code == 401
        assert running(live) == 0
        async with NlsClient(live.ws, appkey=BUSY).transcriber():
            assert (await refusal(live.ws, OTHER)).code == 40000001


@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_that_vanishes_frees_its_place(tmp_path: Path, reset: bool) -> None:
    start = message("SpeechTranscriber", "StartTranscription", appkey=BUSY)
    speak = message("SpeechSynthesizer", "StartSynthesis", {"text": LONG_TEXT}, appkey=BUSY)
    async with live_server(tmp_path, max_tasks_per_appkey=2) as live, nothing_left(live):
        listener, speaker = await handshake(live), await handshake(live)
        await listener.text(start)
        await listener.expect("TranscriptionStarted")
        await speaker.text(speak)
        await speaker.frame()
        assert running(live) == 2
        assert (await refusal(live.ws)).code == 40000005
        listener.abort(reset=reset)
        speaker.abort(reset=reset)
        await until(lambda: running(live) == 0)
        async with opened(live) as client:
            await whole_task(client, "SpeechTranscriber", appkey=BUSY)


@pytest.mark.parametrize("namespace", ["SpeechTranscriber", "SpeechSynthesizer"])
async def test_an_appkey_without_end_is_refused(tmp_path: Path, namespace: str) -> None:
    async with (
        live_server(tmp_path, max_tasks_per_appkey=1) as live,
        httpx.AsyncClient(base_url=live.http) as http,
    ):
        starts = {"SpeechTranscriber": "StartTranscription", "SpeechSynthesizer": "StartSynthesis"}
        async with opened(live) as client:
            text = message(namespace, starts[namespace], {"text": "ab"}, appkey="x" * 50_000)
            await client.text(text)
            assert (await client.failure())["status"] == 40000003
        answer = await http.post("/stream/v1/tts", json={"text": "ab", "appkey": "x" * 257})
        assert answer.json()["status"] == 40000003
        answer = await http.post("/stream/v1/tts", json={"text": "ab", "appkey": "x" * 256})
        assert answer.status_code == 200


async def test_what_cannot_be_counted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "ANSWER_TIMEOUT_S", 0.05)
    async with live_server(tmp_path, max_tasks_per_appkey=1) as live:
        assert live.quota is not None
        async with NlsClient(live.ws, appkey=BUSY).transcriber() as task:
            (tmp_path / "quota.sock").unlink()  # nobody gets there again
            live.quota.close()
            assert (await refusal(live.ws, OTHER)).code == 50000001
            # The task that runs goes on.
            await task.send(tone(300).tobytes())
            ends = [event for event in await task.finish() if event.name == "SentenceEnd"]
            assert ends[0].payload["result"] == "heard 300 ms"
        async with httpx.AsyncClient(base_url=live.http) as http:
            assert (await http.get("/stream/v1/tts", params={"text": "ab"})).status_code == 503


@pytest.mark.own_workers
@pytest.mark.xdist_group("processes")  # real processes: one at a time
async def test_a_killed_api_process_frees_its_places(tmp_path: Path) -> None:
    async def start(held: AsyncExitStack, url: str) -> None:
        await held.enter_async_context(NlsClient(url, appkey=BUSY).transcriber())

    settings = {"WORKERS": "1", "MAX_TASKS_PER_APPKEY": "2"}
    async with serving(tmp_path, **settings) as served, AsyncExitStack() as held:
        await start(held, served.ws)
        await start(held, served.ws)
        assert (await refusal(served.ws)).code == 40000005
        (api,) = served.children("app.main")
        api.kill()
        await asyncio.to_thread(psutil.wait_procs, [api], 30)
        async with AsyncExitStack() as anew, asyncio.timeout(30):
            while True:
                try:
                    await start(anew, served.ws)
                    break
                except (ClientError, OSError):
                    await asyncio.sleep(0.1)  # until the next process is there
            await start(anew, served.ws)
            assert (await refusal(served.ws)).code == 40000005
    assert BUSY not in served.log_file.read_text()


# Connections


async def test_one_connection_too_many_is_refused_before_it_is_open(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as entries:
        async with (
            live_server(tmp_path, apis=1, max_connections=2) as live,
            opened(live) as first,
            opened(live),
        ):
            for _ in range(3):
                with pytest.raises(Refused) as refused:
                    await handshake(live)
                assert refused.value.status == 503
                body = json.loads(refused.value.body)
                assert body["status"] == 40000005
                assert body["message"].startswith("Gateway:TOO_MANY_REQUESTS:Too many connections")
            async with httpx.AsyncClient(base_url=live.http) as http:
                assert (await http.get("/health")).status_code == 200  # not an NLS connection
            first.abort(reset=True)
            async with asyncio.timeout(10):
                while True:
                    try:
                        client = await handshake(live)
                        break
                    except Refused:
                        await asyncio.sleep(0.01)  # until the server saw the end of the first
            await whole_task(client, "SpeechTranscriber")
            client.abort(reset=False)
    warnings = [entry for entry in entries if entry["event"] == "connections refused"]
    assert len(warnings) == 1  # not one for each
    assert warnings[0]["refused"] == 1
    assert warnings[0]["reason"] == "connections"


async def test_a_wrong_token_is_told_so_also_where_there_is_no_room(tmp_path: Path) -> None:
    right, wrong = "X-NLS-Token: right-token-0123", "X-NLS-Token: wrong-token-0123"
    async with (
        live_server(tmp_path, apis=1, max_connections=1, apptoken="right-token-0123") as live,
        opened(live, headers=[right]),
    ):
        for token, status in ((wrong, 403), (right, 503)):
            with pytest.raises(Refused) as refused:
                await handshake(live, headers=[token])
            assert refused.value.status == status


@pytest.mark.xdist_group("processes")  # real processes: one at a time
async def test_the_server_takes_all_descriptors_that_it_may_and_says_if_they_are_few(
    tmp_path: Path,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = min(512, before[1]), before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        too_many = "1000000000"
        async with serving(tmp_path, MAX_CONNECTIONS=too_many) as served:
            for child in served.children("app.main"):
                limits = child.rlimit(psutil.RLIMIT_NOFILE)
                assert limits == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    log = served.log_file.read_text()
    (line,) = [line for line in log.splitlines() if "file descriptors" in line]
    assert too_many in line and str(hard) in line
