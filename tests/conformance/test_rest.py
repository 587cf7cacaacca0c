"""nls-protocol.md 9, REST: numbers 64 to 70, by real sockets. The fake engine tells how long it
heard sound, and takes 200 ms to say a character."""

from __future__ import annotations

import asyncio
import io
import json
import re
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.decoded import decoded
from tests.support.encoded import muxed
from tests.support.live import Live, live_server
from tests.support.rawsocket import check_shown
from tests.support.sound import Int16, joined, main_frequency, silence, tone

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASR = "/stream/v1/asr"
TTS = "/stream/v1/tts"
FLASH = "/stream/v1/FlashRecognizer"

TOKEN = "right-token-0123"
WRONG = "wrong-token-4567"

SPOKEN = tone(700).tobytes()
LONG = "今天天气很好。" * 60
"""More than the cloud would say: its audio goes out while it is being made."""

both = pytest.mark.parametrize("method", ["GET", "POST"])


@asynccontextmanager
async def client_of(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=live.http, timeout=60) as http:
        yield http


async def ask(http: httpx.AsyncClient, method: str, fields: dict[str, Any]) -> httpx.Response:
    """For speech: GET has the fields in the query, POST in the body."""
    if method == "GET":
        return await http.get(TTS, params=fields)
    return await http.post(TTS, json=fields)


