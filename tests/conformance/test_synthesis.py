"""nls-protocol.md 9, Synthesis: numbers 48 to 55. The fake engine takes 200 ms for a character, at
a pitch that tells the first one of the sentence."""

from __future__ import annotations

import io
import json
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.speech import Utterance
from app.engines.fake.options import FakeOptions
from app.engines.fake.synthesizer import FakeSynthesizer
from tests.support.live import Live, live_server
from tests.support.rawsocket import BINARY, RawSocket, opened, start
from tests.support.sound import main_frequency

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMESPACES = ("SpeechSynthesizer", "SpeechLongSynthesizer")
both = pytest.mark.parametrize("namespace", NAMESPACES)

CHARACTER_MS = 200
TEXT = "你好。今天天气很好。"


async def spoken(
    client: RawSocket, namespace: str = "SpeechSynthesizer", **options: Any
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The audio frames and the events of a whole task; nothing comes after its Completed."""
    await client.text(start(namespace, **options))
    frames, events = list[bytes](), list[dict[str, Any]]()
    while not events or events[-1]["header"]["name"] != "SynthesisCompleted":
        got = await client.frame()
        if got.opcode == BINARY:
            frames.append(got.payload)
        else:
            events.append(json.loads(got.payload))
            assert events[-1]["header"]["name"] != "TaskFailed", events[-1]
            assert events[-1]["header"]["namespace"] == namespace
    return frames, events


async def audio(client: RawSocket, **options: Any) -> bytes:
    """All audio of a task that has no event but Completed."""
    frames, events = await spoken(client, **options)
    assert [event["header"]["name"] for event in events] == ["SynthesisCompleted"]
    return b"".join(frames)


def samples(pcm: bytes) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """16-bit."""
    return np.frombuffer(pcm, "<i2")


@both
async def test_48_audio_then_completed(live: Live, namespace: str) -> None:
    """A second task would begin with what the first had left."""
    async with opened(live) as client:
        for text in ("ab", TEXT, "ab"):
            frames, events = await spoken(client, namespace, text=text)
            assert frames
            assert [event["header"]["name"] for event in events] == ["SynthesisCompleted"]
            assert len(b"".join(frames)) == 2 * 16_000 * CHARACTER_MS // 1_000 * len(text)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
async def test_49_lengths_and_the_header(live: Live, rate: int) -> None:
    """``hello`` lasts a second."""
    async with opened(live) as client:
        raw = await audio(client, text="hello", sample_rate=rate)
        file = await audio(client, text="hello", sample_rate=rate, format="wav")
    assert len(raw) == rate * 2
    assert abs(main_frequency(samples(raw), rate) - (200 + ord("h") % 50 * 20)) < 2
    assert file.startswith(b"RIFF")
    assert file.count(b"RIFF") == file.count(b"WAVEfmt ") == 1
    assert file[44:] == raw
    channels, frame_rate, _, block, bits = struct.unpack("<HIIHH", file[22:36])
    assert (channels, frame_rate, block, bits) == (1, rate, 2, 16)


async def test_49_any_reader_reads_the_wav(live: Live) -> None:
    """Its lengths are not known when the header goes out."""
    async with opened(live) as client:
        file = await audio(client, text="hello", format="wav")
    with wave.open(io.BytesIO(file)) as read:
        assert (read.getnchannels(), read.getframerate(), read.getsampwidth()) == (1, 16_000, 2)
        assert read.readframes(16_000) == file[44:]


@both
@pytest.mark.parametrize("rate", [8_000, 16_000])
async def test_50_subtitles(live: Live, namespace: str, rate: int) -> None:
    async with opened(live) as client:
        frames, events = await spoken(
            client, namespace, text=TEXT, enable_subtitle=True, sample_rate=rate
        )
    subtitles = [
        entry
        for event in events
        if event["header"]["name"] == "MetaInfo"
        for entry in event["payload"]["subtitles"]
    ]
    for entry in subtitles:
        assert TEXT[entry["begin_index"] : entry["end_index"]] == entry["text"]
        assert all(type(entry[key]) is int for key in entry if key.endswith(("_time", "_index")))
    assert "".join(entry["text"] for entry in subtitles) == TEXT
    times = [entry[key] for entry in subtitles for key in ("begin_time", "end_time")]
    assert times == sorted(times)
    length_ms = len(b"".join(frames)) * 1_000 // (2 * rate)
    assert 0 < times[-1] <= length_ms
    # The engine tells them truly.
    assert times[::2] == [CHARACTER_MS * index for index in range(len(TEXT))]


@both
@pytest.mark.parametrize("options", [{}, {"enable_subtitle": False}, {"enable_subtitle": None}])
async def test_50_no_subtitles_unless_asked(
    live: Live, namespace: str, options: dict[str, Any]
) -> None:
    async with opened(live) as client:
        _, events = await spoken(client, namespace, text=TEXT, **options)
    assert [event["header"]["name"] for event in events] == ["SynthesisCompleted"]


class Listener(FakeSynthesizer):
    """Remembers whose voices were asked for."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())
        self.voices: list[str] = []

    def synthesize(self, utterance: Utterance) -> Any:
        """See :class:`FakeSynthesizer`."""
        self.voices.append(utterance.voice)
        return super().synthesize(utterance)


DEFAULTS = {
    "voice": "xiaoyun",
    "format": "pcm",
    "sample_rate": 16_000,
    "volume": 50,
    "speech_rate": 0,
    "pitch_rate": 0,
}
OTHERS = {
    "voice": "siyue_and_nobody_else",
    "format": "wav",
    "sample_rate": 8_000,
    "volume": 51,
    "speech_rate": 1,
    "pitch_rate": 100,
}


async def test_51_defaults(tmp_path: Path) -> None:
    """Without a value it is as with the default, and not as with another."""
    engine = Listener()
    async with live_server(tmp_path, tts=engine) as live, opened(live) as client:
        text = "a" * 50
        plain = await audio(client, text=text)
        for name, default in DEFAULTS.items():
            assert await audio(client, text=text, **{name: default}) == plain
            other = await audio(client, text=text, **{name: OTHERS[name]})
            assert (other == plain) == (name == "voice"), name
    voice, *rest = engine.voices
    assert rest.count(voice) == len(rest) - 1  # all but the other voice


@pytest.mark.parametrize("rate", [8_000, 16_000])
async def test_52_speech_rate(live: Live, rate: int) -> None:
    options = {"text": "a" * 20, "sample_rate": rate}
    async with opened(live) as client:
        slow, normal, fast = [
            len(await audio(client, speech_rate=value, **options)) / (2 * rate)
            for value in (-500, 0, 500)
        ]
    assert normal == 4.0
    assert slow == pytest.approx(8.0, rel=0.01)
    assert fast == pytest.approx(2.0, rel=0.01)


async def test_53_long_texts(live: Live) -> None:
    """Of any length, in the namespace of its own, which Go uses for short ones too; the other one
    has its limit."""
    async with opened(live) as client:
        for text in ("ab", "今天天气很好。" * 200):
            frames, _ = await spoken(client, "SpeechLongSynthesizer", text=text, sample_rate=8_000)
            assert len(b"".join(frames)) == 2 * 8_000 * CHARACTER_MS // 1_000 * len(text)
        frames, _ = await spoken(client, "SpeechSynthesizer", text="ab")
        assert len(b"".join(frames)) == 2 * 16_000 * CHARACTER_MS // 1_000 * 2
        await client.text(start("SpeechSynthesizer", text="今天天气很好。" * 200))
        assert (await client.failure())["status"] == 40010003


@both
@pytest.mark.parametrize(
    "text", ["", None, " \n\t", "……", 7], ids=["empty", "null", "blank", "nothing to say", "number"]
)
async def test_54_no_text(live: Live, namespace: str, text: object) -> None:
    async with opened(live) as client:
        await client.text(start(namespace, text=text))
        header = await client.failure()
    assert header["status"] in (40010003, 40000000)


@both
async def test_55_ssml(live: Live, namespace: str) -> None:
    """A break is silence of its length, at its place."""
    async with opened(live) as client:
        plain = await audio(client, namespace=namespace, text="你好")
        broken = await audio(
            client, namespace=namespace, text='<speak>你好<break time="500ms"/>你好</speak>'
        )
    assert broken == plain + bytes(16_000) + plain


@both
@pytest.mark.parametrize(
    "text",
    ["<speak>你好", "<speak>你好</spoken>", "<speak>&nothing;</speak>", "<speak rate=1>a</speak>"],
)
async def test_55_malformed_ssml(live: Live, namespace: str, text: str) -> None:
    async with opened(live) as client:
        await client.text(start(namespace, text=text))
        assert (await client.failure())["status"] == 41020001
