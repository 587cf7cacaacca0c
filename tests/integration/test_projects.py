"""Two projects on the same server, and everybody else: each has its own model, rate, words,
defaults, voices, limits and tokens, over the WebSocket and REST; what they use adds up exactly."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from app.access.rows import ProjectRow
from app.access.store import Store, open_store
from app.client.errors import AccessRefused, ClientError, NlsTaskFailed
from app.client.nls import NlsClient
from app.core.config import Config
from app.core.speech import RecognitionOptions, Role, Utterance
from app.engines.base import Piece
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.synthesizer import FakeSynthesizer
from benchmarks.server import launch
from tests.support.live import Live, live_server
from tests.support.process import serving
from tests.support.rawsocket import handshake, message, nothing_left
from tests.support.sound import joined, silence, tone

CHARACTER_MS: Final = 200
"""What the fake engine takes to speak one, whichever it is."""

ASKED_AGAIN_S: Final = 20.0

Row = tuple[str, Role]


def spoken(rate: int) -> bytes:
    """700 ms of sound in 2 s."""
    return joined(silence(300, rate), tone(700, rate), silence(1_000, rate)).tobytes()


@asynccontextmanager
async def database(folder: Path) -> AsyncIterator[Store]:
    async with open_store(Config(data_dir=folder / "data")) as store:
        yield store


async def have(folder: Path, *rows: ProjectRow) -> None:
    """These projects; ``*`` is there and is replaced."""
    async with database(folder) as store:
        for row in rows:
            await store.save_project(row, new=row.appkey != "*")


async def recorded(folder: Path) -> dict[Row, Counter[str]]:
    """What is on record, of all days, once the server has ended; nothing is left out."""
    sums: dict[Row, Counter[str]] = {}
    async with database(folder) as store:
        for row in await store.usage("0000-00-00", "9999-99-99"):
            sums.setdefault((row.appkey, row.kind), Counter()).update(
                msgspec.structs.asdict(row.used)
            )
    return sums


def use(tasks: int, audio_ms: int, characters: int = 0, failed: int = 0) -> Counter[str]:
    return Counter(tasks=tasks, failed=failed, audio_ms=audio_ms, characters=characters)


async def in_effect(ask: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so: the processes look every second whether anything was changed."""
    async with asyncio.timeout(ASKED_AGAIN_S):
        while not await ask():  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.05)


async def code(asking: Awaitable[object]) -> int:
    """The code of a task that must fail."""
    with pytest.raises(NlsTaskFailed) as failure:
        await asking
    return failure.value.code


# All of it at once, as an owner sets it up


class Clients:
    """Clients of a running server, who keep count of what they use."""

    def __init__(self, ws: str, http: httpx.AsyncClient) -> None:
        self._ws = ws
        self._http = http
        self.used: dict[Row, Counter[str]] = {}

    def _count(self, appkey: str, kind: Role, used: Counter[str]) -> None:
        # Who has no project counts as the default one.
        project = "*" if appkey == "nobody" else appkey
        self.used.setdefault((project, kind), Counter()).update(used)

    async def transcribe(self, appkey: str, rate: int) -> dict[str, Any]:
        """The sentence of an audio whose format and rate the client does not tell."""
        client = NlsClient(self._ws, appkey=appkey)
        events = await client.transcribe(spoken(rate), format=None, sample_rate=None)
        self._count(appkey, "asr", use(1, 2_000))
        (end,) = [event for event in events if event.name == "SentenceEnd"]
        return dict(end.payload)

    async def post_audio(self, appkey: str, rate: int) -> str:
        query = {"appkey": appkey}
        answer = await self._http.post("/stream/v1/asr", params=query, content=spoken(rate))
        self._count(appkey, "asr", use(1, 2_000))
        return str(answer.json()["result"])

    async def synthesize(self, appkey: str, text: str, rate: int) -> tuple[bytes, list[str]]:
        """The audio and the names of the events of a synthesis that asks for nothing."""
        client = NlsClient(self._ws, appkey=appkey)
        audio, names = b"", list[str]()
        async with client.synthesizer(text, format="", sample_rate=None) as task:  # type: ignore[arg-type]  # null, on the wire
            async for part in task.frames():
                if isinstance(part, bytes):
                    audio += part
                else:
                    names.append(part.name)
        self._count(appkey, "tts", use(1, length_ms(audio, rate), len(text)))
        return audio, names

    async def get_audio(self, appkey: str, text: str, rate: int) -> bytes:
        query = {"appkey": appkey, "text": text}
        answer = await self._http.get("/stream/v1/tts", params=query)
        assert answer.status_code == 200, answer.text
        self._count(appkey, "tts", use(1, length_ms(answer.content, rate), len(text)))
        return answer.content


