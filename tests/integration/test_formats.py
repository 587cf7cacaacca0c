"""Recognition of every format through real sockets.

The fake engine tells how long it heard the tone, to 10 ms, so what a decoder loses, repeats or adds
shows in the text; the embedded engine tells whether it is speech that comes out.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from app.audio.resample import Resampler
from app.client.nls import NlsClient
from tests.support.encoded import encoded, muxed, opus_packets
from tests.support.live import Live, live_server
from tests.support.rawsocket import COMPLETED, opened, start, stop
from tests.support.sound import Int16, joined, silence, tone

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT / "tests" / "data"
EXAMPLES: Final = ROOT / "examples"

LEAD_MS, TONE_MS = 300, 1_500
RATES: Final = (8_000, 16_000, 48_000)


@dataclass(frozen=True)
class Format:
    """A format of ``encoded.py``, under the ``name`` that clients give it.

    ``rates`` (Hz): those to test. ``longer_ms``: the tone may be heard longer by so much, and by
    ``smeared`` samples. ``late_ms``, ``late``: it may begin so much later, or by so many samples.
    """

    encoder: str
    name: str
    rates: tuple[int, ...] = RATES
    streams: bool = False
    longer_ms: int = 0
    smeared: int = 0
    late_ms: int = 0
    late: int = 0

    def sound(self, rate: int) -> bytes:
        """Silence, a tone, silence."""
        if self.encoder.startswith("tone."):
            return (DATA / self.encoder).read_bytes()
        return encoded(self.encoder, sound(rate), rate)


WAV_CODECS: Final = ("u8", "s16", "s24", "s32", "f32", "f64", "mulaw", "alaw")

FORMATS: Final = (
    # Nothing is lost, and nothing is late.
    Format("pcm", "pcm", streams=True),
    *(Format(f"wav-{codec}", "wav", streams=codec in ("s16", "mulaw")) for codec in WAV_CODECS),
    Format("wav-adpcm-ms", "wav"),
    Format("wav-adpcm-ima", "wav"),
    Format("flac", "flac"),
    Format("ogg-flac", "ogg"),
    # Lossy: their blocks smear the edges of the tone by less than one block of the engine. What
    # their encoders put in front is cut off.
    Format("m4a", "m4a", longer_ms=10),
    Format("ogg-opus", "opus", streams=True, longer_ms=10),
    Format("webm-opus", "webm", streams=True, longer_ms=10),
    Format("webm-opus-file", "webm", longer_ms=10),
    # Without a header there is nowhere to tell the encoder's delay of 6.5 ms.
    Format("opu", "opu", streams=True, longer_ms=20, late_ms=10),
    # MP3 smears by a granule (576 samples) before the tone and behind it; without LAME's tag its
    # delay (1,105 samples) is unknown.
    Format("mp3", "mp3", streams=True, longer_ms=10, smeared=576, late_ms=10, late=1_105),
    Format("mp3-lame", "mp3", longer_ms=10, smeared=576),
    # ADTS cannot tell its delay of 1,024 samples.
    Format("aac", "aac", streams=True, longer_ms=20, late_ms=10, late=1_024),
    # Filters of the coders: 5 ms and more. No rate but their own.
    Format("amr", "amr", (8_000,), longer_ms=20, late_ms=20),
    Format("tone.awb", "amr-wb", (16_000,), longer_ms=20, late_ms=20),
    Format("tone.spx", "speex", (8_000,), longer_ms=20, late_ms=20),
    # Begins 512 samples (at 8 kHz) too early: the decoder cuts off more than there was.
    Format("wma", "wma", longer_ms=20, late_ms=-80),
)

every_format = pytest.mark.parametrize(
    ("format", "rate"),
    [
        pytest.param(each, rate, id=f"{each.encoder}-{rate}")
        for each in FORMATS
        for rate in each.rates
    ],
)
STREAMS: Final = [each for each in FORMATS if each.streams]
every_stream = pytest.mark.parametrize(
    "format", [pytest.param(each, id=each.encoder) for each in STREAMS]
)


def sound(rate: int) -> Int16:
    return joined(silence(LEAD_MS, rate), tone(TONE_MS, rate), silence(LEAD_MS, rate))


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """In pieces of these sizes, again and again."""
    pieces: list[bytes] = []
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return pieces
        pieces.append(data[at : at + size])
        at += size
    return pieces


async def posted(http: httpx.AsyncClient, data: bytes, **params: Any) -> str:
    """The text of a REST recognition."""
    answer = (await http.post("/stream/v1/asr", params=params, content=data)).json()
    assert answer["status"] == 20000000, answer
    return str(answer["result"])


async def transcribed(live: Live, data: bytes | list[bytes], **options: Any) -> list[Any]:
    """The payloads of a transcriber's sentences."""
    events = await NlsClient(live.ws).transcribe(data, **options)
    return [event.payload for event in events if event.name == "SentenceEnd"]


