"""What the parts of a recogniser promise in ``app/engines/base.py``, on engines that have all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from app.audio.pcm import Float32
from app.audio.vad import SileroVad
from app.core.speech import RecognitionOptions
from app.engines.base import (
    Hypothesis,
    OfflineRecognizer,
    Punctuator,
    RecognizerParts,
    Segment,
    VoiceDetector,
)
from tests.contract.conftest import TONES, Loaded
from tests.support.sherpa.hearing import padded
from tests.support.sherpa.tones import spoken

TEXTS = ("今天天气怎么样我们去公园吧", "", "hello world this is a test", "一二三四五六七八九十" * 6)
MARKS = set("，。？！、,.?! ")


@pytest.fixture
def clips(in_parts: Loaded, sentences_at: Mapping[int, list[Float32]]) -> list[Float32]:
    if in_parts.hears_tones:
        return [padded(spoken(text)) for text in TONES]
    return sentences_at[16_000]


@pytest.fixture(scope="session")
def offline(parts: RecognizerParts) -> OfflineRecognizer:
    assert parts.offline is not None
    return parts.offline


@pytest.fixture(params=[16_000, 8_000])
def options(request: pytest.FixtureRequest) -> RecognitionOptions:
    return RecognitionOptions(words=True, source_rate=request.param)


@pytest.fixture(scope="session", params=["final", "interim"])
def punctuator(parts: RecognizerParts, request: pytest.FixtureRequest) -> Punctuator:
    found = parts.punctuator if request.param == "final" else parts.partial_punctuator
    assert found is not None
    return found


@pytest.fixture(scope="session")
def detectors(parts: RecognizerParts) -> list[VoiceDetector]:
    """The server's, and that of the engine if it has one."""
    return [SileroVad(), *filter(None, [parts.detector])]


def heard(
    offline: OfflineRecognizer, clips: Sequence[Float32], options: RecognitionOptions
) -> list[Hypothesis]:
    found = offline.recognize([Segment(clip, options) for clip in clips])
    assert len(found) == len(clips)
    return [each for each in found if isinstance(each, Hypothesis)]


def test_the_whole_has_the_abilities_of_its_parts(parts: RecognizerParts) -> None:
    whole = parts.capabilities
    assert parts.streaming is not None
    assert parts.offline is not None
    assert whole.partials
    assert not whole.own_endpointing
    assert whole.step_ms == parts.streaming.capabilities.step_ms
    assert whole.sample_rate == parts.offline.capabilities.sample_rate
    assert set(whole.languages) >= set(parts.offline.capabilities.languages)
    assert whole.notice


def test_a_sentence_is_the_same_alone_and_among_others(
    offline: OfflineRecognizer, clips: list[Float32], options: RecognitionOptions
) -> None:
    together = heard(offline, clips, options)
    assert together == [heard(offline, [clip], options)[0] for clip in clips]
    assert any(each.text for each in together)


def test_known_speech_is_heard(
    in_parts: Loaded, offline: OfflineRecognizer, clips: list[Float32]
) -> None:
    if in_parts.hears_tones:  # random weights hear what they like
        found = heard(offline, clips, RecognitionOptions())
        assert [each.text for each in found] == list(TONES)


def test_audio_of_any_source_may_be_in_a_batch(
    offline: OfflineRecognizer, clips: list[Float32]
) -> None:
    mixed = [
        Segment(clip, RecognitionOptions(source_rate=rate))
        for clip in clips
        for rate in (8_000, 16_000, 48_000)
    ]
    found = offline.recognize(mixed)
    assert list(found) == [offline.recognize([segment])[0] for segment in mixed]
    assert found[1::3] == found[2::3]


def test_words_are_in_order_and_inside_the_sentence(
    offline: OfflineRecognizer, clips: list[Float32], options: RecognitionOptions
) -> None:
    for clip, found in zip(clips, heard(offline, clips, options), strict=True):
        times = [time for word in found.words for time in (word.start_ms, word.end_ms)]
        assert times == sorted(times)
        assert all(0 <= time <= len(clip) // 16 for time in times)


def test_a_damaged_sentence_fails_alone(
    offline: OfflineRecognizer, clips: list[Float32], options: RecognitionOptions
) -> None:
    damaged = clips[0].copy()
    damaged[len(damaged) // 2] = np.nan
    found = offline.recognize([Segment(clip, options) for clip in (clips[1], damaged, clips[2])])
    assert [isinstance(each, Exception) for each in found] == [False, True, False]
    assert [found[0], found[2]] == heard(offline, clips[1:3], options)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 1_601])
def test_a_sentence_may_be_tiny(
    offline: OfflineRecognizer, samples: int, options: RecognitionOptions
) -> None:
    assert len(heard(offline, [np.zeros(samples, np.float32)], options)) == 1


def test_punctuation_only_adds_marks(punctuator: Punctuator) -> None:
    for text, written in zip(TEXTS, punctuator.punctuate(TEXTS), strict=True):
        assert bare(written) == bare(text)
        assert bool(written) == bool(text)


def bare(text: str) -> str:
    return "".join(char for char in text if char not in MARKS).lower()


def test_a_text_is_the_same_alone_and_among_others(punctuator: Punctuator) -> None:
    assert list(punctuator.punctuate(TEXTS)) == [punctuator.punctuate([text])[0] for text in TEXTS]


def test_a_stream_has_the_same_probabilities_alone_and_among_others(
    detectors: list[VoiceDetector], clips: list[Float32]
) -> None:
    for detector in detectors:
        windows = min(len(clip) for clip in clips) // detector.window_samples
        cut = [clip[: windows * detector.window_samples].reshape(windows, -1) for clip in clips]
        together = follow(detector, np.stack(cut))
        assert ((together >= 0) & (together <= 1)).all()
        for clip, found in zip(cut, together.T, strict=True):
            np.testing.assert_allclose(follow(detector, clip[None])[:, 0], found, atol=1e-4)


def follow(detector: VoiceDetector, streams: Float32) -> Float32:
    """Probabilities, shape (windows, streams), of streams of shape (streams, windows, samples)."""
    states = [detector.new_state() for _ in streams]
    return np.stack([detector.probabilities(states, now) for now in streams.transpose(1, 0, 2)])