def length_ms(audio: bytes, rate: int) -> int:
    """Of PCM, or of a WAV file of any length that its header tells."""
    if audio.startswith(b"RIFF"):
        with wave.open(io.BytesIO(audio)) as file:
            assert file.getframerate() == rate
        audio = audio[44:]
    return round(len(audio) / 2 / rate * 1000)


async def funspeech(folder: Path, *command: str) -> str:
    """What a command prints, on the database and with the models of the server."""
    process = await launch("app", *command, folder=folder, variables=variables(folder))
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


def variables(folder: Path) -> dict[str, str]:
    models = folder / "models.toml"
    return {
        "DATA_DIR": str(folder / "data"),
        **({"MODELS_FILE": str(models)} if models.exists() else {}),
    }


async def set_up(folder: Path) -> None:
    """Two projects that differ in everything."""
    script = folder / "script.json"
    script.write_text('[{"text": "the telephone."}]', encoding="utf-8")
    models = f'[telephone]\nFAKE_ASR_SCRIPT = "{script}"\n'
    (folder / "models.toml").write_text(models, encoding="utf-8")
    (folder / "words.txt").write_text("北京 3\n上海 2\n", encoding="utf-8")
    await funspeech(folder, "vocab", "create", "places", str(folder / "words.txt"))
    await funspeech(
        folder, "project", "create", "calls",
        "--model", "telephone", "--rate", "8000", "--max-tasks", "1", "--voice", "aixia",
        "--default", "voice=aixia", "--default", "format=wav", "--default", "speech_rate=500",
        "--default", "enable_words=true",
    )  # fmt: skip
    await funspeech(
        folder, "project", "create", "cities",
        "--vocab", "places", "--max-tasks", "2",
        "--default", "sample_rate=24000", "--default", "enable_subtitle=true",
    )  # fmt: skip


@pytest.mark.xdist_group("processes")  # real processes: one at a time
async def test_two_projects_of_a_server_as_their_owner_sets_them_up(tmp_path: Path) -> None:
    await set_up(tmp_path)
    async with (
        serving(tmp_path, **variables(tmp_path)) as served,
        httpx.AsyncClient(base_url=served.http, timeout=30) as http,
    ):
        clients = Clients(served.ws, http)
        await each_is_served_as_its_project_says(clients)
        await each_has_its_own_voices_and_places(served.ws, http, clients)
        await funspeech(
            tmp_path, "project", "set", "calls",
            "--model", "", "--vocab", "places", "--voice", "", "--default", "enable_words=",
        )  # fmt: skip

        async def changed() -> bool:
            # Of so many connections, the kernel gives some to each process.
            found = [await clients.transcribe("calls", 8_000) for _ in range(8)]
            return {each["result"] for each in found} == {"heard 700 ms, knowing 北京 上海"}

        await in_effect(changed)
        assert "words" not in await clients.transcribe("calls", 8_000)
        asked = NlsClient(served.ws, appkey="calls")
        audio = await asked.synthesize("好", voice="xiaoyun", speech_rate=0)
        assert length_ms(audio, 16_000) == CHARACTER_MS
        clients.used["calls", "tts"].update(use(1, CHARACTER_MS, 1))
        assert await served.stop() == 0
    assert await recorded(tmp_path) == clients.used
    shown = json.loads(await funspeech(tmp_path, "usage", "--json"))
    assert sum(row["tasks"] for row in shown) == sum(
        each["tasks"] for each in clients.used.values()
    )