async def recognised(live: Live, data: bytes, **options: Any) -> str:
    """The text of the one-sentence recogniser."""
    async with NlsClient(live.ws).recognizer(**options) as task:
        await task.send(data)
        return str((await task.finish())[-1].payload["result"])


def milliseconds(text: str) -> int:
    """Of ``heard N ms``."""
    heard, number, unit = text.split()
    assert (heard, unit) == ("heard", "ms")
    return int(number)


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[tuple[Live, httpx.AsyncClient]]:
    """A server, and a client of its REST doors."""
    async with (
        live_server(folder, **settings) as live,
        httpx.AsyncClient(base_url=live.http, timeout=60) as http,
    ):
        yield live, http


# All of it


@every_format
async def test_the_whole_tone_is_heard_at_every_door(
    tmp_path: Path, format: Format, rate: int
) -> None:
    data = format.sound(rate)
    named: dict[str, Any] = {"format": format.name, "sample_rate": rate}
    async with serving(tmp_path) as (live, http):
        (sentence,) = await transcribed(live, data, **named)
        texts = [
            sentence["result"],
            await posted(http, data, **named),
            await recognised(live, data, **named),
        ]
    heard = [milliseconds(text) for text in texts]
    smear_ms = format.smeared * 1000 / rate
    # The resampler rounds an edge off, which may cost a block of the engine.
    longest = TONE_MS + format.longer_ms + 2 * smear_ms
    assert all(TONE_MS - 10 <= ms <= longest for ms in heard), heard
    earliest, latest = sorted((0.0, format.late_ms + format.late * 1000 / rate))
    late_ms = sentence["begin_time"] - LEAD_MS
    assert earliest - smear_ms - 10 <= late_ms <= latest + 10, late_ms


@pytest.mark.parametrize("frame_ms", [20, 60, 100])
@pytest.mark.parametrize("name", ["opus", "opu-less", "ogg"][::2])
async def test_bare_opus_packets_are_heard_whole(tmp_path: Path, name: str, frame_ms: int) -> None:
    """As devices send them: each in a message of its own."""
    packets = opus_packets(sound(16_000), 16_000, frame_ms)
    async with live_server(tmp_path) as live:
        (sentence,) = await transcribed(live, packets, format=name)
    assert abs(milliseconds(sentence["result"]) - TONE_MS) <= 20
    assert abs(sentence["begin_time"] - LEAD_MS) <= 10


STEREO: Final = {
    "wav": ("wav", "pcm_s16le"),
    "flac": ("flac", "flac"),
    "m4a": ("ipod", "aac"),
    "mp3": ("mp3", "libmp3lame"),
    "aac": ("adts", "aac"),
    "opus": ("ogg", "libopus"),
    "webm": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
}


