"""Several recognition models in one server, and projects that choose among them, limit their tasks
and have their use recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.rows import ProjectRow, UsageSum, VocabularyRow
from app.access.store import Store, open_store
from app.client.errors import NlsTaskFailed
from app.client.messages import Event
from app.client.nls import NlsClient
from app.core.config import Config
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.script import ScriptedSentence, ScriptedWord
from tests.support.live import Live, live_server
from tests.support.process import serving
from tests.support.rawsocket import handshake, message, nothing_left
from tests.support.sound import joined, silence, tone

VOCABULARY = "0123456789abcdef0123456789abcdef"
SPOKEN = joined(silence(300), tone(700), silence(1_000)).tobytes()


@asynccontextmanager
async def database(folder: Path) -> AsyncIterator[Store]:
    """The database of a server in this folder."""
    async with open_store(Config(data_dir=folder / "data")) as store:
        yield store


async def projects(folder: Path, *rows: ProjectRow) -> None:
    """Have these before the server starts; ``*`` is there and is replaced."""
    async with database(folder) as store:
        vocabulary = VocabularyRow(id=VOCABULARY, name="cities", words={"北京": 3, "上海": 2})
        await store.save_vocabulary(vocabulary)
        for row in rows:
            await store.save_project(row, new=row.appkey != "*")


async def recorded(folder: Path) -> dict[str, UsageSum]:
    """What is on record of recognition, by appkey, once the server has ended."""
    async with database(folder) as store:
        rows = await store.usage("0000-00-00", "9999-99-99")
    return {row.appkey: row.used for row in rows if row.kind == "asr"}


def other_model() -> FakeRecognizer:
    """A model that can be told from the server's own by what it says."""
    said = ScriptedSentence("the other model.", (ScriptedWord("the", 0, 100),))
    return FakeRecognizer(FakeOptions(), [said])


def finals(events: list[Event]) -> list[str]:
    return [str(event.payload["result"]) for event in events if event.name == "SentenceEnd"]


def client(live: Live, appkey: str) -> NlsClient:
    return NlsClient(live.ws, appkey=appkey)


async def says(http: httpx.AsyncClient, appkey: str, text: str, rate: int = 16_000) -> None:
    """Post 700 ms of sound, and check what they are taken for."""
    query = {"appkey": appkey, "sample_rate": str(rate)}
    audio = joined(silence(300, rate), tone(700, rate), silence(1_000, rate)).tobytes()
    answer = await http.post("/stream/v1/asr", params=query, content=audio)
    assert answer.json().get("result") == text, answer.text


async def test_two_projects_of_one_server_have_models_and_words_of_their_own(
    tmp_path: Path,
) -> None:
    await projects(
        tmp_path,
        ProjectRow(appkey="calls", model="other", max_rate=8_000),
        ProjectRow(appkey="cities", vocabulary_id=VOCABULARY),
    )
    async with live_server(tmp_path, tts=None, models={"other": other_model()}) as live:
        expected = {
            "calls": "the other model.",
            "cities": "heard 700 ms, knowing 北京 上海",
            "nobody": "heard 700 ms",
        }
        for appkey, text in expected.items():
            rate = 8_000 if appkey == "calls" else 16_000
            audio = joined(silence(300, rate), tone(700, rate), silence(1_000, rate)).tobytes()
            events = await client(live, appkey).transcribe(audio, sample_rate=rate)
            assert finals(events) == [text]
            async with httpx.AsyncClient(base_url=live.http) as http:
                await says(http, appkey, text, rate)
        async with httpx.AsyncClient(base_url=live.http) as http:
            listed = (await http.get("/stream/v1/asr/models")).json()["models"]
        assert [(each["id"], each["default"]) for each in listed] == [
            ("test", True), ("other", False),
        ]  # fmt: skip


async def test_a_model_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    await projects(tmp_path, ProjectRow(appkey="calls", model="gone"))
    async with live_server(tmp_path, tts=None) as live:
        with pytest.raises(NlsTaskFailed, match="no recognition model 'gone'") as failure:
            await client(live, "calls").transcribe(SPOKEN)
    assert 40000000 <= failure.value.code < 50000000


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_stream_whose_worker_dies_stays_with_its_model(
    tmp_path: Path, replicas: int
) -> None:
    await projects(tmp_path, ProjectRow(appkey="calls", model="other"))
    async with live_server(
        tmp_path, tts=None, replicas=replicas, models={"other": other_model()}
    ) as live:
        async with client(live, "calls").transcriber() as task:
            await task.send(tone(500).tobytes())
            dying = next(worker for worker in live.workers if worker.active)
            assert dying.hello.name.startswith("asr-other-")
            live.cut(dying)
            await task.send(tone(500).tobytes())
            events = await task.finish()
        assert finals(events) == ["the other model."]
    assert (await recorded(tmp_path))["calls"] == UsageSum(tasks=1, audio_ms=1_000)


async def test_a_model_that_is_full_refuses_its_own_tasks_only(tmp_path: Path) -> None:
    await projects(tmp_path, ProjectRow(appkey="calls", model="other"))
    async with (
        live_server(tmp_path, tts=None, max_streams=1, models={"other": other_model()}) as live,
        client(live, "calls").transcriber(),
    ):
        with pytest.raises(NlsTaskFailed) as failure:
            await client(live, "calls").transcribe(SPOKEN)
        assert failure.value.code == 40000005
        assert finals(await client(live, "nobody").transcribe(SPOKEN)) == ["heard 700 ms"]


