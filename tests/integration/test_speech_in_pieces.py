"""A text in pieces sounds like the same text sent whole; on real workers of the fake engine."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest

from app.core.errors import (
    AccessDenied,
    EngineFailed,
    InvalidSsml,
    InvalidText,
    Overloaded,
    SpeechError,
    UnknownVoice,
)
from app.core.speech import (
    SpeechBegan,
    SpeechEnded,
    SpeechEvent,
    SynthesisRequest,
    SyntheticMark,
    Utterance,
)
from app.core.usage import Used
from app.engines.base import Piece
from app.engines.fake.options import FakeOptions
from app.engines.fake.synthesizer import FakeSynthesizer
from app.serving.pool import Pool
from tests.support.gated import Gate, GatedSynthesizer
from tests.support.speech import NEVER_S, Speech, heard, sorted_out, speech

TEXT = "你好，世界。圆周率是3.14，对吗？！Yes. “真的……” 他说：ok\n结束了"
SENTENCES = ["你好，世界。", "圆周率是3.14，对吗？！", "Yes.", "“真的……”", "他说：ok", "结束了"]


def wanted(text: str = "", **options: Any) -> SynthesisRequest:
    return SynthesisRequest(**{"text": text, "voice": "中文女", "task_id": "id", **options})


async def said(live: Speech, request: SynthesisRequest, pieces: Sequence[str]) -> bytes:
    async with live.service.open(request) as task:
        for piece in pieces:
            task.say(piece)
            await asyncio.sleep(0)
        task.finish()
        audio, events = await heard(task)
    began = [event for event in events if isinstance(event, SpeechBegan)]
    assert [event.text for event in began] == SENTENCES
    return audio


async def told(live: Speech, request: SynthesisRequest) -> tuple[bytes, list[SpeechEvent]]:
    async with aclosing(live.service.tell(request)) as parts:
        return sorted_out([part async for part in parts])


@pytest.mark.parametrize("format", ["pcm", "wav", "mp3", "flac"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("speed", [1.0, 1.5])
async def test_one_character_at_a_time_gives_the_same_bytes(
    tmp_path: Path, format: str, rate: int, speed: float
) -> None:
    manner: dict[str, Any] = {"format": format, "sample_rate": rate, "speed": speed}
    async with speech(tmp_path, settle_s=NEVER_S) as live:
        whole, events = await told(live, wanted(TEXT, **manner))
        assert await said(live, wanted(**manner), [*TEXT]) == whole
    assert len(events) == 2 * len(SENTENCES)


@pytest.mark.parametrize("seed", range(5))
async def test_any_pieces_give_the_same_bytes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with speech(tmp_path, settle_s=NEVER_S) as live:
        (whole, _) = await told(live, wanted(TEXT, format="wav"))
        cuts = sorted(chance.choices(range(len(TEXT) + 1), k=chance.randrange(12)))
        edges = [0, *cuts, len(TEXT)]
        pieces = [TEXT[first:last] for first, last in pairwise(edges)]
        assert await said(live, wanted(format="wav"), pieces) == whole
        assert whole.count(b"RIFF") == 1


async def test_the_first_audio_comes_before_the_second_sentence_is_complete(
    tmp_path: Path,
) -> None:
    async with (
        speech(tmp_path, settle_s=NEVER_S) as live,
        live.service.open(wanted()) as task,
        aclosing(task.events()) as events,
    ):
        task.say("你好。今")
        assert isinstance(await anext(events), SpeechBegan)
        assert isinstance(await anext(events), bytes)
        task.finish()
        rest = [event async for event in events]
        assert isinstance(rest[-1], SpeechEnded)


async def test_the_first_audio_comes_before_anything_of_the_second_sentence(
    tmp_path: Path,
) -> None:
    async with (
        speech(tmp_path, settle_s=0.02) as live,
        live.service.open(wanted()) as task,
        aclosing(task.events()) as events,
    ):
        task.say("你好。")
        assert await anext(events) == SpeechBegan(1, 0, "你好。")
        assert isinstance(await anext(events), bytes)


async def test_what_is_flushed_is_spoken_at_once(tmp_path: Path) -> None:
    async with (
        speech(tmp_path, settle_s=NEVER_S) as live,
        live.service.open(wanted()) as task,
        aclosing(task.events()) as events,
    ):
        task.say("你好")
        task.flush()
        assert await anext(events) == SpeechBegan(1, 0, "你好")
        task.say("吗")
        task.finish()
        task.say("late")
        rest = [event async for event in events if not isinstance(event, bytes)]
        assert [event.text for event in rest if isinstance(event, SpeechBegan)] == ["吗"]
        assert task.characters == 3


@pytest.mark.parametrize("text", ["", "……", " \n "])
@pytest.mark.parametrize("format", ["pcm", "wav", "mp3"])
async def test_nothing_to_say_is_nothing_at_all(tmp_path: Path, text: str, format: str) -> None:
    async with speech(tmp_path) as live, live.service.open(wanted(format=format)) as task:
        task.say(text)
        task.finish()
        assert await heard(task) == (b"", [])
    with pytest.raises(InvalidText):
        live.service.check(wanted(text))


# Events


async def test_times_are_counted_samples(tmp_path: Path) -> None:
    request = wanted(TEXT, sample_rate=8_000, speed=1.25, subtitles=True)
    async with speech(tmp_path) as live:
        audio, events = await told(live, request)
    at_ms = 0
    for began, ended in zip(events[::2], events[1::2], strict=True):
        assert isinstance(began, SpeechBegan) and isinstance(ended, SpeechEnded)
        assert TEXT[began.text_index :].startswith(began.text)
        assert ended.begin_ms == at_ms
        assert abs(ended.end_ms - at_ms - 200 * len(began.text) / 1.25) <= 1
        at_ms = ended.end_ms
        # The fake engine marks every character.
        assert "".join(each.text for each in ended.subtitles) == began.text
        assert [each.begin_index for each in ended.subtitles] == [*range(len(began.text))]
        assert ended.subtitles[0].begin_ms == ended.begin_ms
        assert ended.subtitles[-1].end_ms == ended.end_ms
        for each, following in pairwise(ended.subtitles):
            assert each.begin_ms < each.end_ms == following.begin_ms
    assert at_ms == len(audio) / 2 / 8


async def test_no_subtitles_unless_they_are_wanted(tmp_path: Path) -> None:
    async with speech(tmp_path) as live:
        _, events = await told(live, wanted("你好"))
    assert events == [SpeechBegan(1, 0, "你好"), SpeechEnded(1, 0, 400)]


async def test_subtitles_outlive_a_worker(tmp_path: Path) -> None:
    text = "一二三四五六七八九十一二三四五六七八九十。" * 2
    async with speech(tmp_path, workers=2, delay_ms=2) as live:
        undisturbed = await told(live, wanted(text, subtitles=True))
        parts = list[bytes | SpeechEvent]()
        async with aclosing(live.service.tell(wanted(text, subtitles=True))) as events:
            async for part in events:
                parts.append(part)
                if len(parts) % 4 == 0 and len(parts) < 20:
                    live.cut()
        assert sorted_out(parts) == undisturbed
        await live.idle()


async def test_an_engine_that_reads_another_text_has_no_marks(tmp_path: Path) -> None:
    class Reading(FakeSynthesizer):
        def __init__(self) -> None:
            super().__init__(FakeOptions())
            self._capabilities = msgspec.structs.replace(self._capabilities, normalizes_text=False)

    async with speech(tmp_path, Reading()) as live:
        _, events = await told(live, wanted("有7个。没有。", subtitles=True))
    (_, first, _, second) = events
    assert isinstance(first, SpeechEnded) and isinstance(second, SpeechEnded)
    assert first.subtitles == ()  # it was read as 有七个
    assert [each.text for each in second.subtitles] == ["没", "有", "。"]


# Leaving


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 25, 40])
@pytest.mark.parametrize("format", ["pcm", "mp3"])
async def test_a_client_that_leaves_at_any_time_leaves_nothing(
    tmp_path: Path, steps: int, format: str
) -> None:
    async with speech(tmp_path, settle_s=NEVER_S) as live:

        async def session() -> None:
            async with live.service.open(wanted(format=format, speed=1.1)) as task:
                task.say("一二三四五六七八九十。" * 3)
                async for _ in task.events():
                    await asyncio.sleep(0)

        tasks = asyncio.all_tasks()
        running = asyncio.create_task(session())
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert asyncio.all_tasks() - tasks == set()
        await live.idle()


async def test_one_that_leaves_between_two_events_leaves_nothing(tmp_path: Path) -> None:
    gate = Gate()
    async with speech(tmp_path, GatedSynthesizer(gate, free_pieces=1)) as live:
        try:
            with pytest.raises(ZeroDivisionError):
                async with live.service.open(wanted()) as task:
                    task.say("一二三四五六。七八九十。")
                    async for event in task.events():
                        if isinstance(event, bytes):
                            raise ZeroDivisionError
        finally:
            gate.open()
        await live.idle()


async def test_a_task_that_nobody_reads_leaves_nothing(tmp_path: Path) -> None:
    async with speech(tmp_path, settle_s=0.0) as live:
        tasks = asyncio.all_tasks()
        async with live.service.open(wanted()) as task:
            task.say("你好。")
        assert asyncio.all_tasks() == tasks
        await live.idle()


# Refusals and failures


class Failing(FakeSynthesizer):
    def __init__(self) -> None:
        super().__init__(FakeOptions())

    def _pieces(self, text: str) -> Iterator[Piece]:
        for piece in super()._pieces(text):
            yield piece
            if "bad" in text:
                raise RuntimeError


async def test_a_sentence_that_fails_ends_the_task(tmp_path: Path) -> None:
    async with speech(tmp_path, Failing(), settle_s=NEVER_S) as live:
        with pytest.raises(EngineFailed):
            async with live.service.open(wanted(appkey="key")) as task:
                task.say("good one. bad one. good one. ")
                await heard(task)
        await live.idle()
    ((key, used),) = live.used
    assert key == "key"
    assert (used.kind, used.failed, used.characters) == ("tts", True, 29)
    assert used.audio_ms >= 1_800  # the first sentence


async def test_a_refused_text_is_refused_at_its_first_sentence_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> object:
        raise Overloaded

    async with speech(tmp_path, settle_s=NEVER_S) as live:
        monkeypatch.setattr(Pool, "open_synthesis", full)
        with pytest.raises(Overloaded):
            async with live.service.open(wanted()) as task:
                task.say("你好")
                task.flush()
                await heard(task)
    assert live.used == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"voice": "../x"}, UnknownVoice),
        ({"format": "xyz"}, SpeechError),
        ({"sample_rate": 12_345}, SpeechError),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_said(
    tmp_path: Path, options: dict[str, Any], error: type[SpeechError]
) -> None:
    async with speech(tmp_path) as live:
        with pytest.raises(error):
            async with live.service.open(wanted(**options)):
                pass
    assert live.used == []


# The account


async def test_each_task_is_counted_once_and_exactly(tmp_path: Path) -> None:
    async with speech(tmp_path, settle_s=NEVER_S) as live:
        service = live.service
        audio = await service.whole(wanted("你好。", appkey="a"))
        await told(live, wanted("你好。", appkey="b"))
        async with aclosing(service.speak(wanted("你好。", appkey="c"))) as pieces:
            async for _ in pieces:
                pass
        async with service.open(wanted(appkey="d")) as task:
            task.say(" 你好。 ")
            task.finish()
            await heard(task)
            assert task.characters == 5
        async with service.open(wanted(appkey="e")) as task:
            task.finish()
            await heard(task)
    once = Used(kind="tts", audio_ms=600, characters=3)
    assert len(audio) == 600 * 32
    assert live.used == [
        ("a", once), ("b", once), ("c", once),
        ("d", Used(kind="tts", audio_ms=600, characters=5)), ("e", Used(kind="tts")),
    ]  # fmt: skip


async def test_one_that_leaves_in_the_middle_is_counted_as_far_as_it_was_heard(
    tmp_path: Path,
) -> None:
    async with (
        speech(tmp_path) as live,
        aclosing(live.service.speak(wanted("一二三四五六七八九十"))) as pieces,
    ):
        await anext(pieces)
        await pieces.aclose()
    ((_, used),) = live.used
    assert used.characters == 10 and not used.failed
    assert 0 < used.audio_ms < 2_000


# SSML


async def test_ssml_says_who_how_and_when(tmp_path: Path) -> None:
    text = (
        '<speak voice="英文女" rate="500" encodeType="WAV" sampleRate="8000">'
        '<break time="1s"/>abcd<break time="250ms"/>'
        '<prosody rate="50%">ef</prosody> <sub alias="">nothing</sub></speak>'
    )
    async with speech(tmp_path) as live:
        audio, events = await told(live, wanted(text))
    assert audio.startswith(b"RIFF")
    samples = np.frombuffer(audio[44:], np.int16)
    assert len(samples) == 8 * (1_000 + 400 + 250 + 400)
    assert not samples[:8_000].any() and not samples[8 * 1_400 : 8 * 1_650].any()
    assert events == [
        SpeechBegan(1, 0, "abcd"), SpeechEnded(1, 1_000, 1_400),
        SpeechBegan(2, 4, "ef"), SpeechEnded(2, 1_650, 2_050),
    ]  # fmt: skip
    ((_, used),) = live.used
    assert used.audio_ms == 2_050
    assert used.characters == len("abcdef ")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<speak>a", InvalidSsml),
        ("<speak>&lol;</speak>", InvalidSsml),
        ("<speak>" + "<p>" * 70 + "a" + "</p>" * 70 + "</speak>", InvalidSsml),
        ("<speak>" + "<w>a</w>" * 1_000 + "</p></speak>", InvalidSsml),  # read in a thread
        ('<speak voice="nobody">a</speak>', UnknownVoice),
        ('<speak voice="../x">a</speak>', UnknownVoice),
        ('<speak><sub alias="">a</sub></speak>', InvalidText),
        ('<speak encodeType="xyz">a</speak>', SpeechError),
    ],
)
async def test_ssml_that_cannot_be_spoken(
    tmp_path: Path, text: str, error: type[SpeechError]
) -> None:
    async with speech(tmp_path) as live:
        with pytest.raises(error):
            await live.service.whole(wanted(text))
        await live.idle()


async def test_ssml_may_not_name_a_voice_that_the_request_may_not(tmp_path: Path) -> None:
    allowed: dict[str, Any] = {"allowed_voices": frozenset({"中文女", "v"})}
    async with speech(tmp_path) as live:
        with pytest.raises(AccessDenied):
            await live.service.whole(wanted('<speak voice="W">a</speak>', **allowed))
        assert await live.service.whole(wanted('<speak voice="V">a</speak>', **allowed))


async def test_ssml_in_pieces_is_read_when_it_is_whole(tmp_path: Path) -> None:
    text = '<speak>你好<break time="100ms"/>世界</speak>'
    async with speech(tmp_path, settle_s=0.0) as live:
        whole, _ = await told(live, wanted(text))
        async with live.service.open(wanted(ssml=True)) as task:
            for character in text:
                task.say(character)
                await asyncio.sleep(0)
            task.flush()
            task.say("你好")
            task.flush()
            task.finish()
            audio, events = await heard(task)
            assert task.characters == len("你好世界" + "你好")
    assert audio.startswith(whole)
    assert [each.text for each in events if isinstance(each, SpeechBegan)] == [
        "你好",
        "世界",
        "你好",
    ]
    ((*_, (_, used))) = live.used
    assert used.audio_ms == 900 + 400


async def test_what_is_no_ssml_is_spoken_as_it_is(tmp_path: Path) -> None:
    async with speech(tmp_path) as live:
        _, events = await told(live, wanted("a <b> c"))
        _, more = await told(live, wanted("<speak>a</speak>", ssml=False))
    assert isinstance(events[0], SpeechBegan) and events[0].text == "a <b> c"
    assert isinstance(more[0], SpeechBegan) and more[0].text == "<speak>a</speak>"


async def test_the_synthetic_mark_is_in_the_file(tmp_path: Path) -> None:
    mark = SyntheticMark(propagator="p" * 1_000, propagate_id="7")
    async with speech(tmp_path) as live:
        whole = await live.service.whole(wanted("你好", format="mp3", mark=mark))
        plain = await live.service.whole(wanted("你好", format="mp3"))
        streamed, _ = await told(live, wanted("你好", format="mp3", mark=mark))
    assert whole.endswith(plain) and streamed.startswith(b"ID3")
    with av.open(io.BytesIO(whole), "r", format="mp3") as container:
        assert msgspec.json.decode(container.metadata["AIGC"]) == {
            "Label": "1",
            "ContentProducer": "FunSpeech",
            "ProduceID": "id",
            "ContentPropagator": "p" * 256,
            "PropagateID": "7",
        }


async def test_the_prompt_reaches_the_engine(tmp_path: Path) -> None:
    class Noting(FakeSynthesizer):
        def __init__(self) -> None:
            super().__init__(FakeOptions())
            self.prompts: list[str] = []

        def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
            self.prompts.append(utterance.prompt)
            return super().synthesize(utterance)

    engine = Noting()
    async with speech(tmp_path, engine) as live:
        await live.service.whole(wanted("a. b.", prompt="cheerfully"))
    assert engine.prompts == ["cheerfully"] * 2
