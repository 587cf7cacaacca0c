"""POST /stream/v1/FlashRecognizer."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.policy import AccessPolicy
from app.access.snapshot import EMPTY
from app.api.doors import Limits
from app.core import errors
from app.core.project import Project
from app.core.speech import SentenceEnded, Word, WordFilter

URL = "/stream/v1/FlashRecognizer"
AUDIO = bytes(range(256)) * 2
PCM = {"format": "pcm"}

WEATHER = SentenceEnded(
    420,
    2_980,
    "北京的天气。",
    words=(Word("北京", 420, 1_010), Word("的", 1_010, 1_200), Word("天气", 1_200, 2_100)),
)


@pytest.fixture(autouse=True)
def folder(world: Any, tmp_path: Path) -> Path:
    """Where recordings lie; nothing else does."""
    place = tmp_path / "recordings"
    place.mkdir()
    plain = world.app
    world.app = lambda **settings: plain(**{"fetch_folder": place, **settings})
    return place


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def post(world: Any, params: dict[str, str] | None = None, **settings: Any) -> Any:
    async with world.client(**settings) as client:
        return await client.post(URL, params={**PCM, **(params or {})}, content=AUDIO)


async def options(world: Any, **params: str) -> Any:
    answer = await post(world, params)
    assert answer.status_code == 200, answer.text
    return world.recognition.requests[-1]


async def test_the_answer_byte_for_byte(world: Any, folder: Path) -> None:
    world.recognition.sentences = {None: [WEATHER]}
    answer = await post(world, {"enable_word_level_result": "true"})
    assert answer.status_code == 200
    task_id = answer.headers["x-nls-requestid"]
    assert re.fullmatch("[0-9a-f]{32}", task_id)
    assert re.sub(r'"latency":\d+', '"latency":210', answer.text) == (
        f'{{"task_id":"{task_id}","result":"SUCCESS","status":20000000,"message":"SUCCESS",'
        '"flash_result":{"duration":1500,"completed":true,"latency":210,"sentences":['
        '{"text":"北京的天气。","begin_time":420,"end_time":2980,"channel_id":0,"words":['
        '{"text":"北京","begin_time":"420","end_time":"1010","punc":""},'
        '{"text":"的","begin_time":"1010","end_time":"1200","punc":""},'
        '{"text":"天气","begin_time":"1200","end_time":"2100","punc":"。"}]}]}}'
    )
    assert answer.headers["content-type"] == "application/json"
    assert world.recognition.audio == AUDIO
    assert not files(folder)


async def test_words_only_on_request(world: Any) -> None:
    world.recognition.sentences = {None: [WEATHER]}
    (sentence,) = (await post(world)).json()["flash_result"]["sentences"]
    assert "words" not in sentence
    assert not world.recognition.requests[0].options.words


async def test_the_request_of_a_recording(world: Any) -> None:
    async with world.client(limits=Limits(max_flash_ms=5_000, max_flash_bytes=9_000)) as client:
        await client.post(URL, params={"format": ".MP4", "appkey": "k"}, content=AUDIO)
    (request,) = world.recognition.requests
    assert (request.format, request.sample_rate, request.appkey) == ("mp4", 16_000, "k")
    assert request.max_audio_ms == 5_000
    assert world.recognition.max_file_bytes == 9_000
    assert not (request.near_field_gate or request.progress)
    heard = request.options
    assert heard.punctuation and not (heard.partials or heard.live or heard.words)
    assert not heard.inverse_text_normalization
    assert heard.max_sentence_silence_ms == 800


async def test_the_parameters_of_the_query(world: Any) -> None:
    request = await options(
        world,
        sample_rate="8000",
        enable_inverse_text_normalization="true",
        enable_word_level_result="1",
        enable_timestamp_alignment="true",
        speech_noise_threshold="0.5",
        special_word_filter=json.dumps({"filter_with_signed": {"word_list": ["天"]}}),
        first_channel_only="true",
    )
    assert request.sample_rate == 8_000
    assert request.word_filter == WordFilter(masked=("天",))
    heard = request.options
    assert heard.inverse_text_normalization and heard.words and heard.noise_threshold == 0.5


async def test_a_projects_own_settings(world: Any) -> None:
    project = Project(
        appkey="call-centre",
        model="telephone",
        max_rate=8_000,
        language="yue",
        hotwords=(("深圳", 5.0),),
        defaults={"enable_word_level_result": True, "enable_punctuation_prediction": False},
    )
    snapshot = type(EMPTY)(**{
        **{name: getattr(EMPTY, name) for name in EMPTY.__struct_fields__},
        "projects": {"call-centre": project},
    })  # fmt: skip
    access = AccessPolicy(None, None, projects=lambda: snapshot)
    answer = await post(world, {"appkey": "call-centre"}, access=access)
    assert answer.json()["flash_result"]["sentences"][0]["words"] == []
    (request,) = world.recognition.requests
    heard = request.options
    assert (request.sample_rate, request.max_rate, request.channel) == (8_000, 8_000, 0)
    assert (heard.model, heard.language, heard.hotwords) == ("telephone", "yue", (("深圳", 5.0),))
    assert not heard.punctuation


@pytest.mark.parametrize(
    ("params", "heard"),
    [
        ({}, [None]),
        ({"sample_rate": "16000"}, [None]),
        ({"sample_rate": "8000"}, [0, 1]),
        ({"sample_rate": "8000", "first_channel_only": "true"}, [0]),
        ({"first_channel_only": "true"}, [0]),
        ({"first_channel_only": "false"}, [0, 1]),
        ({"first_channel_only": ""}, [None]),
    ],
)
async def test_which_channels_are_heard(
    world: Any, params: dict[str, str], heard: list[int | None]
) -> None:
    world.recognition.channels = 2
    assert (await post(world, params)).status_code == 200
    assert [request.channel for request in world.recognition.requests] == heard


async def test_the_sentences_of_two_channels_are_in_the_order_of_time(world: Any) -> None:
    world.recognition.channels = 2
    world.recognition.sentences = {
        0: [SentenceEnded(0, 900, "你好"), SentenceEnded(2_000, 2_500, "再见")],
        1: [SentenceEnded(0, 300, "喂"), SentenceEnded(1_000, 1_900, "谁")],
    }
    answer = await post(world, {"sample_rate": "8000"})
    found = answer.json()["flash_result"]
    assert [(each["channel_id"], each["text"]) for each in found["sentences"]] == [
        (0, "你好"),
        (1, "喂"),
        (1, "谁"),
        (0, "再见"),
    ]
    assert found["duration"] == 1_500
    # The recording came once, and was heard twice.
    assert world.recognition.audio == AUDIO * 2


async def test_sentences_are_cut_on_request(world: Any) -> None:
    words = tuple(Word(word, 100 * at, 100 * at + 90) for at, word in enumerate("今天好去玩"))
    world.recognition.sentences = {None: [SentenceEnded(0, 700, "今天好，去玩。", words=words)]}
    answer = await post(world, {"punctuation_mark": "，"})
    assert [
        (each["text"], each["begin_time"], each["end_time"])
        for each in answer.json()["flash_result"]["sentences"]
    ] == [("今天好，", 0, 290), ("去玩。", 300, 700)]
    assert world.recognition.requests[-1].options.words
    answer = await post(world, {"sentence_max_length": "1"})  # 4 is the least
    texts = [each["text"] for each in answer.json()["flash_result"]["sentences"]]
    assert texts == ["今天好，", "去玩。"]
    assert world.recognition.requests[-1].options.words


@pytest.mark.parametrize("content_type", [None, "application/octet-stream",
                                          "application/x-www-form-urlencoded",
                                          "multipart/form-data; boundary=x"])  # fmt: skip
async def test_takes_the_body_as_it_is_whatever_its_type(
    world: Any, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    async with world.client() as client:
        answer = await client.post(URL, params=PCM, content=AUDIO, headers=headers)
    assert answer.json()["status"] == 20000000
    assert world.recognition.audio == AUDIO


@pytest.mark.parametrize("said", [[], [SentenceEnded(0, 100, " ")]])
async def test_a_recording_in_which_nobody_speaks(
    world: Any, said: list[SentenceEnded], folder: Path
) -> None:
    world.recognition.sentences = {None: said}
    answer = await post(world)
    assert (answer.status_code, answer.json()["status"]) == (400, 40270002)
    assert (
        answer.json()["message"] == "Gateway:NO_VALID_AUDIO_ERROR:Nobody speaks in the recording."
    )
    assert not files(folder)


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        ({"format": "midi"}, 40270001, "Invalid format 'midi'"),
        ({"format": ""}, 40270001, "format is missing"),
        ({"sample_rate": "7999"}, 41010101, "Invalid sample_rate 7999"),
        ({"enable_word_level_result": "perhaps"}, 40000003, "expected true or false"),
        ({"first_channel_only": "2"}, 40000003, "expected true or false"),
        ({"sentence_max_length": "long"}, 40000003, "expected a whole number"),
        ({"punctuation_mark": "," * 65}, 40000003, "Invalid punctuation_mark"),
        ({"special_word_filter": "{"}, 40000003, "Invalid special_word_filter"),
    ],
)
async def test_refuses_bad_parameters_before_anything_is_read(
    world: Any, query: dict[str, str], code: int, text: str
) -> None:
    answer = await post(world, query)
    assert (answer.status_code, answer.json()["status"]) == (400, code)
    assert text in answer.json()["message"] and answer.json()["result"] == ""
    assert not world.recognition.requests


@pytest.mark.parametrize(
    ("error", "http_status", "code"),
    [
        (errors.BadAudio("no"), 400, 40270003),
        (errors.AudioTooLong.lasting(7_200_000), 400, 40270003),
        (errors.UnsupportedFormat("codec"), 400, 40270001),
        (errors.Overloaded(), 429, 40000005),
        (errors.EngineFailed(), 500, 50000000),
    ],
)
@pytest.mark.parametrize("where", ["open_error", "feed_error", "events_error"])
async def test_errors_have_the_codes_of_this_interface(
    world: Any, where: str, error: errors.SpeechError, http_status: int, code: int, folder: Path
) -> None:
    setattr(world.recognition, where, error)
    answer = await post(world)
    assert (answer.status_code, answer.json()["status"]) == (http_status, code)
    assert not files(folder)


async def test_more_channels_than_are_heard_by_themselves(world: Any) -> None:
    world.recognition.channels = 9
    answer = await post(world, {"first_channel_only": "false"})
    assert (answer.status_code, answer.json()["status"]) == (400, 40270003)
    assert "9 channels" in answer.json()["message"]
    assert (await post(world, {"first_channel_only": "true"})).status_code == 200


async def test_a_recording_that_is_too_large(world: Any, folder: Path) -> None:
    answer = await post(world, limits=Limits(max_flash_bytes=len(AUDIO) - 1))
    assert (answer.status_code, answer.json()["status"]) == (413, 40000000)
    assert not world.recognition.requests and not files(folder)
    assert (await post(world, limits=Limits(max_flash_bytes=len(AUDIO)))).status_code == 200


async def test_a_url_is_not_fetched_from_where_it_must_not(world: Any) -> None:
    """Loopback is not public; nothing of the URL is in the log."""
    answer = await post(world, {"audio_address": "http://127.0.0.1:9/secret.wav"})
    assert (answer.status_code, answer.json()["status"]) == (400, 40000003)
    assert "The audio URL cannot be fetched" in answer.json()["message"]
    assert not world.recognition.requests


async def test_uploads_share_the_disk(
    world: Any, folder: Path, live: Any, logged: list[Any]
) -> None:
    """Ten of the greatest size at the same time; the eleventh is refused, and the others go on."""
    world.recognition.hangs = True
    app = world.app(limits=Limits(max_flash_bytes=len(AUDIO)))
    async with live(app) as port:
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base) as client:
            running = [
                asyncio.create_task(client.post(URL, params=PCM, content=AUDIO)) for _ in range(10)
            ]
            async with asyncio.timeout(10):
                while len(world.recognition.requests) < 10:  # noqa: ASYNC110 - told by a fake
                    await asyncio.sleep(0.005)
            refused = await client.post(URL, params=PCM, content=AUDIO)
            assert (refused.status_code, refused.json()["status"]) == (429, 40000005)
            assert len(files(folder)) == 10
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            async with asyncio.timeout(10):
                while files(folder):  # noqa: ASYNC110 - the server's own work
                    await asyncio.sleep(0.005)
    assert {each.get("reason") for each in logged} >= {"recordings"}


async def test_a_client_that_leaves_cancels_everything(world: Any, folder: Path, live: Any) -> None:
    world.recognition.hangs = True
    async with (
        live(world.app()) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        asking = asyncio.create_task(client.post(URL, params=PCM, content=AUDIO))
        await world.recognition.hanging.wait()
        assert len(files(folder)) == 1
        asking.cancel()
        async with asyncio.timeout(10):
            await world.recognition.closed.wait()
            while files(folder):  # noqa: ASYNC110 - another thread's work
                await asyncio.sleep(0.005)


async def test_a_body_that_stops_in_the_middle(world: Any, folder: Path, live: Any) -> None:
    async with live(world.app(limits=Limits(idle_timeout_s=0.05))) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {URL}?format=pcm HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"
        writer.write(head.encode())
        answer = await reader.readuntil(b"}")
        writer.close()
    assert b" 408 " in answer.split(b"\r\n")[0] and b"40000004" in answer
    assert not world.recognition.requests and not files(folder)
