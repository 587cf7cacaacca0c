"""What every recogniser promises in ``app/engines/base.py``, whichever engine it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from app.audio.pcm import Float32
from app.core.speech import (
    RecognitionEvent,
    RecognitionOptions,
    SentenceBegan,
    SentenceChanged,
    SentenceEnded,
    Word,
)
from app.engines.base import EndpointingRecognizer, Feed, Hypothesis, SentenceRecognizer

Streams = SentenceRecognizer | EndpointingRecognizer

OPTIONS = RecognitionOptions(words=True)

Output = list[Hypothesis] | list[RecognitionEvent]
"""All that one stream gave: each step's hypothesis, or the events."""


def silence(recognizer: Streams, duration_ms: int) -> Float32:
    return np.zeros(recognizer.capabilities.sample_rate * duration_ms // 1000, np.float32)


def feeds(recognizer: Streams, stream: object, audio: Float32) -> list[Feed]:
    """``audio`` in steps, the last one marked."""
    capabilities = recognizer.capabilities
    step = capabilities.sample_rate * capabilities.step_ms // 1000
    starts = range(0, max(len(audio), 1), step)
    return [Feed(stream, audio[s : s + step], last=s + step >= len(audio)) for s in starts]


def run(recognizer: Streams, *audios: Float32) -> list[Output]:
    """One stream per audio, all fed side by side; what each one gave."""
    plans = [feeds(recognizer, recognizer.open(OPTIONS), audio) for audio in audios]
    limit = recognizer.capabilities.max_batch or len(plans)
    outputs: list[list[object]] = [[] for _ in plans]
    for step in range(max(map(len, plans))):
        active = [i for i, plan in enumerate(plans) if step < len(plan)]
        for first in range(0, len(active), limit):
            indices = active[first : first + limit]
            results = recognizer.step([plans[i][step] for i in indices])
            assert len(results) == len(indices)
            for index, result in zip(indices, results, strict=True):
                outputs[index] += result if isinstance(result, Sequence) else [result]
    return [cast(Output, output) for output in outputs]


def text_of(output: Output) -> str:
    """The final text of a stream."""
    last = output[-1] if output else None
    if isinstance(last, Hypothesis):
        return last.text
    return "".join(event.text for event in output if isinstance(event, SentenceEnded))


def words_of(output: Output) -> list[Word]:
    """The final words of a stream."""
    last = output[-1] if output else None
    if isinstance(last, Hypothesis):
        return list(last.words)
    return [word for event in output if isinstance(event, SentenceEnded) for word in event.words]


def test_capabilities_are_constant_and_sane(recognizer: Streams) -> None:
    capabilities = recognizer.capabilities
    assert capabilities == recognizer.capabilities
    assert capabilities.sample_rate in (8_000, 16_000)
    assert capabilities.languages
    assert 20 <= capabilities.step_ms <= 1_000
    assert capabilities.sample_rate * capabilities.step_ms % 1000 == 0
    assert capabilities.max_sessions is None or capabilities.max_sessions >= 1
    assert capabilities.max_sentences >= 1
    assert capabilities.max_batch is None or capabilities.max_batch >= 1
    assert capabilities.own_endpointing == hasattr(recognizer, "configure")


def test_speech_gives_text(recognizer: Streams, clips: list[Float32]) -> None:
    for clip in clips[:3]:
        (output,) = run(recognizer, clip)
        assert text_of(output)


def test_words_are_in_order_and_inside_the_audio(recognizer: Streams, clips: list[Float32]) -> None:
    if not recognizer.capabilities.word_times:
        pytest.skip("no word times")
    for clip in clips[:3]:
        (output,) = run(recognizer, clip)
        words = words_of(output)
        assert words
        duration_ms = len(clip) * 1000 // recognizer.capabilities.sample_rate
        times = [time for word in words for time in (word.start_ms, word.end_ms)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= duration_ms
        assert all(word.text.strip() for word in words)
        assert not any(sign in word.text for word in words for sign in "<>[]+()")


def test_partials_come_before_the_end(recognizer: Streams, clips: list[Float32]) -> None:
    if not recognizer.capabilities.partials:
        pytest.skip("no partials")
    (output,) = run(recognizer, clips[0])
    before_the_end = output[:-1]
    assert any(
        item.text for item in before_the_end if isinstance(item, Hypothesis | SentenceChanged)
    )


def test_events_are_in_order(recognizer: Streams, clips: list[Float32]) -> None:
    if not recognizer.capabilities.own_endpointing:
        pytest.skip("its streams are single sentences")
    pause = silence(recognizer, 1_500)
    audio = np.concatenate((pause, clips[0], pause, clips[1], pause))
    (output,) = run(recognizer, audio)
    check_events(cast("list[RecognitionEvent]", output))
    assert sum(isinstance(event, SentenceEnded) for event in output) == 2


def check_events(events: Sequence[RecognitionEvent]) -> None:
    """``(Began Changed* Ended)*``, with ascending times."""
    began: SentenceBegan | None = None
    time_ms = 0
    for event in events:
        if isinstance(event, SentenceBegan):
            assert began is None
            began = event
            assert event.start_ms >= time_ms
            time_ms = event.start_ms
            continue
        assert began is not None
        assert event.end_ms >= time_ms
        time_ms = event.end_ms
        if isinstance(event, SentenceEnded):
            assert event.start_ms == began.start_ms
            began = None
    assert began is None


def test_a_last_feed_frees_the_slot(recognizer: Streams, clips: list[Float32]) -> None:
    for _ in range(2):
        streams = [recognizer.open(OPTIONS) for _ in range(recognizer.capabilities.max_sentences)]
        limit = recognizer.capabilities.max_batch or len(streams)
        for first in range(0, len(streams), limit):
            found = recognizer.step(
                [Feed(stream, clips[3][:160], True) for stream in streams[first : first + limit]]
            )
            assert not any(isinstance(each, Exception) for each in found)
        for stream in streams:
            recognizer.close(stream)  # does nothing: they are closed


def test_close_frees_the_slot_and_may_be_repeated(
    recognizer: Streams, clips: list[Float32]
) -> None:
    for _ in range(2):
        streams = [recognizer.open(OPTIONS) for _ in range(recognizer.capabilities.max_sentences)]
        recognizer.step([feeds(recognizer, streams[0], clips[0])[0]])
        for stream in streams * 2:
            recognizer.close(stream)
    assert text_of(run(recognizer, clips[0])[0])


def test_a_stream_is_the_same_alone_and_among_others(
    recognizer: Streams, clips: list[Float32]
) -> None:
    count = min(len(clips), recognizer.capabilities.max_sentences)
    alone = [run(recognizer, clip)[0] for clip in clips[:count]]
    together = run(recognizer, *clips[:count])
    assert [text_of(output) for output in together] == [text_of(output) for output in alone]
    assert [words_of(output) for output in together] == [words_of(output) for output in alone]


def test_a_stream_leaves_nothing_for_the_next(recognizer: Streams, clips: list[Float32]) -> None:
    # Every slot is used by other speech, loud and soft, before the clip comes round again.
    fresh = run(recognizer, clips[0])[0]
    for _ in range(2):
        for gain in (0.05, 1.0):
            others = [clip * np.float32(gain) for clip in clips]
            run(recognizer, *others[: recognizer.capabilities.max_sentences])
        assert run(recognizer, clips[0])[0] == fresh


def test_a_stream_given_up_leaves_nothing_for_the_next(
    recognizer: Streams, clips: list[Float32]
) -> None:
    fresh = run(recognizer, clips[0])[0]
    stream = recognizer.open(OPTIONS)
    for feed in feeds(recognizer, stream, clips[1])[:-1]:
        recognizer.step([feed])
    recognizer.close(stream)
    assert run(recognizer, clips[0])[0] == fresh


@pytest.mark.parametrize("samples", [0, 1, 79, 160, 1_601])
def test_a_stream_may_be_empty_or_tiny(
    recognizer: Streams, samples: int, knows_silence: bool
) -> None:
    (output,) = run(recognizer, np.zeros(samples, np.float32))
    assert not any(isinstance(each, Exception) for each in output)
    assert text_of(output) == "" or not knows_silence


def test_silence_has_no_text(recognizer: Streams, knows_silence: bool) -> None:
    if not knows_silence:
        pytest.skip("random weights hear something in silence")
    (output,) = run(recognizer, silence(recognizer, 3_000))
    assert text_of(output) == ""
    assert not words_of(output)
    if recognizer.capabilities.own_endpointing:
        assert output == []


def test_the_silence_of_a_running_stream_can_be_changed(
    recognizer: Streams, clips: list[Float32]
) -> None:
    if not recognizer.capabilities.own_endpointing:
        pytest.skip("the service ends its sentences")
    endpointing = cast(EndpointingRecognizer, recognizer)
    audio = np.concatenate((clips[0], silence(recognizer, 1_000), clips[1]))
    counts = []
    for silence_ms in (800, 3_000):
        stream = endpointing.open(RecognitionOptions(max_sentence_silence_ms=800))
        endpointing.configure(stream, silence_ms)
        events = [
            event
            for feed in feeds(recognizer, stream, audio)
            for event in cast(Sequence[RecognitionEvent], endpointing.step([feed])[0])
        ]
        counts.append(sum(isinstance(event, SentenceEnded) for event in events))
    assert counts == [2, 1]