@pytest.mark.parametrize("name", STEREO)
async def test_both_channels_of_stereo_are_heard(tmp_path: Path, name: str) -> None:
    nothing, first, second = silence(300, 48_000), tone(600, 48_000), tone(700, 48_000)
    left = joined(nothing, first, silence(700, 48_000), nothing)
    right = joined(nothing, silence(600, 48_000), second, nothing)
    container, codec = STEREO[name]
    both = np.stack([left, right], axis=1)
    data = muxed(both, 48_000, container, codec, bit_rate=128_000, layout="stereo")
    async with serving(tmp_path) as (live, http):
        text = await posted(http, data, format=name, sample_rate=48_000)
        (sentence,) = await transcribed(live, data, format=name, sample_rate=48_000)
    assert abs(milliseconds(text) - 1_300) <= 40
    assert abs(milliseconds(sentence["result"]) - 1_300) <= 40


# As it comes


@pytest.mark.parametrize("portion_ms", [20, 60, 100])
@every_stream
async def test_there_is_a_result_before_the_end(
    tmp_path: Path, format: Format, portion_ms: int
) -> None:
    data = format.sound(16_000)
    size = len(data) * portion_ms // (2 * LEAD_MS + TONE_MS)
    await partial_after_a_part(tmp_path, format.name, cut(data, [size]))


@pytest.mark.parametrize("frame_ms", [20, 60, 100])
async def test_there_is_a_result_before_the_end_of_bare_packets(
    tmp_path: Path, frame_ms: int
) -> None:
    await partial_after_a_part(tmp_path, "opus", opus_packets(sound(16_000), 16_000, frame_ms))


async def partial_after_a_part(folder: Path, name: str, pieces: list[bytes]) -> None:
    """Send half of the pieces, and the others only when there is a result."""
    half = len(pieces) // 2
    async with live_server(folder) as live:
        for namespace in ("SpeechTranscriber", "SpeechRecognizer"):
            changed = COMPLETED[namespace].replace("Completed", "ResultChanged")
            async with opened(live) as client:
                await client.text(start(namespace, format=name, enable_intermediate_result=True))
                await client.audio(*pieces[:half])
                partial = (await client.until(changed))[-1]["payload"]["result"]
                assert 0 < milliseconds(partial) < TONE_MS
                await client.audio(*pieces[half:])
                await client.text(stop(namespace))
                events = await client.until(COMPLETED[namespace])
                texts = [
                    each["payload"]["result"]
                    for each in events
                    if "result" in each.get("payload", {})
                ]
                assert milliseconds(texts[-1]) >= TONE_MS - 10


@every_stream
async def test_any_split_gives_identical_results(tmp_path: Path, format: Format) -> None:
    """With the near-field gate, which takes the quiet tone away: the engine would hear it."""
    rate = 8_000
    quiet = tone(400, rate, level=0.0055 * 2**0.5)
    audio = joined(silence(100, rate), tone(310, rate), quiet, silence(900, rate), tone(200, rate))
    data = encoded(format.encoder, audio, rate)
    second = max(len(data) * 1000 // (len(audio) * 1000 // rate), 1)
    async with live_server(tmp_path) as live:
        client = NlsClient(live.ws)
        found = []
        for sizes in ([len(data)], [1], [7], [333, 1, 255], [second]):
            events = await client.transcribe(
                cut(data, sizes), format=format.name, sample_rate=rate, enable_words=True
            )
            found.append([event.payload for event in events if event.name == "SentenceEnd"])
    assert len(found[0]) == 2
    assert milliseconds(found[0][0]["result"]) < 310 + 200
    assert found == [found[0]] * len(found)


# The format is a hint

CONTENT_TELLS: Final = [
    each for each in FORMATS if each.name not in ("pcm", "opu", "mp3", "aac")
] + [each for each in FORMATS if each.encoder == "mp3-lame"]


@pytest.mark.parametrize("format", [pytest.param(each, id=each.encoder) for each in CONTENT_TELLS])
async def test_content_overrules_a_wrong_label(tmp_path: Path, format: Format) -> None:
    rate = format.rates[0]
    data = format.sound(rate)
    async with serving(tmp_path) as (live, http):
        expected = await posted(http, data, format=format.name, sample_rate=rate)
        for label in ("pcm", "wav", "mp3", "OPUS", "flac", "amr", "webm", ".M4A"):
            assert await posted(http, data, format=label, sample_rate=rate) == expected
        (right,) = await transcribed(live, data, format=format.name, sample_rate=rate)
        (wrong,) = await transcribed(live, data, format="pcm", sample_rate=rate)
    assert wrong == right


async def test_a_label_may_have_any_case_and_a_dot(tmp_path: Path) -> None:
    async with serving(tmp_path) as (live, http):
        for format in FORMATS:
            rate = format.rates[-1]
            data = format.sound(rate)
            expected = await posted(http, data, format=format.name, sample_rate=rate)
            for label in (format.name.upper(), "." + format.name.title()):
                assert await posted(http, data, format=label, sample_rate=rate) == expected
            (sentence,) = await transcribed(
                live, data, format="." + format.name.upper(), sample_rate=rate
            )
            assert milliseconds(sentence["result"]) >= TONE_MS - 10


@pytest.mark.parametrize("rate", RATES)
async def test_raw_pcm_called_wav_is_heard_from_its_first_sample(tmp_path: Path, rate: int) -> None:
    pcm = tone(700, rate).tobytes()
    async with serving(tmp_path) as (live, http):
        assert await posted(http, pcm, format="wav", sample_rate=rate) == "heard 700 ms"
        (sentence,) = await transcribed(live, pcm, format="wav", sample_rate=rate)
        assert (sentence["result"], sentence["begin_time"]) == ("heard 700 ms", 0)
        assert await recognised(live, pcm, format="WAV", sample_rate=rate) == "heard 700 ms"


async def test_a_header_overrules_the_sample_rate_of_the_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, http):
        for name in ("wav-s16", "flac", "mp3", "ogg-opus", "m4a"):
            data = encoded(name, sound(48_000), 48_000)
            text = await posted(http, data, format=name.split("-")[0], sample_rate=8_000)
            assert abs(milliseconds(text) - TONE_MS) <= 40