def wav(samples: Int16, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as header:
        header.setparams((1, 2, rate, 0, "NONE", ""))
        header.writeframes(samples.tobytes())
    return file.getvalue()


def failed(answer: httpx.Response) -> dict[str, Any]:
    """The body of a failure, which has the cloud's shape and no audio's type."""
    assert 400 <= answer.status_code < 600
    assert answer.headers.get_list("content-type") == ["application/json"]
    body: dict[str, Any] = answer.json()
    assert list(body) == ["task_id", "result", "status", "message"]
    assert re.fullmatch("[0-9a-f]{32}", body["task_id"])
    assert (body["result"], type(body["status"])) == ("", int)
    assert 40000000 <= body["status"] < 60000000
    assert body["message"]
    check_shown(body["message"])
    return body


# Recognition


async def test_64_the_type_of_the_body_does_not_matter(live: Live) -> None:
    """The audio begins with what could be taken for a form."""
    form = b"appkey=x&format=mp3&a=%20+%&;b=\r\n"
    audio = form + SPOKEN[len(form) :]
    types = ["application/octet-stream", "application/x-www-form-urlencoded", None]
    params = {"appkey": "k", "format": "pcm", "sample_rate": "16000"}
    bodies = []
    async with client_of(live) as http:
        for kind in types:
            headers = {} if kind is None else {"Content-Type": kind}
            answer = await http.post(ASR, params=params, content=audio, headers=headers)
            bodies.append(answer.json())
    assert len({body.pop("task_id") for body in bodies}) == len(types)
    success = {"result": "heard 700 ms", "status": 20000000, "message": "SUCCESS"}
    assert bodies == [success] * len(types)


async def test_65_the_answer(live: Live) -> None:
    async with client_of(live) as http:
        answer = await http.post(ASR, params={"appkey": "k"}, content=SPOKEN)
        nothing = await http.post(ASR, params={"appkey": "k"}, content=silence(700).tobytes())
    body = answer.json()
    assert (answer.status_code, nothing.status_code) == (200, 200)
    assert answer.headers["content-type"] == "application/json"
    assert set(body) == {"task_id", "result", "status", "message"}
    assert re.fullmatch("[0-9a-f]{32}", body["task_id"])
    assert (body["result"], body["message"]) == ("heard 700 ms", "SUCCESS")
    assert (body["status"], type(body["status"])) == (20000000, int)
    assert (nothing.json()["result"], nothing.json()["status"]) == ("", 20000000)


async def test_66_a_bad_token(tmp_path: Path) -> None:
    """At every door; 401, on which xiaozhi gets a new one."""
    async with live_server(tmp_path, apptoken=TOKEN) as live, client_of(live) as http:
        for token in (WRONG, TOKEN[:-1], TOKEN + "x", ""):
            headers, query = {"X-NLS-Token": token}, {"appkey": "k", "token": token}
            for answer in (
                await http.post(ASR, params={"appkey": "k"}, content=SPOKEN, headers=headers),
                await http.post(ASR, params=query, content=SPOKEN),
                await http.get(TTS, params={"appkey": "k", "text": "hi"}, headers=headers),
                await http.get(TTS, params={**query, "text": "hi"}),
                await http.post(TTS, json={**query, "text": "hi"}),
                await http.post(FLASH, params={**query, "format": "wav"}, content=wav(tone(300))),
            ):
                body = failed(answer)
                assert (answer.status_code, body["status"]) == (401, 40000001)
                assert body["message"].startswith("Gateway:ACCESS_DENIED:")
                assert TOKEN not in answer.text and WRONG not in answer.text
        for headers, query in ({"X-NLS-Token": TOKEN}, {}), ({}, {"token": TOKEN}):
            answer = await http.post(ASR, content=SPOKEN, params=query, headers=headers)
            assert answer.json()["result"] == "heard 700 ms"


@pytest.mark.parametrize("rate", [8_000, 16_000])
async def test_67_raw_pcm_called_wav(live: Live, rate: int) -> None:
    samples = tone(700, rate)
    params = {"appkey": "k", "format": "wav", "sample_rate": str(rate)}
    async with client_of(live) as http:
        raw = await http.post(ASR, params=params, content=samples.tobytes())
        true = await http.post(ASR, params=params, content=wav(samples, rate))
    for answer in (raw, true):
        assert (answer.json()["status"], answer.json()["result"]) == (20000000, "heard 700 ms")


# Synthesis


@both
@pytest.mark.parametrize("text", ["hello", LONG], ids=["short", "long"])
@pytest.mark.parametrize("format", ["pcm", "wav", "mp3"])
async def test_68_the_type_is_audio_mpeg(live: Live, method: str, text: str, format: str) -> None:
    """Whatever the format is."""
    rate = 8_000
    fields = {"appkey": "k", "text": text, "format": format, "sample_rate": rate}
    async with client_of(live) as http:
        answer = await ask(http, method, fields)
        again = await ask(http, method, fields)
    assert answer.status_code == 200
    assert answer.headers.get_list("content-type") == ["audio/mpeg"]
    ids = [each.headers["X-NLS-RequestId"] for each in (answer, again)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    assert ids[0] != ids[1]
    assert answer.content == again.content
    audio, got = _heard(format, answer.content, rate)
    # An encoder of MP3 begins late, and fills its last frames up, of 72 ms at this rate.
    spare_s = 0.25 if format == "mp3" else 0
    assert 0.2 * len(text) <= len(audio) / got <= 0.2 * len(text) + spare_s
    if text == "hello":
        assert abs(main_frequency(audio[got // 4 : -got // 4], got) - 280) < 2


def _heard(format: str, data: bytes, rate: int) -> tuple[Int16, int]:
    if format != "wav":
        return decoded(format, data, rate)
    # Its lengths are not known when the header of a long one goes out.
    assert data.startswith(b"RIFF") and data[36:40] == b"data"
    return np.frombuffer(data[44:], "<i2"), int.from_bytes(data[24:28], "little")


async def test_68_the_name_of_the_header_as_it_is_sent(live: Live) -> None:
    """The official samples compare the type, whole; HTTP does not fix the case of names."""
    reader, writer = await asyncio.open_connection(live.host, live.port)
    writer.write(b"GET /stream/v1/tts?appkey=k&text=a HTTP/1.1\r\nHost: x\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    writer.close()
    fields = [line.partition(": ") for line in head if ": " in line]
    assert [value for name, _, value in fields if name.lower() == "content-type"] == ["audio/mpeg"]
    assert [name.lower() for name, _, _ in fields].count("x-nls-requestid") == 1


async def test_68_the_text_of_a_query_is_percent_encoded(live: Live) -> None:
    """By RFC 3986: a plus is %2B, a space %20; each of them is one character to the engine, so what
    GET says is as POST has it."""
    async with client_of(live) as http:
        for encoded, text in (
            ("a%2Bb%20c%25d%2Ae~f", "a+b c%d*e~f"),
            ("%E4%BD%A0%E5%A5%BD%26x%3D1", "你好&x=1"),
        ):
            query = await http.get(f"{TTS}?appkey=k&text={encoded}")
            body = await http.post(TTS, json={"appkey": "k", "text": text})
            assert (query.status_code, query.content) == (200, body.content)
            assert query.content


@both
@pytest.mark.parametrize(
    ("fields", "http_status", "code"),
    [
        ({}, 400, 40010003),
        ({"text": ""}, 400, 40010003),
        ({"text": " \n"}, 400, 40010003),
        ({"text": "hi", "format": "midi"}, 400, 40010003),
        ({"text": "hi", "sample_rate": "123"}, 400, 40010003),
        ({"text": "hi", "volume": "loud"}, 400, 40000003),
        ({"text": "<speak>hi"}, 400, 41020001),
        ({"text": LONG, "sample_rate": "1"}, 400, 40010003),
    ],
    ids=str,
)
async def test_69_a_failure_is_no_audio(
    live: Live, method: str, fields: dict[str, str], http_status: int, code: int
) -> None:
    async with client_of(live) as http:
        answer = await ask(http, method, {"appkey": "k", **fields})
        good = await ask(http, method, {"appkey": "k", "text": "hi"})
    assert (answer.status_code, failed(answer)["status"]) == (http_status, code)
    assert answer.headers["X-NLS-RequestId"] == answer.json()["task_id"]
    assert good.status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"text": "\xff"}', b"text=hello"], ids=repr)
async def test_69_a_body_that_is_no_json(live: Live, body: bytes) -> None:
    async with client_of(live) as http:
        found = failed(await http.post(TTS, content=body))
    assert found["status"] == 40000000
    assert found["message"] == "Gateway:CLIENT_ERROR:in post data, json format illegal"


@both
async def test_69_a_server_without_an_engine_for_it(tmp_path: Path, method: str) -> None:
    async with live_server(tmp_path, tts=None) as live, client_of(live) as http:
        failed(await ask(http, method, {"appkey": "k", "text": "hi"}))


# Recordings

WORDS = [
    {"text": word, "start_ms": 100 * at, "end_ms": 100 * at + 80}
    for at, word in enumerate(["北京", "的", "天气"])
]

RECORDED = joined(silence(500), tone(700), silence(2_000), tone(400), silence(400))
"""Four seconds."""

SENTENCES = [(500, 1_200), (3_200, 3_600)]


async def flash(http: httpx.AsyncClient, data: bytes, **params: str) -> dict[str, Any]:
    """The ``flash_result``, in an answer of the right shape."""
    answer = await http.post(FLASH, params={"appkey": "k", **params}, content=data)
    body = answer.json()
    assert answer.status_code == 200, body
    assert set(body) == {"task_id", "result", "status", "message", "flash_result"}
    assert re.fullmatch("[0-9a-f]{32}", body["task_id"])
    assert (body["result"], body["status"], body["message"]) == ("SUCCESS", 20000000, "SUCCESS")
    found: dict[str, Any] = body["flash_result"]
    assert set(found) == {"duration", "completed", "latency", "sentences"}
    assert found["completed"] is True
    assert type(found["duration"]) is type(found["latency"]) is int
    return found


async def test_70_flash(live: Live) -> None:
    """In the formats that the cloud names, in any case."""
    async with client_of(live) as http:
        found = await flash(http, wav(RECORDED), format="WAV")
        assert found["duration"] == 4_000
        assert found["sentences"] == [
            {"text": f"heard {end - begin} ms", "begin_time": begin, "end_time": end,
             "channel_id": 0}
            for begin, end in SENTENCES
        ]  # fmt: skip
        for name, container, codec in (
            ("mp3", "mp3", "libmp3lame"),
            ("Mp4", "mp4", "aac"),
            ("AAC", "adts", "aac"),
            ("opus", "ogg", "libopus"),
        ):
            rate = 48_000 if codec == "libopus" else 16_000
            spoken = joined(silence(500, rate), tone(700, rate), silence(800, rate))
            found = await flash(http, muxed(spoken, rate, container, codec), format=name)
            assert found["duration"] == pytest.approx(2_000, abs=150)
            (sentence,) = found["sentences"]
            assert sentence["begin_time"] == pytest.approx(500, abs=150)
            assert sentence["end_time"] == pytest.approx(1_200, abs=150)


async def test_70_words_on_request_only(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"text": "北京的天气。", "words": WORDS}] * 2))
    settings = {"FAKE_ASR_SCRIPT": str(script)}
    async with live_server(tmp_path, engine_settings=settings) as live, client_of(live) as http:
        for without in ({}, {"enable_word_level_result": "false"}):
            found = await flash(http, wav(RECORDED), format="wav", **without)
            assert [set(each) for each in found["sentences"]] == [
                {"text", "begin_time", "end_time", "channel_id"}
            ] * 2
        found = await flash(http, wav(RECORDED), format="wav", enable_word_level_result="true")
    for sentence, (begin, end) in zip(found["sentences"], SENTENCES, strict=True):
        assert (sentence["begin_time"], sentence["end_time"]) == (begin, end)
        words = sentence["words"]
        assert "".join(word["text"] + word["punc"] for word in words) == sentence["text"]
        assert [(word["text"], word["punc"]) for word in words] == [
            ("北京", ""), ("的", ""), ("天气", "。"),
        ]  # fmt: skip
        times = [float(word[key]) for word in words for key in ("begin_time", "end_time")]
        assert times == [begin + ms for ms in (0, 80, 100, 180, 200, 280)]


@pytest.mark.parametrize(
    ("format", "data", "code"),
    [
        ("midi", wav(RECORDED), 40270001),
        ("", wav(RECORDED), 40270001),
        ("wav", wav(silence(2_000)), 40270002),
        ("mp3", b"no mp3 at all " * 500, 40270003),
    ],
    ids=["unknown", "none", "silence", "garbage"],
)
async def test_70_what_is_no_recording(live: Live, format: str, data: bytes, code: int) -> None:
    async with client_of(live) as http:
        answer = await http.post(FLASH, params={"appkey": "k", "format": format}, content=data)
    assert (answer.status_code, failed(answer)["status"]) == (400, code)
