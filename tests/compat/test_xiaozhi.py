"""What xiaozhi-esp32-server's providers ``aliyun_stream`` (ASR and TTS) send and rely on, through
the client library that they use (nls-protocol.md 1.10, 3.1, 5, 10). TLS is ``funspeech cert``'s."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.lan_certificate import lan_certificate
from tests.support.live import Live, live_server
from tests.support.process import serving
from tests.support.rawsocket import nothing_left, until
from tests.support.sound import joined, silence, tone

TOKEN = "right-token-0123"
PACKET_BYTES = 1_920
"""One decoded Opus packet of the device: 60 ms at 16 kHz."""


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Live]:
    """One that wants a token, and is left without any task."""
    async with live_server(folder, apptoken=TOKEN) as live, nothing_left(live):
        yield live


# ASR


@asynccontextmanager
async def listening(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A connection for one utterance. It sends no pings."""
    async with connect(
        url,
        additional_headers={"X-NLS-Token": TOKEN},
        max_size=1_000_000_000,
        ping_interval=None,
        ping_timeout=None,
        close_timeout=5,
        **options,
    ) as socket:
        yield socket


def asr_message(name: str, task_id: str | None, payload: dict[str, Any] | None = None) -> str:
    """With the fields of an answer in its header; Stop has no task id."""
    header = {
        "namespace": "SpeechTranscriber",
        "name": name,
        "status": 20000000,
        "message_id": uuid4().hex,
        "task_id": task_id,
        "status_text": "Gateway:SUCCESS:Success." if task_id else "Client:Stop",
        "appkey": "demo-appkey",
    }
    message: dict[str, Any] = {"header": {k: v for k, v in header.items() if v is not None}}
    if payload is not None:
        message["payload"] = payload
    return json.dumps(message, ensure_ascii=False)


def asr_start(max_sentence_silence: int | None) -> str:
    """``null`` where the owner has set none."""
    payload = {
        "format": "pcm",
        "sample_rate": 16_000,
        "enable_intermediate_result": True,
        "enable_punctuation_prediction": True,
        "enable_inverse_text_normalization": True,
        "max_sentence_silence": max_sentence_silence,
        "enable_voice_detection": False,
    }
    return asr_message("StartTranscription", uuid4().hex, payload)


async def heard(socket: ClientConnection, silence_ms: int | None) -> str:
    """One utterance up to its SentenceEnd, as the provider reads it: audio only after Started."""
    await socket.send(asr_start(silence_ms))
    started = json.loads(await socket.recv())
    assert started["header"]["name"] == "TranscriptionStarted"
    audio = joined(silence(180), tone(900), silence(1_200)).tobytes()
    for begin in range(0, len(audio), PACKET_BYTES):
        await socket.send(audio[begin : begin + PACKET_BYTES])
    while True:
        event = json.loads(await socket.recv())
        assert event["header"]["status"] == 20000000
        if event["header"]["name"] == "SentenceEnd":
            return str(event["payload"]["result"])


@pytest.mark.parametrize("silence_ms", [800, None], ids=["800", "null"])
async def test_it_hears_a_sentence_and_leaves(tmp_path: Path, silence_ms: int | None) -> None:
    """Its Stop has no task id, and completes the task all the same."""
    async with server(tmp_path) as live:
        for _ in range(3):
            async with listening(live.ws) as socket:
                assert await heard(socket, silence_ms) == "heard 900 ms"
                await socket.send(asr_message("StopTranscription", None))
                completed = json.loads(await socket.recv())
                assert completed["header"]["name"] == "TranscriptionCompleted"
            await until(lambda: not any(worker.active for worker in live.workers))


async def test_it_leaves_without_a_word(tmp_path: Path) -> None:
    async with server(tmp_path) as live, listening(live.ws) as socket:
        assert await heard(socket, 800) == "heard 900 ms"
        socket.transport.abort()
        await until(lambda: not any(worker.active for worker in live.workers))


# TTS