async def each_is_served_as_its_project_says(clients: Clients) -> None:
    calls = await clients.transcribe("calls", 8_000)
    assert calls["result"] == "the telephone."
    assert (calls["begin_time"], calls["time"]) == (300, 1_000)  # so it was heard at 8 kHz
    assert "words" in calls
    cities = await clients.transcribe("cities", 24_000)
    assert cities["result"] == "heard 700 ms, knowing 北京 上海"
    assert "words" not in cities
    nobody = await clients.transcribe("nobody", 16_000)
    assert nobody["result"] == "heard 700 ms"
    assert await clients.post_audio("calls", 8_000) == "the telephone."
    assert await clients.post_audio("cities", 24_000) == "heard 700 ms, knowing 北京 上海"
    assert await clients.post_audio("nobody", 16_000) == "heard 700 ms"

    half, whole = CHARACTER_MS * 4 // 2, CHARACTER_MS * 4
    audio, names = await clients.synthesize("calls", "一二三四", 16_000)
    assert (audio[:4], names) == (b"RIFF", ["SynthesisCompleted"])
    assert length_ms(audio, 16_000) == pytest.approx(half, abs=20)
    audio, names = await clients.synthesize("cities", "一二三四", 24_000)
    assert (length_ms(audio, 24_000), names) == (whole, ["MetaInfo", "SynthesisCompleted"])
    audio, names = await clients.synthesize("nobody", "一二三四", 16_000)
    assert (length_ms(audio, 16_000), names) == (whole, ["SynthesisCompleted"])
    audio = await clients.get_audio("calls", "一二三四", 16_000)
    assert length_ms(audio, 16_000) == pytest.approx(half, abs=20)
    audio = await clients.get_audio("cities", "一二三四", 24_000)
    assert length_ms(audio, 24_000) == whole


async def each_has_its_own_voices_and_places(
    ws: str, http: httpx.AsyncClient, clients: Clients
) -> None:
    calls, cities = NlsClient(ws, appkey="calls"), NlsClient(ws, appkey="cities")
    assert await code(calls.synthesize("好", voice="xiaoyun")) == 40000001
    query = {"appkey": "calls", "text": "好", "voice": "xiaoyun"}
    refused = await http.get("/stream/v1/tts", params=query)
    assert (refused.status_code, refused.json()["status"]) == (401, 40000001)
    async with calls.transcriber(sample_rate=8_000) as task:
        assert await code(calls.transcribe(spoken(8_000))) == 40000005
        assert await code(calls.synthesize("好")) == 40000005
        refused = await http.post("/stream/v1/asr?appkey=calls", content=spoken(8_000))
        assert (refused.status_code, refused.json()["status"]) == (429, 40000005)
        async with cities.transcriber() as other:
            await clients.synthesize("cities", "好", 24_000)
            await other.finish()
        await task.finish()
    for appkey in ("calls", "cities"):
        clients.used[appkey, "asr"].update(use(1, 0))


# What the engine is told


