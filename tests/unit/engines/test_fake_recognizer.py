"""The fake recogniser is exact, however the audio is cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.pcm import Float32
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.engines.base import Feed
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.script import ScriptedSentence, ScriptedWord


def tone(duration_ms: float, amplitude: float = 0.3) -> Float32:
    time = np.arange(round(duration_ms * 16)) / 16_000
    return (amplitude * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def quiet(duration_ms: float) -> Float32:
    return np.zeros(round(duration_ms * 16), np.float32)


def audio_of(*spans_ms: int) -> Float32:
    """Quiet, tone, quiet, tone, … of these lengths."""
    return np.concatenate([(tone if i % 2 else quiet)(ms) for i, ms in enumerate(spans_ms)])


def hear(
    audio: Float32,
    options: RecognitionOptions | None = None,
    cuts: Sequence[int] = (),
    script: Sequence[ScriptedSentence] = (),
) -> list[RecognitionEvent]:
    """All events of ``audio``, cut at ``cuts`` (samples)."""
    recognizer = FakeRecognizer(FakeOptions(), script)
    stream = recognizer.open(options or RecognitionOptions())
    parts = np.split(audio, sorted(cuts))
    return [
        event
        for index, part in enumerate(parts)
        for event in recognizer.step([Feed(stream, part, last=index == len(parts) - 1)])[0]
    ]


def steps(audio: Float32) -> list[int]:
    """Cuts at every 200 ms."""
    return list(range(3_200, len(audio), 3_200))


def ended(events: Sequence[RecognitionEvent]) -> list[tuple[int, int, str]]:
    return [(e.start_ms, e.end_ms, e.text) for e in events if isinstance(e, SentenceEnded)]


def test_it_tells_how_long_the_sound_was() -> None:
    assert hear(audio_of(250, 600, 150)) == [
        SentenceBegan(start_ms=250),
        SentenceEnded(start_ms=250, end_ms=850, text="heard 600 ms"),
    ]


@given(
    spans=st.lists(st.integers(1, 120).map(lambda n: 10 * n), min_size=2, max_size=7),
    cuts=st.lists(st.integers(0, 70_000), max_size=12),
)
def test_sentences_do_not_depend_on_how_the_audio_is_cut(spans: list[int], cuts: list[int]) -> None:
    audio = audio_of(*spans)
    silence_ms = 400
    expected: list[tuple[int, int, str]] = []
    time = 0
    for index, span in enumerate(spans):
        if index % 2:
            goes_on = expected and time - expected[-1][1] < silence_ms
            start = expected.pop()[0] if goes_on else time
            expected.append((start, time + span, f"heard {time + span - start} ms"))
        time += span
    options = RecognitionOptions(max_sentence_silence_ms=silence_ms)
    events = hear(audio, options, [min(cut, len(audio)) for cut in cuts])
    assert ended(events) == expected
    # And every sentence began, changed and ended in order.
    began: int | None = None
    for event in events:
        match event:
            case SentenceBegan(start_ms=start_ms):
                assert began is None
                began = start_ms
            case SentenceChanged(text=text, end_ms=end_ms):
                assert began is not None
                assert text == f"heard {end_ms - began} ms"
            case SentenceEnded(start_ms=start_ms):
                assert began == start_ms
                began = None
    assert began is None


def test_lost_audio_shows() -> None:
    audio = audio_of(0, 1_000, 200)
    lost = np.concatenate((audio[:3_200], audio[6_400:]))
    assert ended(hear(lost)) == [(0, 800, "heard 800 ms")]


@pytest.mark.parametrize(("gap_ms", "sentences"), [(790, 1), (800, 2)])
def test_the_silence_that_ends_a_sentence_is_exact(gap_ms: int, sentences: int) -> None:
    options = RecognitionOptions(max_sentence_silence_ms=800)
    assert len(ended(hear(audio_of(0, 300, gap_ms, 300), options))) == sentences


def test_a_sentence_ends_in_the_step_that_completes_its_silence() -> None:
    recognizer = FakeRecognizer(FakeOptions())
    stream = recognizer.open(RecognitionOptions(max_sentence_silence_ms=500, partials=False))
    assert recognizer.step([Feed(stream, tone(200), False)]) == [[SentenceBegan(start_ms=0)]]
    assert recognizer.step([Feed(stream, quiet(490), False)]) == [[]]
    assert recognizer.step([Feed(stream, quiet(10), False)]) == [
        [SentenceEnded(start_ms=0, end_ms=200, text="heard 200 ms")]
    ]


def test_the_silence_can_change_while_a_sentence_is_open() -> None:
    recognizer = FakeRecognizer(FakeOptions())
    stream = recognizer.open(RecognitionOptions(max_sentence_silence_ms=6_000, partials=False))
    recognizer.step([Feed(stream, audio_of(0, 200, 400), False)])
    recognizer.configure(stream, 500)
    (events,) = recognizer.step([Feed(stream, quiet(100), False)])
    assert ended(events) == [(0, 200, "heard 200 ms")]


def test_a_long_sentence_is_cut() -> None:
    options = RecognitionOptions(max_sentence_ms=1_005, max_sentence_silence_ms=3_000)
    audio = audio_of(100, 2_500)
    expected = [
        (100, 1_100, "heard 1000 ms"),
        (1_100, 2_100, "heard 1000 ms"),
        (2_100, 2_600, "heard 500 ms"),
    ]
    assert ended(hear(audio, options)) == expected
    assert ended(hear(audio, options, steps(audio))) == expected


def test_a_sentence_that_is_quiet_when_it_gets_too_long_is_cut_too() -> None:
    options = RecognitionOptions(max_sentence_ms=1_000, max_sentence_silence_ms=3_000)
    audio = audio_of(0, 200, 1_000, 200)
    assert ended(hear(audio, options)) == [
        (0, 200, "heard 200 ms"),
        (1_200, 1_400, "heard 200 ms"),
    ]


@pytest.mark.parametrize(
    ("rest_ms", "text"), [(5, "heard 205 ms"), (0.0625 * 8, "heard 200 ms"), (9.9, "heard 210 ms")]
)
def test_the_incomplete_last_block_counts(rest_ms: float, text: str) -> None:
    audio = tone(200 + rest_ms)
    assert [sentence[2] for sentence in ended(hear(audio))] == [text]


def test_200_ms_and_the_end_is_heard_in_one_step() -> None:
    assert ended(hear(tone(200))) == [(0, 200, "heard 200 ms")]


def test_partials_come_with_every_step_of_an_open_sentence() -> None:
    audio = audio_of(100, 400, 500)
    texts = [e.text for e in hear(audio, cuts=steps(audio)) if isinstance(e, SentenceChanged)]
    assert texts == ["heard 100 ms", "heard 300 ms", "heard 400 ms", "heard 400 ms"]
    without = hear(audio, RecognitionOptions(partials=False), steps(audio))
    assert not any(isinstance(event, SentenceChanged) for event in without)


@pytest.mark.parametrize(("amplitude", "loud"), [(0.0, False), (0.006, False), (0.009, True)])
def test_what_is_loud(amplitude: float, loud: bool) -> None:
    assert bool(hear(tone(300, amplitude))) == loud


def test_words_only_when_asked_for() -> None:
    (plain,) = (e for e in hear(tone(300)) if isinstance(e, SentenceEnded))
    assert plain.words == ()
    options = RecognitionOptions(words=True)
    (event,) = (e for e in hear(tone(300), options) if isinstance(e, SentenceEnded))
    assert event.words == (Word("heard 300 ms", 0, 300),)


SCRIPT = (
    ScriptedSentence(
        text="Hello, world.",
        words=(ScriptedWord("Hello", 0, 250), ScriptedWord("world", 300, 600)),
    ),
    ScriptedSentence(
        text="你好。", words=(ScriptedWord("你", 0, 100), ScriptedWord("好", 100, 200))
    ),
)


def test_a_script_is_followed_and_begins_again() -> None:
    audio = audio_of(200, 700, 1_000, 300, 1_000, 700)
    assert [text for _, _, text in ended(hear(audio, script=SCRIPT))] == [
        "Hello, world.",
        "你好。",
        "Hello, world.",
    ]


def test_a_script_gives_the_words_that_were_heard() -> None:
    audio = audio_of(200, 700, 1_000)
    options = RecognitionOptions(words=True)
    events = hear(audio, options, steps(audio), SCRIPT)
    hello, world = Word("Hello", 200, 450), Word("world", 500, 800)
    changes = [(e.text, e.words) for e in events if isinstance(e, SentenceChanged)]
    assert changes[0] == ("Hello", (hello,))  # at 600 ms; at 400 ms there is no text yet
    assert changes[1] == ("Hello, world", (hello, world))
    (event,) = (e for e in events if isinstance(e, SentenceEnded))
    assert (event.text, event.words) == ("Hello, world.", (hello, world))
    assert (event.start_ms, event.end_ms) == (200, 900)


def test_a_step_costs_what_was_set() -> None:
    slept: list[float] = []
    recognizer = FakeRecognizer(
        FakeOptions(asr_delay_ms=100, asr_item_ms=0.5, asr_batch=4), sleep=slept.append
    )
    assert recognizer.capabilities.max_batch == 4
    streams = [recognizer.open(RecognitionOptions()) for _ in range(5)]
    recognizer.step([Feed(stream, tone(200), False) for stream in streams[:4]])
    recognizer.step([Feed(streams[4], tone(200), False)])
    assert slept == pytest.approx([0.102, 0.1005])
    with pytest.raises(RuntimeError):
        recognizer.step([Feed(stream, tone(200), False) for stream in streams])
    assert len(slept) == 2


def test_a_free_step_does_not_sleep() -> None:
    slept: list[float] = []
    recognizer = FakeRecognizer(FakeOptions(), sleep=slept.append)
    assert recognizer.capabilities.max_batch is None
    recognizer.step([Feed(recognizer.open(RecognitionOptions()), tone(200), False)])
    assert slept == []


def test_mistakes_of_the_caller_show() -> None:
    recognizer = FakeRecognizer(FakeOptions())
    stream = recognizer.open(RecognitionOptions())
    recognizer.step([Feed(stream, quiet(10), True)])
    with pytest.raises(RuntimeError):
        recognizer.step([Feed(stream, quiet(10), False)])
    with pytest.raises(RuntimeError):
        recognizer.configure(stream, 500)
    for _ in range(recognizer.capabilities.max_sessions or 0):
        recognizer.open(RecognitionOptions())
    with pytest.raises(RuntimeError):
        recognizer.open(RecognitionOptions())


def test_a_stream_keeps_no_hold_on_its_audio() -> None:
    recognizer = FakeRecognizer(FakeOptions())
    stream = recognizer.open(RecognitionOptions())
    samples = quiet(1_005)
    samples.flags.writeable = True
    recognizer.step([Feed(stream, samples, False)])
    samples[:] = 1.0  # the caller reuses its buffer
    assert recognizer.step([Feed(stream, quiet(5), True)]) == [[]]


def test_it_says_which_hotwords_it_knows() -> None:
    known = RecognitionOptions(
        hotwords=(("北京", 3.0), ("never", -2.0), ("上海", 0.5), ("nothing", 0.0)), words=True
    )
    (*_, last) = hear(audio_of(100, 600, 100), known)
    assert isinstance(last, SentenceEnded)
    assert last.text == "heard 600 ms, knowing 北京 上海"
    assert [word.text for word in last.words] == [last.text]
    unwanted = RecognitionOptions(hotwords=(("never", -2.0),))
    assert ended(hear(audio_of(0, 100), unwanted)) == [(0, 100, "heard 100 ms")]