@asynccontextmanager
async def speaking(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A connection for all utterances that follow each other within ten seconds."""
    async with connect(
        url,
        additional_headers={"X-NLS-Token": TOKEN},
        ping_interval=30,
        ping_timeout=10,
        close_timeout=10,
        **options,
    ) as socket:
        yield socket


class Utterance:
    """One task: its messages all have one message id."""

    def __init__(self, socket: ClientConnection, rate: int = 16_000) -> None:
        self._socket = socket
        self._rate = rate
        self._message_id, self.task_id = uuid4().hex, uuid4().hex

    async def send(self, name: str, payload: dict[str, Any] | None = None) -> None:
        """A directive."""
        header = {
            "message_id": self._message_id,
            "task_id": self.task_id,
            "namespace": "FlowingSpeechSynthesizer",
            "name": name,
            "appkey": "demo-appkey",
        }
        message: dict[str, Any] = {"header": header}
        if payload is not None:
            message["payload"] = payload
        await self._socket.send(json.dumps(message))

    async def start(self) -> None:
        """Nothing is waited for: text follows at once."""
        await self.send(
            "StartSynthesis",
            {
                "voice": "longxiaochun",
                "format": "pcm",
                "sample_rate": self._rate,
                "volume": 50,
                "speech_rate": 0,
                "pitch_rate": 0,
                "enable_subtitle": True,
            },
        )

    async def say(self, *texts: str) -> None:
        """Pieces, as a language model gives them."""
        for text in texts:
            await self.send("RunSynthesis", {"text": text})

    async def heard(self, until_name: str = "SynthesisCompleted") -> tuple[list[str], int]:
        """The events that the provider reads, and how much audio came."""
        names, size = list[str](), 0
        while until_name not in names:
            message = await self._socket.recv()
            if isinstance(message, bytes):
                assert len(message) % 2 == 0  # it encodes each message for itself
                size += len(message)
                continue
            event = json.loads(message)
            assert event["header"]["task_id"] == self.task_id
            assert event["header"]["name"] != "TaskFailed", event
            if event["header"]["name"] != "SentenceSynthesis":
                names.append(event["header"]["name"])
        return names, size


SENTENCE = ["SentenceBegin", "SentenceEnd"]


@pytest.mark.parametrize("rate", [16_000, 24_000])
async def test_it_speaks_what_a_model_says_on_one_connection(tmp_path: Path, rate: int) -> None:
    async with server(tmp_path) as live, speaking(live.ws) as socket:
        for _ in range(5):
            utterance = Utterance(socket, rate)
            await utterance.start()
            await utterance.say("你", "好", "。", "今天天", "气很好。", "再见")
            await utterance.send("StopSynthesis")
            names, size = await utterance.heard()
            assert names == ["SynthesisStarted", *SENTENCE * 3, "SynthesisCompleted"]
            assert size == 12 * 2 * rate // 5


async def test_it_hears_the_first_sentence_before_it_has_the_second(tmp_path: Path) -> None:
    async with server(tmp_path) as live, speaking(live.ws) as socket:
        utterance = Utterance(socket)
        await utterance.start()
        await utterance.say("你好。")
        names, size = await utterance.heard("SentenceEnd")
        assert (names, size) == (["SynthesisStarted", *SENTENCE], 3 * 2 * 16_000 // 5)
        await utterance.say("再见。")
        await utterance.send("StopSynthesis")
        assert await utterance.heard() == ([*SENTENCE, "SynthesisCompleted"], size)


async def test_it_is_interrupted_and_connects_again(tmp_path: Path) -> None:
    """Somebody speaks to the device: the running task is left by closing the connection."""
    slow = {"FAKE_TTS_DELAY_MS": 20}
    async with (
        live_server(tmp_path, apptoken=TOKEN, engine_settings=slow) as live,
        nothing_left(live),
    ):
        async with speaking(live.ws) as socket:
            utterance = Utterance(socket)
            await utterance.start()
            await utterance.say("你好，" * 60, "今天。" * 30)
            while not isinstance(await socket.recv(), bytes):
                pass
        await until(lambda: not any(worker.active for worker in live.workers))
        async with speaking(live.ws) as socket:
            utterance = Utterance(socket)
            await utterance.start()
            await utterance.say("再见。")
            await utterance.send("StopSynthesis")
            assert (await utterance.heard())[1] == 3 * 2 * 16_000 // 5


async def test_a_failure_is_told_in_its_words(tmp_path: Path) -> None:
    """It reads ``error_info``, which no SDK knows (nls-protocol.md 1.7)."""
    async with server(tmp_path) as live, speaking(live.ws) as socket:
        utterance = Utterance(socket, rate=12_345)
        await utterance.start()
        event = json.loads(await socket.recv())
        assert event["header"]["name"] == "TaskFailed"
        info = event["payload"]["error_info"]
        assert info["error_code"] == event["header"]["status"] == 40010003
        assert info["error_message"] == event["header"]["status_text"]


# TLS


async def test_both_over_tls(tmp_path: Path) -> None:
    """``wss``, as for every host without ``-internal.`` in its name, with a certificate that the
    machine of xiaozhi verifies."""
    certificate = await lan_certificate(tmp_path / "pair")
    trusting = certificate.trusting()
    async with serving(tmp_path, APPTOKEN=TOKEN, **certificate.settings) as served:
        assert served.ws.startswith("wss://127.0.0.1:")
        async with listening(served.ws, ssl=trusting) as socket:
            assert await heard(socket, None) == "heard 900 ms"
            await socket.send(asr_message("StopTranscription", None))
        async with speaking(served.ws, ssl=trusting) as socket:
            utterance = Utterance(socket)
            await utterance.start()
            await utterance.say("你好。")
            await utterance.send("StopSynthesis")
            names, size = await utterance.heard()
            assert names == ["SynthesisStarted", *SENTENCE, "SynthesisCompleted"]
            assert size == 3 * 2 * 16_000 // 5
        with pytest.raises(ssl.SSLCertVerificationError):
            async with listening(served.ws, ssl=ssl.create_default_context()):
                pass
