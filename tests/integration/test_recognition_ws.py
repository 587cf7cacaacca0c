"""Recognition through real sockets, on the fake engine, whose text tells what it heard to 10 ms."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.client.errors import NlsTaskFailed
from app.client.messages import Event
from app.client.nls import NlsClient
from app.engines.fake.recognizer import FakeRecognizer
from app.serving.worker.endpointing import EndpointingRecognition
from tests.support.live import live_server
from tests.support.sound import joined, silence, tone


def texts(events: list[Event], name: str = "SentenceEnd") -> list[str]:
    return [event.payload["result"] for event in events if event.name == name]


def cut(audio: bytes, *sizes: int) -> list[bytes]:
    """``audio`` in pieces of these sizes, again and again."""
    pieces: list[bytes] = []
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(audio):
            return pieces
        pieces.append(audio[position : position + size])
        position += size
    return pieces


async def test_a_sentence_has_its_events_times_and_all_of_its_audio(tmp_path: Path) -> None:
    audio = joined(silence(500), tone(1230), silence(1200))
    async with live_server(tmp_path) as live:
        events = await NlsClient(live.ws).transcribe(
            audio.tobytes(), enable_intermediate_result=True
        )
    names = [event.name for event in events]
    assert names[:2] == ["TranscriptionStarted", "SentenceBegin"]
    assert names[-2:] == ["SentenceEnd", "TranscriptionCompleted"]
    assert set(names[2:-2]) == {"TranscriptionResultChanged"}
    end = events[-2].payload
    assert (end["index"], end["begin_time"], end["time"]) == (1, 500, 1730)
    assert end["result"] == "heard 1230 ms"


@pytest.mark.parametrize("sizes", [(1, 3, 320, 1920), (3200,), (8000,), (65_536,), (3199, 1)])
async def test_any_framing_hears_the_same(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    audio = joined(tone(700), silence(1500), tone(410), silence(100)).tobytes()
    async with live_server(tmp_path) as live:
        events = await NlsClient(live.ws).transcribe(cut(audio, *sizes))
    assert texts(events) == ["heard 700 ms", "heard 410 ms"]


async def test_a_200_ms_utterance_followed_by_stop_is_heard_exactly(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        events = await NlsClient(live.ws).transcribe(tone(200).tobytes())
    assert texts(events) == ["heard 200 ms"]


@pytest.mark.parametrize(("silence_ms", "sentences"), [(800, 3), (3000, 1), (None, 3)])
async def test_max_sentence_silence_cuts_sentences(
    tmp_path: Path, silence_ms: int | None, sentences: int
) -> None:
    gap = silence(1500)
    audio = joined(tone(600), gap, tone(600), gap, tone(600)).tobytes()
    async with live_server(tmp_path) as live:
        events = await NlsClient(live.ws).transcribe(audio, max_sentence_silence=silence_ms)
    assert len(texts(events)) == sentences


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
async def test_other_sample_rates_are_heard_at_their_true_length(tmp_path: Path, rate: int) -> None:
    audio = joined(silence(300, rate), tone(1000, rate), silence(300, rate)).tobytes()
    async with live_server(tmp_path) as live:
        events = await NlsClient(live.ws).transcribe(audio, sample_rate=rate)
    heard = int(texts(events)[0].split()[1])
    assert abs(heard - 1000) <= 10  # a block of the engine: the resampler rounds the edges off


async def test_silence_only_has_no_sentence(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        events = await NlsClient(live.ws).transcribe(silence(3000).tobytes())
    assert [event.name for event in events] == ["TranscriptionStarted", "TranscriptionCompleted"]


async def test_sound_below_the_near_field_threshold_is_not_heard_and_times_stay(
    tmp_path: Path,
) -> None:
    quiet = tone(1000, level=0.005 * 2**0.5)  # RMS 0.005
    audio = joined(quiet, silence(1000), tone(500), silence(1000)).tobytes()
    async with live_server(tmp_path) as live:
        events = await NlsClient(live.ws).transcribe(audio)
    async with live_server(tmp_path / "off", asr_enable_nearfield_filter=False) as live:
        without = await NlsClient(live.ws).transcribe(audio)
    assert texts(events) == ["heard 500 ms"]
    end = next(event for event in events if event.name == "SentenceEnd")
    assert (end.payload["begin_time"], end.payload["time"]) == (2000, 2500)
    assert texts(without)[-1] == "heard 500 ms"


async def test_a_file_is_heard_however_quiet(tmp_path: Path) -> None:
    quiet = tone(1000, level=0.008 * 2**0.5).tobytes()  # RMS 0.008: heard by the fake engine
    async with (
        live_server(tmp_path) as live,
        httpx.AsyncClient(base_url=live.http) as http,
    ):
        streamed = await NlsClient(live.ws).transcribe(quiet)
        posted = await http.post("/stream/v1/asr", content=quiet)
    assert texts(streamed) == []
    assert posted.json()["result"] == "heard 1000 ms"


async def test_tasks_follow_each_other_on_one_connection(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, NlsClient(live.ws).connect() as connection:
        for ms in (300, 700):
            async with connection.transcriber() as task:
                await task.send(tone(ms).tobytes())
                assert texts(await task.finish()) == [f"heard {ms} ms"]
        async with connection.recognizer() as task:
            await task.send(joined(tone(300), silence(2000), tone(300)).tobytes())
            events = await task.finish()
        assert texts(events, "RecognitionCompleted") == ["heard 2600 ms"]
        async with connection.synthesizer("ab") as speech:
            audio = b"".join([piece async for piece in speech.audio()])
        assert len(audio) == 16_000 * 2 * 400 // 1000


async def test_a_recogniser_with_voice_detection_completes_by_itself(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path) as live,
        NlsClient(live.ws).recognizer(enable_voice_detection=True, max_end_silence=500) as task,
    ):
        await task.send(joined(tone(400), silence(900), tone(400)).tobytes())
        events = [event async for event in task.events()]
    assert texts(events, "RecognitionCompleted") == ["heard 400 ms"]


async def test_control_changes_the_running_task(tmp_path: Path) -> None:
    audio = joined(tone(400), silence(1500), tone(400), silence(400)).tobytes()
    async with (
        live_server(tmp_path) as live,
        NlsClient(live.ws).transcriber(max_sentence_silence=800) as task,
    ):
        await task.control(max_sentence_silence=3000)
        await task.send(audio)
        assert texts(await task.finish()) == ["heard 2300 ms"]


async def test_streams_beyond_the_capacity_are_refused_and_a_freed_slot_is_usable(
    tmp_path: Path,
) -> None:
    async with live_server(tmp_path, max_streams=2) as live:
        client = NlsClient(live.ws)
        async with client.transcriber() as first:
            async with client.transcriber():
                with pytest.raises(NlsTaskFailed) as refused:
                    async with client.transcriber():
                        pass
                assert refused.value.code == 40000005
            await until(lambda: live.workers[0].active == 1)
            async with client.transcriber() as again:
                await again.send(tone(300).tobytes())
                assert texts(await again.finish()) == ["heard 300 ms"]
            await first.send(tone(500).tobytes())
            assert texts(await first.finish()) == ["heard 500 ms"]


async def test_a_client_that_vanishes_leaves_nothing_running(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        async with NlsClient(live.ws).transcriber() as task:
            await task.send(tone(1000).tobytes())
            await until(lambda: live.workers[0].active == 1)
            await task.cancel()
        await until(lambda: live.workers[0].active == 0)
        recognition = live.workers[0].recognition
        assert isinstance(recognition, EndpointingRecognition)
        engine = recognition.engine
        assert isinstance(engine, FakeRecognizer)
        # No stream is open, and no step is due: there is nothing that could be stepped.
        await until(lambda: not engine._streams and not recognition.work())
        events = await NlsClient(live.ws).transcribe(tone(400).tobytes())
    assert texts(events) == ["heard 400 ms"]


async def test_what_the_server_has_no_engine_for_is_not_offered(tmp_path: Path) -> None:
    async with live_server(tmp_path, asr=None) as live:
        with pytest.raises(NlsTaskFailed, match="offers no recognition") as refused:
            async with NlsClient(live.ws).transcriber():
                pass
        async with httpx.AsyncClient(base_url=live.http) as http:
            ready = await http.get("/health/ready")
    assert refused.value.code == 40000003
    assert ready.status_code == 200


async def test_forty_streams_share_steps_and_keep_their_own_audio(tmp_path: Path) -> None:
    async with live_server(tmp_path, engine_settings={"FAKE_ASR_DELAY_MS": 20}) as live:
        client = NlsClient(live.ws)

        async def one(ms: int) -> list[str]:
            audio = joined(tone(ms), silence(900)).tobytes()
            return texts(await client.transcribe(audio))

        lengths = [300 + 10 * index for index in range(40)]
        results = await asyncio.gather(*(one(ms) for ms in lengths))
        recognition = live.workers[0].recognition
        assert recognition is not None
        needed = sum((ms + 900) / 200 for ms in lengths)
        assert recognition.stepper.steps < needed / 2
    assert results == [[f"heard {ms} ms"] for ms in lengths]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other tasks make true; the test's timeout limits it."""
    while not condition():  # noqa: ASYNC110 - a worker in this loop changes it, and has no event
        await asyncio.sleep(0.005)