async def test_each_project_has_a_limit_of_its_own_over_all_api_servers(tmp_path: Path) -> None:
    await projects(
        tmp_path,
        ProjectRow(appkey="one", max_tasks=1),
        ProjectRow(appkey="three", max_tasks=3),
        ProjectRow(appkey="unlimited", max_tasks=0),
    )
    async with (
        live_server(tmp_path, apis=2, max_tasks_per_appkey=2) as live,
        nothing_left(live),
        AsyncExitStack() as held,
    ):
        refused: list[str] = []

        async def ask(number: int, appkey: str) -> None:
            asking = NlsClient(live.ws_of(number % 2), appkey=appkey)
            try:
                await held.enter_async_context(asking.transcriber())
            except NlsTaskFailed as failure:
                assert failure.code == 40000005
                refused.append(appkey)

        appkeys = ("one", "three", "unlimited", "no project", "none either")
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(ask(number, appkeys[number // 6]))
        granted = {appkey: 6 - refused.count(appkey) for appkey in appkeys}
        assert granted == {"one": 1, "three": 3, "unlimited": 6, "no project": 2, "none either": 2}
        assert live.quota is not None
        assert live.quota.running == 8  # who has no limit is not counted


async def test_use_adds_up_exactly_however_tasks_end(tmp_path: Path) -> None:
    await projects(tmp_path, ProjectRow(appkey="calls"), ProjectRow(appkey="limited", max_tasks=1))
    async with live_server(tmp_path, tts=None) as live, nothing_left(live):
        for _ in range(3):  # 3 × 2,000 ms, complete
            await client(live, "calls").transcribe(SPOKEN)
        # 1,500 ms of a client that vanishes.
        leaving = await handshake(live)
        await leaving.text(message("SpeechTranscriber", "StartTranscription", appkey="calls"))
        await leaving.expect("TranscriptionStarted")
        await leaving.audio(tone(1_500).tobytes())
        await leaving.expect("SentenceBegin")
        leaving.abort(reset=True)
        async with httpx.AsyncClient(base_url=live.http) as http:
            query = {"appkey": "calls"}
            await http.post("/stream/v1/asr", params=query, content=tone(250).tobytes())
            # Nothing can be decoded: a failure without audio.
            bad = await http.post(
                "/stream/v1/asr", params={**query, "format": "mp3"}, content=b"no mp3" * 100
            )
            assert bad.status_code == 400
        # Who has no project counts as the default one; who is refused counts not at all.
        await client(live, "whoever").transcribe(SPOKEN)
        async with client(live, "limited").transcriber() as task:
            with pytest.raises(NlsTaskFailed):
                await client(live, "limited").transcribe(SPOKEN)
            await task.send(tone(100).tobytes())
            await task.finish()
    assert await recorded(tmp_path) == {
        "calls": UsageSum(tasks=6, failed=1, audio_ms=3 * 2_000 + 1_500 + 250),
        "*": UsageSum(tasks=1, audio_ms=2_000),
        "limited": UsageSum(tasks=1, audio_ms=100),
    }


async def test_fillers_and_unwanted_words_are_left_out_of_all_results(tmp_path: Path) -> None:
    said = ScriptedSentence(
        "嗯，开始抓坏人。",
        tuple(
            ScriptedWord(text, 100 * index, 100 * index + 100)
            for index, text in enumerate(("嗯", "开始", "抓", "坏人"))
        ),
    )
    options: dict[str, Any] = {
        "disfluency": True,
        "special_word_filter": {
            "filter_with_empty": {"word_list": ["开始"]},
            "filter_with_signed": {"word_list": ["坏人"]},
        },
        "enable_words": True,
        "enable_intermediate_result": True,
    }
    engine = FakeRecognizer(FakeOptions(), [said])
    async with (
        live_server(tmp_path, asr=engine, tts=None) as live,
        client(live, "somebody").transcriber(**options) as task,
    ):
        for _ in range(5):
            await task.send(tone(200).tobytes())
        events = await task.finish()
    (end,) = [event for event in events if event.name == "SentenceEnd"]
    assert end.payload["result"] == "抓**。"
    assert [word["text"] for word in end.payload["words"]] == ["抓", "**"]
    texts = {str(each.payload.get("result", "")) for each in events}
    assert not any(unwanted in text for text in texts for unwanted in ("嗯", "开始", "坏人"))


@pytest.mark.own_workers
@pytest.mark.xdist_group("processes")  # real processes: one at a time
async def test_models_of_the_file_have_workers_of_their_own(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('[{"text": "the telephone."}]')
    models = tmp_path / "models.toml"
    models.write_text(
        f'[telephone]\nASR_GPUS = "cpu,cpu"\nFAKE_ASR_SCRIPT = "{script}"\n', encoding="utf-8"
    )
    await projects(tmp_path, ProjectRow(appkey="calls", model="telephone"))
    async with serving(tmp_path, MODELS_FILE=str(models)) as served:
        assert "model telephone: fake" in served.banner
        async with httpx.AsyncClient(base_url=served.http) as http:
            health = (await http.get("/health")).json()
            assert [(each["name"], each["model"]) for each in health["replicas"]] == [
                ("asr-0", ""),
                ("asr-telephone-0", "telephone"),
                ("asr-telephone-1", "telephone"),
                ("tts-0", ""),
            ]
            await says(http, "calls", "the telephone.")
            await says(http, "", "heard 700 ms")
            # Without its workers the model is not ready, and nobody else hears its audio.
            for worker in served.children("app.serving.worker"):
                worker.kill()
            await says(http, "calls", "the telephone.")
            await says(http, "", "heard 700 ms")