class Listening(FakeRecognizer):
    """Remembers how it was asked to listen."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())
        self.asked: list[RecognitionOptions] = []

    def open(self, options: RecognitionOptions) -> object:
        """As the fake."""
        self.asked.append(options)
        return super().open(options)


async def test_the_engine_is_told_of_the_rate_and_the_language_of_the_project(
    tmp_path: Path,
) -> None:
    await have(
        tmp_path,
        ProjectRow(appkey="calls", model="other", max_rate=8_000, language="yue"),
        ProjectRow(appkey="film", language="en"),
    )
    here, other = Listening(), Listening()
    async with (
        live_server(tmp_path, asr=here, tts=None, models={"other": other}) as live,
        httpx.AsyncClient(base_url=live.http) as http,
    ):
        for appkey in ("calls", "film", "nobody"):
            events = await NlsClient(live.ws, appkey=appkey).transcribe(spoken(16_000))
            assert events[-2].payload["result"] == "heard 700 ms"
            query = {"appkey": appkey, "sample_rate": "16000"}
            answer = await http.post("/stream/v1/asr", params=query, content=spoken(16_000))
            assert answer.json()["result"] == "heard 700 ms"
    # What comes at 16 kHz is heard at once, but as if it had come at 8 kHz.
    assert {(each.source_rate, each.language) for each in other.asked} == {(8_000, "yue")}
    assert [(each.source_rate, each.language) for each in here.asked] == [
        (16_000, "en"), (16_000, "en"), (16_000, None), (16_000, None),
    ]  # fmt: skip
    assert len(other.asked) == 2


# What a day allows


async def test_a_project_that_has_used_its_day_is_refused_and_others_are_not(
    tmp_path: Path,
) -> None:
    await have(
        tmp_path,
        ProjectRow(appkey="speaker", daily_characters=5),
        ProjectRow(appkey="listener", daily_audio_s=2),
        ProjectRow(appkey="free"),
    )
    async with live_server(tmp_path) as live, httpx.AsyncClient(base_url=live.http) as http:

        def at(api: int, appkey: str) -> NlsClient:
            return NlsClient(live.ws_of(api), appkey=appkey)

        # The day is looked at when a task starts, so the last one may go beyond it.
        await at(0, "speaker").synthesize("一二三四")
        await at(0, "speaker").synthesize("一二三四")
        await at(0, "listener").transcribe(spoken(16_000))
        for api in range(len(live.apis)):  # the other processes learn of it from the database

            async def refused(appkey: str, api: int = api) -> bool:
                try:
                    await at(api, appkey).transcribe(tone(100).tobytes())
                except NlsTaskFailed as failure:
                    assert failure.code == 40000005
                    assert "quota for today" in failure.text
                    return True
                return False

            for appkey in ("speaker", "listener"):
                await in_effect(lambda appkey=appkey: refused(appkey))  # type: ignore[misc]  # a default argument
                assert await code(at(api, appkey).synthesize("一")) == 40000005
            await at(api, "free").transcribe(spoken(16_000))
            await at(api, "nobody").synthesize("一")
        answer = await http.get("/stream/v1/tts", params={"appkey": "speaker", "text": "一"})
        assert (answer.status_code, answer.json()["status"]) == (429, 40000005)

        async with database(tmp_path) as store:
            await store.save_project(ProjectRow(appkey="speaker"), new=False)

        async def allowed() -> bool:
            asked = [NlsClient(live.ws_of(api), appkey="speaker") for api in range(len(live.apis))]
            try:
                return all([await each.synthesize("一") for each in asked])
            except NlsTaskFailed:
                return False

        await in_effect(allowed)


# Who may enter as which project


async def test_a_token_for_one_project_opens_that_one_only(tmp_path: Path) -> None:
    await have(tmp_path, ProjectRow(appkey="one"), ProjectRow(appkey="two"))
    async with database(tmp_path) as store:
        scoped, _ = await store.create_token(seconds=3_600, appkey="one")
        free, _ = await store.create_token(seconds=3_600)
    async with (
        live_server(tmp_path, require_token=True) as live,
        httpx.AsyncClient(base_url=live.http) as http,
    ):

        async def status(token: str, appkey: str) -> tuple[int, int]:
            query = {"appkey": appkey, "text": "一", "token": token}
            answer = await http.get("/stream/v1/tts", params=query)
            found = 0 if answer.status_code == 200 else int(answer.json()["status"])
            return answer.status_code, found

        for token, appkey in ((scoped, "one"), (free, "one"), (free, "two"), (free, "nobody")):
            client = NlsClient(live.ws, token, appkey=appkey)
            await client.transcribe(spoken(16_000))
            await client.synthesize("一")
            assert await status(token, appkey) == (200, 0)
        for appkey in ("two", "nobody"):
            client = NlsClient(live.ws, scoped, appkey=appkey)
            assert await code(client.transcribe(spoken(16_000))) == 40020106
            assert await code(client.synthesize("一")) == 40020106
            assert await status(scoped, appkey) == (403, 40020106)
        assert await code(NlsClient(live.ws, appkey="one").synthesize("一")) == 40000001

        async with database(tmp_path) as store:
            assert await store.revoke_token(scoped)
        for api in range(len(live.apis)):

            async def revoked(api: int = api) -> bool:
                try:
                    await NlsClient(live.ws_of(api), scoped, appkey="one").synthesize("一")
                except AccessRefused as refusal:
                    assert "is invalid!" in str(refusal)
                    return True
                return False

            await in_effect(revoked)
            await NlsClient(live.ws_of(api), free, appkey="one").synthesize("一")


async def test_without_the_default_project_unknown_appkeys_are_refused(tmp_path: Path) -> None:
    await have(tmp_path, ProjectRow(appkey="known"), ProjectRow(appkey="shut", enabled=False))
    async with live_server(tmp_path) as live, httpx.AsyncClient(base_url=live.http) as http:
        await NlsClient(live.ws, appkey="nobody").synthesize("一")
        await funspeech(tmp_path, "project", "set", "*", "--disabled")
        for api in range(len(live.apis)):

            async def closed(api: int = api) -> bool:
                try:
                    await NlsClient(live.ws_of(api), appkey="nobody").synthesize("一")
                except NlsTaskFailed as failure:
                    assert failure.code == 40020105
                    return True
                return False

            await in_effect(closed)
        for appkey in ("nobody", "shut"):
            client = NlsClient(live.ws, appkey=appkey)
            assert await code(client.transcribe(spoken(16_000))) == 40020105
            answer = await http.post(f"/stream/v1/asr?appkey={appkey}", content=spoken(16_000))
            assert (answer.status_code, answer.json()["status"]) == (403, 40020105)
        await NlsClient(live.ws, appkey="known").transcribe(spoken(16_000))
        await NlsClient(live.ws, appkey="known").synthesize("一")


# What is used, however a task ends


class Failing(FakeSynthesizer):
    """Cannot speak what begins with 坏."""

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        """As the fake."""
        if utterance.text.startswith("坏"):
            raise RuntimeError("deliberate")
        return super().synthesize(utterance)


async def test_what_is_used_adds_up_exactly_however_tasks_end(tmp_path: Path) -> None:
    """The sums are what the clients themselves count: ms of the audio that they sent or got, and
    characters of their texts."""
    await have(
        tmp_path,
        ProjectRow(appkey="calls", voices=("xiaoyun",)),
        ProjectRow(appkey="one", max_tasks=1),
    )
    failing = Failing(FakeOptions())
    async with live_server(tmp_path, tts=failing, max_audio_seconds=3) as live, nothing_left(live):
        await recognised(live)
        await spoken_texts(live)
        await refused_tasks(live)
        await vanished(live)
    assert await recorded(tmp_path) == {
        # Two complete ones over each door, one that was too long, one that is no audio, one that
        # was left.
        ("calls", "asr"): use(7, 2 * 2_000 + 2_000 + 2_000 + 3_100 + 1_500, failed=2),
        # Complete: 4, 3 of SSML, 400 and, in pieces, 4 characters. Failed: 2 of 5 were spoken.
        # Left: 4, of which the last was never spoken.
        ("calls", "tts"): use(
            6,
            CHARACTER_MS * (4 + 3 + 400 + 4 + 2 + 3) + 500,
            4 + 3 + 400 + 4 + 5 + 4,
            failed=1,
        ),
        ("one", "asr"): use(1, 100),
        ("*", "tts"): use(1, CHARACTER_MS * 2, 2),
    }


async def recognised(live: Live) -> None:
    client = NlsClient(live.ws, appkey="calls")
    audio = spoken(16_000)
    for _ in range(2):
        await client.transcribe(audio)
    async with httpx.AsyncClient(base_url=live.http) as http:
        query = {"appkey": "calls", "format": "pcm"}
        for path in ("/stream/v1/asr", "/stream/v1/FlashRecognizer"):
            answer = await http.post(path, params=query, content=audio)
            assert answer.status_code == 200, answer.text
        bad = await http.post(
            "/stream/v1/asr", params={**query, "format": "mp3"}, content=b"no mp3" * 100
        )
        assert bad.status_code == 400
    with pytest.raises(ClientError):
        async with client.recognizer() as task:  # of at most 3 s
            for _ in range(31):
                await task.send(tone(100).tobytes())
            await task.finish()


async def spoken_texts(live: Live) -> None:
    client = NlsClient(live.ws, appkey="calls")
    assert length_ms(await client.synthesize("一二三四"), 16_000) == 4 * CHARACTER_MS
    ssml = '<speak>一二<break time="500ms"/>三</speak>'
    assert length_ms(await client.synthesize(ssml), 16_000) == 3 * CHARACTER_MS + 500
    async with httpx.AsyncClient(base_url=live.http) as http:
        long = await http.post("/stream/v1/tts", json={"appkey": "calls", "text": "好" * 400})
    assert length_ms(long.content, 16_000) == 400 * CHARACTER_MS
    await flowing(live, "一二。三", whole=True)
    audio = b""
    with pytest.raises(NlsTaskFailed) as failure:
        async with client.synthesizer("一。坏了。") as task:
            async for part in task.audio():
                audio += part
    assert failure.value.code == 50000000
    assert length_ms(audio, 16_000) == 2 * CHARACTER_MS
    await NlsClient(live.ws, appkey="nobody").synthesize("一二")


async def refused_tasks(live: Live) -> None:
    """They count nowhere."""
    client = NlsClient(live.ws, appkey="calls")
    assert await code(client.synthesize("一", voice="nobody")) == 40000001
    assert await code(client.synthesize("<speak>一")) == 41020001
    assert await code(client.synthesize("。")) == 40010003
    assert await code(client.transcribe(b"", format="midi")) == 41010100
    one = NlsClient(live.ws, appkey="one")
    async with one.transcriber() as task:
        assert await code(one.transcribe(spoken(16_000))) == 40000005
        assert await code(one.synthesize("一")) == 40000005
        await task.send(tone(100).tobytes())
        await task.finish()


async def vanished(live: Live) -> None:
    leaving = await handshake(live)
    await leaving.text(message("SpeechTranscriber", "StartTranscription", appkey="calls"))
    await leaving.expect("TranscriptionStarted")
    await leaving.audio(tone(1_500).tobytes())
    await leaving.expect("SentenceBegin")
    leaving.abort(reset=True)
    await flowing(live, "一二。三", whole=False)


async def flowing(live: Live, text: str, *, whole: bool) -> None:
    """Two sentences in pieces; or the client leaves after the first one."""
    namespace = "FlowingSpeechSynthesizer"
    client = await handshake(live)
    said = [message(namespace, "RunSynthesis", {"text": each}, appkey="calls") for each in text]
    await client.text(message(namespace, "StartSynthesis", appkey="calls"), *said)
    if whole:
        await client.text(message(namespace, "StopSynthesis", appkey="calls"))
    last, name = "SynthesisCompleted" if whole else "SentenceEnd", ""
    while name != last:
        got = await client.frame()
        if got.opcode == 1:
            name = json.loads(got.payload)["header"]["name"]
    client.abort(reset=True)
