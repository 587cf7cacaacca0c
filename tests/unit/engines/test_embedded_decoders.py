"""The decoder pool and the sentence on top of it, with a decoder that only keeps a record."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest

from app.core.speech import RecognitionOptions, Word
from app.engines.base import Feed, Hypothesis

pytest.importorskip("pocketsphinx")

from app.engines.embedded import decoders
from app.engines.embedded.decoders import DecoderPool
from app.engines.embedded.recognizer import PocketsphinxRecognizer


@dataclass
class Text:
    hypstr: str


@dataclass
class Segment:
    word: str
    start_frame: int
    end_frame: int


class Recorder:
    """A decoder that says what it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.text: str | None = "turn on"
        self.final: str | None = "turn on"
        self.segments = [
            Segment("<s>", 0, 4),
            Segment("turn(2)", 5, 9),
            Segment("[NOISE]", 10, 11),
            Segment("++UM++", 12, 13),
            Segment("on", 14, 40),
            Segment("</s>", 41, 50),
        ]

    def reinit_feat(self) -> None:
        self.calls.append("reset")

    def start_utt(self) -> None:
        self.calls.append("start")

    def process_raw(self, data: bytes) -> None:
        assert data
        self.calls.append(f"audio {len(data) // 2}")

    def end_utt(self) -> None:
        self.calls.append("end")
        self.text = self.final

    def hyp(self) -> Text | None:
        return None if self.text is None else Text(self.text)

    def seg(self) -> Iterable[Segment] | None:
        return None if self.text is None else self.segments


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The one decoder of the recogniser under test; the others are never built."""
    decoder = Recorder()
    pool = DecoderPool(1, lambda doing: None, lambda: decoder)
    monkeypatch.setattr("app.engines.embedded.recognizer.DecoderPool", lambda size, progress: pool)
    return decoder


def make() -> PocketsphinxRecognizer:
    return PocketsphinxRecognizer(lambda doing: None)


SECOND = np.zeros(4_800, np.float32)  # 300 ms


def test_a_sentence_resets_its_decoder_and_ends_with_silence(recorder: Recorder) -> None:
    recognizer = make()
    stream = recognizer.open(RecognitionOptions())
    recognizer.step([Feed(stream, SECOND, False)])
    (final,) = recognizer.step([Feed(stream, SECOND[:0], True)])
    assert recorder.calls == ["reset", "start", "audio 4800", "audio 3200", "end"]
    assert final == Hypothesis("turn on")


def test_words_are_cleaned_and_end_inside_the_audio(recorder: Recorder) -> None:
    recognizer = make()
    stream = recognizer.open(RecognitionOptions(words=True))
    (final,) = recognizer.step([Feed(stream, SECOND, True)])
    assert isinstance(final, Hypothesis)
    assert final.words == (Word("turn", 50, 100), Word("on", 140, 300))
    assert final.confidence is None


def test_the_last_partial_stands_where_there_is_no_final_text(recorder: Recorder) -> None:
    recorder.final = None
    recognizer = make()
    stream = recognizer.open(RecognitionOptions(words=True))
    (final,) = recognizer.step([Feed(stream, SECOND, True)])
    assert isinstance(final, Hypothesis)
    assert final.text == "turn on"
    assert [word.text for word in final.words] == ["turn", "on"]


def test_closing_ends_the_utterance_once(recorder: Recorder) -> None:
    recognizer = make()
    stream = recognizer.open(RecognitionOptions())
    recognizer.close(stream)
    recognizer.close(stream)
    assert recorder.calls == ["reset", "start", "end"]
    (failure,) = recognizer.step([Feed(stream, SECOND, False)])
    assert isinstance(failure, RuntimeError)
    recognizer.close(recognizer.open(RecognitionOptions()))
    assert recorder.calls == ["reset", "start", "end"] * 2


def test_the_pool_builds_one_at_first_and_the_others_when_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoders, "_QUIET_S", 60.0)  # so only need makes it build
    built: list[Recorder] = []

    def build() -> Recorder:
        built.append(Recorder())
        return built[-1]

    steps: list[str] = []
    pool = DecoderPool(3, steps.append, build)
    assert len(built) == 1
    assert len(steps) == 1
    lent = [pool.lend() for _ in range(3)]
    assert len(built) == 3
    assert {id(decoder) for decoder in lent} == {id(decoder) for decoder in built}
    with pytest.raises(RuntimeError, match="in use"):
        pool.lend()
    pool.give_back(lent[0])
    assert pool.lend() is lent[0]


def test_the_pool_builds_the_others_when_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_QUIET_S", 0.001)
    all_built = threading.Event()
    built: list[Recorder] = []

    def build() -> Recorder:
        built.append(Recorder())
        if len(built) == 3:
            all_built.set()
        return built[-1]

    DecoderPool(3, lambda doing: None, build)
    assert all_built.wait(30)


def test_a_decoder_that_cannot_be_built_is_an_error_not_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoders, "_QUIET_S", 60.0)
    answers: list[Callable[[], Recorder]] = [Recorder, _no_memory, _no_memory, _no_memory]
    pool = DecoderPool(2, lambda doing: None, lambda: answers.pop(0)())
    first = pool.lend()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="could not be built") as failure:
            pool.lend()
        assert isinstance(failure.value.__cause__, MemoryError)
    pool.give_back(first)
    assert pool.lend() is first


def _no_memory() -> Recorder:
    raise MemoryError


def test_a_broken_stream_fails_alone(recorder: Recorder) -> None:
    recognizer = make()
    broken = recognizer.open(RecognitionOptions())
    recognizer.close(broken)
    well = recognizer.open(RecognitionOptions())
    first, second = recognizer.step([Feed(broken, SECOND, True), Feed(well, SECOND, True)])
    assert isinstance(first, RuntimeError)
    assert isinstance(second, Hypothesis)


def test_a_decoder_that_does_not_start_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    pool = DecoderPool(1, lambda doing: None, lambda: recorder)
    monkeypatch.setattr(recorder, "start_utt", _no_memory)
    for _ in range(3):
        with pytest.raises(MemoryError):
            pool.lend()