# Speech

INSTALLED: Final = importlib.util.find_spec("pocketsphinx") is not None
if not INSTALLED and os.environ.get("REQUIRE_ALL") == "1":
    raise RuntimeError("the embedded extra is missing: pip install -e '.[embedded]'")
needs_embedded = pytest.mark.skipif(not INSTALLED, reason="needs pip install -e '.[embedded]'")


def speech(name: str) -> Int16:
    with wave.open(str(EXAMPLES / f"{name}.wav")) as audio:
        return np.frombuffer(audio.readframes(audio.getnframes()), dtype=np.int16)


def words(name: str) -> list[str]:
    return (EXAMPLES / f"{name}.txt").read_text().split()


@needs_embedded
async def test_the_example_sentence_is_recognised_in_every_format(tmp_path: Path) -> None:
    hello = speech("hello")
    narrow = Resampler(16_000, 8_000)
    hello_8k = joined(narrow.feed(hello), narrow.flush())
    async with serving(tmp_path, asr="embedded", tts=None) as (_, http):
        for format in FORMATS:
            if format.encoder.startswith("tone."):
                data = (DATA / format.encoder.replace("tone", "hello")).read_bytes()
            elif format.rates == (8_000,):
                data = encoded(format.encoder, hello_8k, 8_000)
            else:
                data = encoded(format.encoder, hello, 16_000)
            rate = 8_000 if format.rates == (8_000,) else 16_000
            text = await posted(http, data, format=format.name, sample_rate=rate)
            assert text.split() == words("hello"), format.encoder


@needs_embedded
async def test_spoken_sentences_are_recognised_as_they_stream_in(tmp_path: Path) -> None:
    async with live_server(tmp_path, asr="embedded", tts=None) as live:
        for format in STREAMS:
            data = encoded(format.encoder, speech("hello"), 16_000)
            pieces = cut(data, [len(data) // 20])
            found = await transcribed(live, pieces, format=format.name)
            assert [each["result"].split() for each in found] == [words("hello")], format.encoder
        packets = opus_packets(speech("three_sentences"), 16_000, 60)
        found = await transcribed(live, packets, format="opus")
    assert len(found) == 3
    assert " ".join(each["result"] for each in found).split() == words("three_sentences")
