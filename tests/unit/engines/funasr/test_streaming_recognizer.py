"""Sentences over the executor: slots lent and given back, text and times."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.audio.pcm import Float32
from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Hypothesis, SentenceRecognizer
from app.engines.funasr.executor import Choices, EagerForward, Heard, Part
from app.engines.funasr.hotwords import Automata, Automaton, Search
from app.engines.funasr.recognizer import CHUNKINGS, StreamingRecognizer, load_streaming
from app.engines.funasr.settings import FunasrOptions
from app.engines.funasr.tokens import TokenList
from tests.support.random_paraformer import noise, token_names

CHUNK = 9600
NAMES = token_names(300)
FIRST_CHARACTER = NAMES.index("\u4e00")
WORDS = RecognitionOptions(words=True)
PLAIN = RecognitionOptions()


def _loaded(folder: Path, **settings: object) -> StreamingRecognizer:
    options = FunasrOptions.parse({"FUNASR_SLOTS": 4, **settings})
    return load_streaming(folder, "cpu", options, lambda doing: None)


@pytest.fixture
def recognizer(streaming_folder: Path) -> StreamingRecognizer:
    """With four slots."""
    return _loaded(streaming_folder)


def _feeds(stream: object, samples: Float32, size: int = CHUNK) -> list[Feed]:
    starts = range(0, max(samples.size, 1), size)
    return [Feed(stream, samples[s : s + size], s + size >= samples.size) for s in starts]


def _sound(answer: Hypothesis | Exception) -> Hypothesis:
    assert isinstance(answer, Hypothesis), answer
    return answer


def _alone(
    recognizer: SentenceRecognizer, samples: Float32, options: RecognitionOptions = PLAIN
) -> list[Hypothesis]:
    size = 16 * recognizer.capabilities.step_ms
    stream = recognizer.open(options)
    return [_sound(recognizer.step([feed])[0]) for feed in _feeds(stream, samples, size)]


def _is_full(recognizer: SentenceRecognizer) -> bool:
    try:
        recognizer.close(recognizer.open(PLAIN))
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize("chunk_ms", [600, 480, 300])
def test_capabilities(streaming_folder: Path, chunk_ms: int) -> None:
    recognizer = _loaded(streaming_folder, FUNASR_CHUNK_MS=str(chunk_ms), FUNASR_MAX_BATCH=3)
    found = recognizer.capabilities
    assert (found.sample_rate, found.step_ms) == (16_000, chunk_ms)
    assert (found.max_sentences, found.max_batch, found.max_sessions) == (4, 3, None)
    assert found.partials and found.word_times
    assert found.hotwords
    assert not (found.punctuation or found.inverse_text_normalization)
    assert _loaded(streaming_folder, FUNASR_SLOTS=0).capabilities.max_sentences == 256
    assert _loaded(streaming_folder).capabilities.max_batch is None


@pytest.mark.parametrize("dtype", ["fp32", "int8", "bf16"])
def test_the_text_grows(streaming_folder: Path, dtype: str) -> None:
    recognizer = _loaded(streaming_folder, FUNASR_DTYPE=dtype)
    texts = [h.text for h in _alone(recognizer, noise(60, 6 * CHUNK + 3000))]
    assert texts[-1]
    assert "<" not in texts[-1]
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    assert texts[-1].startswith(texts[2])


def test_int8_is_refused_on_a_gpu(streaming_folder: Path) -> None:
    options = FunasrOptions.parse({"FUNASR_DTYPE": "int8"})
    with pytest.raises(EngineNotUsable, match="FUNASR_DTYPE=int8"):
        load_streaming(streaming_folder, "cuda:0", options, lambda doing: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(streaming_folder: Path) -> None:
    with pytest.raises(EngineNotUsable, match=r"^torch \S+ finds no GPU[^\n]*ASR_GPUS=cpu$"):
        load_streaming(streaming_folder, "cuda:0", FunasrOptions(), lambda doing: None)


@pytest.mark.parametrize("samples", [0, 1, 959, 960, 9599, 9600, 19_200])
def test_a_sentence_of_any_length_ends(recognizer: StreamingRecognizer, samples: int) -> None:
    audio = noise(61, samples)
    first = _alone(recognizer, audio)[-1]
    assert _alone(recognizer, audio)[-1] == first
    assert not _is_full(recognizer)


def test_a_whole_last_chunk_is_a_chunk_and_then_an_end(recognizer: StreamingRecognizer) -> None:
    """The same as if the end came later, without samples."""
    audio = noise(62, 3 * CHUNK)
    stream = recognizer.open(PLAIN)
    for feed in _feeds(stream, audio):
        recognizer.step([Feed(stream, feed.samples, False)])
    later = _sound(recognizer.step([Feed(stream, np.empty(0, np.float32), True)])[0])
    assert _alone(recognizer, audio)[-1] == later


def test_more_streams_than_a_forward_takes(streaming_folder: Path) -> None:
    recognizer = _loaded(streaming_folder, FUNASR_SLOTS=7, FUNASR_MAX_BATCH=2)
    audio = [noise(70 + k, 2 * CHUNK + (0, 4000)[k % 2]) for k in range(7)]
    expected = [_alone(recognizer, samples)[-1] for samples in audio]
    streams = [recognizer.open(PLAIN) for _ in audio]
    plans = [_feeds(stream, samples) for stream, samples in zip(streams, audio, strict=True)]
    found_last: dict[int, Hypothesis] = {}
    while batch := [plan.pop(0) for plan in plans if plan]:
        for feed, answer in zip(batch, recognizer.step(batch), strict=True):
            found_last[streams.index(feed.stream)] = _sound(answer)
    assert [found_last[k] for k in range(7)] == expected


@pytest.mark.parametrize("chunk_ms", [600, 480, 300])
def test_words_ascend_and_lie_inside(streaming_folder: Path, chunk_ms: int) -> None:
    recognizer = _loaded(streaming_folder, FUNASR_CHUNK_MS=str(chunk_ms))
    for seed, samples in enumerate((2000, 9600, 30_000, 65_000)):
        size = 16 * chunk_ms
        hypotheses = _alone(recognizer, noise(80 + seed, samples), WORDS)
        for k, hypothesis in enumerate(hypotheses):
            heard_ms = min((k + 1) * size, samples) // 16
            times = [t for word in hypothesis.words for t in (word.start_ms, word.end_ms)]
            assert times == sorted(times)
            assert all(0 <= time <= heard_ms for time in times)
            joined = "".join(word.text for word in hypothesis.words)
            assert joined == hypothesis.text.replace(" ", "")
        assert samples < 20_000 or len(hypotheses[-1].words) > 3
    assert _alone(recognizer, noise(80, 30_000))[-1].words == ()


def test_words_stay_where_they_were(recognizer: StreamingRecognizer) -> None:
    hypotheses = _alone(recognizer, noise(81, 6 * CHUNK), WORDS)
    for earlier, later in pairwise(hypotheses):
        # The last word may still be growing.
        assert later.words[: len(earlier.words) - 1] == earlier.words[:-1]


def test_a_word_is_where_its_sound_is(streaming_folder: Path) -> None:
    """Rows of the predictor are rows of the stream: one share, fired in a known row."""
    heard = Heard([10], np.zeros((2, 17), np.float32), True, 1.0)
    heard.shares[0, 1 + 5 + 3] = 1.0
    recognizer = _with(_Scripted([heard, heard]))
    stream = recognizer.open(WORDS)
    silent = np.zeros(CHUNK, np.float32)
    recognizer.step([Feed(stream, silent, False)])
    words = _sound(recognizer.step([Feed(stream, silent, False)])[0]).words
    assert [(word.start_ms, word.end_ms) for word in words] == [(180, 240), (780, 840)]


def test_marks_of_the_model_are_no_text() -> None:
    recognizer = _with(_Scripted([Heard([0, 1, 2, 3, 4], np.zeros((6, 17), np.float32), True, 1)]))
    stream = recognizer.open(WORDS)
    answer = _sound(recognizer.step([Feed(stream, np.zeros(CHUNK, np.float32), False)])[0])
    assert answer.text == "hello"
    assert [word.text for word in answer.words] == ["hello"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("last", [False, True])
def test_audio_that_is_no_number_fails_alone(
    recognizer: StreamingRecognizer, value: float, last: bool
) -> None:
    audio = noise(90, 2 * CHUNK)
    expected = _alone(recognizer, audio)
    good, bad = recognizer.open(PLAIN), recognizer.open(PLAIN)
    first, second = _feeds(good, audio)
    damaged = audio[:CHUNK].copy()
    damaged[-1] = value
    answers = recognizer.step([Feed(bad, damaged, last), first])
    assert isinstance(answers[0], Exception)
    assert answers[1] == expected[0]
    recognizer.close(bad)  # as every caller does
    assert recognizer.step([second]) == [expected[1]]
    streams = [recognizer.open(PLAIN) for _ in range(4)]  # all slots are back
    assert [_sound(a) for a in recognizer.step([_feeds(s, audio)[0] for s in streams])] == [
        expected[0]
    ] * 4


def test_a_model_that_finds_no_numbers_fails_one_stream() -> None:
    shares = np.zeros((2, 17), np.float32)
    sound, broken = Heard([10], shares, True, 1.0), Heard([11], shares, False, 1.0)
    recognizer = _with(_Scripted([broken, sound]))
    streams = [recognizer.open(PLAIN), recognizer.open(PLAIN)]
    silent = np.zeros(CHUNK, np.float32)
    first, second = recognizer.step([Feed(stream, silent, False) for stream in streams])
    assert isinstance(first, Exception)
    assert isinstance(second, Hypothesis)
    assert isinstance(recognizer.step([Feed(streams[0], silent, False)])[0], Exception)


def test_a_forward_that_fails_gives_all_slots_back() -> None:
    recognizer = _with(_Failing())
    streams = [recognizer.open(PLAIN) for _ in range(4)]
    silent = np.zeros(CHUNK, np.float32)
    with pytest.raises(ArithmeticError):
        recognizer.step([Feed(stream, silent, k % 2 == 0) for k, stream in enumerate(streams)])
    for stream in streams:
        recognizer.close(stream)
    for _ in range(4):
        recognizer.open(PLAIN)
    assert _is_full(recognizer)


def test_audio_outside_is_clipped(recognizer: StreamingRecognizer) -> None:
    audio = 3 * noise(91, 2 * CHUNK + 50)
    clipped: Float32 = np.clip(audio, -1, 1)
    kept = audio.copy()
    assert _alone(recognizer, audio) == _alone(recognizer, clipped)
    assert np.array_equal(audio, kept)  # the caller's samples are its own


def test_feeds_that_are_wrong_fail_alone(recognizer: StreamingRecognizer) -> None:
    silent = np.zeros(CHUNK, np.float32)
    streams = [recognizer.open(PLAIN) for _ in range(4)]
    recognizer.close(streams[3])
    answers = recognizer.step(
        [
            Feed(streams[0], silent[:100], False),
            Feed(streams[1], np.zeros(CHUNK + 1, np.float32), True),
            Feed(object(), silent, False),
            Feed(streams[2], silent, False),
            Feed(streams[2], silent, False),
            Feed(streams[3], silent, False),
        ]
    )
    kinds = [ValueError, ValueError, TypeError, Hypothesis, RuntimeError, RuntimeError]
    assert [type(answer) for answer in answers] == kinds
    assert recognizer.step([]) == []
    assert isinstance(recognizer.step([Feed(streams[2], silent, True)])[0], Hypothesis)


def test_slots_are_lent_and_given_back_once(recognizer: StreamingRecognizer) -> None:
    streams = [recognizer.open(PLAIN) for _ in range(4)]
    assert _is_full(recognizer)
    for stream in (streams[0], streams[0], object()):
        recognizer.close(stream)
    again = recognizer.open(PLAIN)
    assert _is_full(recognizer)
    ended = Feed(streams[1], np.zeros(10, np.float32), True)
    recognizer.step([ended])
    recognizer.close(streams[1])
    assert not _is_full(recognizer)
    recognizer.close(again)
    assert isinstance(recognizer.step([ended])[0], Exception)


def test_opening_and_closing_while_a_step_runs() -> None:
    """Another stream's; and one in the step itself, which gives its slot back afterwards."""
    forward = _Gated()
    recognizer = _with(forward, slots=3)
    stepping, idle = recognizer.open(PLAIN), recognizer.open(PLAIN)
    silent = np.zeros(CHUNK, np.float32)
    answers: list[Hypothesis | Exception] = []
    thread = threading.Thread(
        target=lambda: answers.extend(recognizer.step([Feed(stepping, silent, False)]))
    )
    thread.start()
    assert forward.entered.wait(10)
    recognizer.close(idle)
    other, third = recognizer.open(PLAIN), recognizer.open(PLAIN)
    recognizer.close(stepping)
    assert _is_full(recognizer)  # its slot is in use
    forward.leave.set()
    thread.join(10)
    assert [type(answer) for answer in answers] == [Hypothesis]
    assert not _is_full(recognizer)
    used = {forward.slots[0]}
    recognizer.step([Feed(other, silent, False), Feed(third, silent, False)])
    assert used.isdisjoint(forward.slots[1:])


def test_a_slot_is_cleared_for_each_new_sentence(recognizer: StreamingRecognizer) -> None:
    expected = _alone(recognizer, noise(92, 3 * CHUNK))
    for k in range(6):
        for _ in range(4):
            stream = recognizer.open(PLAIN)
            recognizer.step([Feed(stream, noise(100 + k, CHUNK), False)])
            recognizer.close(stream)
        assert _alone(recognizer, noise(92, 3 * CHUNK)) == expected


def test_the_threads_are_set_where_the_steps_run(streaming_folder: Path) -> None:
    recognizer = _loaded(streaming_folder, FUNASR_THREADS=3)
    before = torch.get_num_threads()
    seen: list[int] = []

    def run() -> None:
        stream = recognizer.open(PLAIN)
        recognizer.step([Feed(stream, np.zeros(CHUNK, np.float32), True)])
        seen.append(torch.get_num_threads())

    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(60)
    finally:
        torch.set_num_threads(before)
    assert seen == [3]


# Hotwords


def _choices(recognizer: StreamingRecognizer, samples: Float32) -> Choices:
    """All readings of a stream: a hotword that is nowhere makes the forwards give them."""
    taken: list[Choices] = []
    original = Search.take

    def watched(self: Search, ids: NDArray[np.int64], scores: Float32) -> list[int]:
        taken.append(Choices(ids, scores))
        return original(self, ids, scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Search, "take", watched)
        _alone(recognizer, samples, _wishing((NAMES[-2] * 9, 5.0)))
    ids, scores = ([getattr(one, name) for one in taken] for name in ("ids", "scores"))
    return Choices(np.concatenate(ids), np.concatenate(scores))


def _wishing(*hotwords: tuple[str, float], words: bool = True) -> RecognitionOptions:
    return RecognitionOptions(words=words, hotwords=hotwords)


def _second_best(choices: Choices) -> tuple[int, str, float]:
    """The place of two characters that are little less probable than the best ones, the two, and
    by how much less."""
    lacks = choices.scores[:, 0] - choices.scores[:, 1]
    places = [
        place
        for place in range(len(lacks) - 1)
        if min(*choices.ids[place : place + 2, :2].flat) >= FIRST_CHARACTER
        and max(*choices.ids[place : place + 2, :2].flat) < len(NAMES) - 1
    ]
    place = min(places, key=lambda k: float(lacks[k : k + 2].sum()))
    word = "".join(NAMES[token] for token in choices.ids[place : place + 2, 1])
    return place, word, float(lacks[place : place + 2].sum())


def test_a_hotword_becomes_the_text_and_others_stay_as_they_are(streaming_folder: Path) -> None:
    recognizer = _loaded(streaming_folder)
    audio = [noise(110 + k, 5 * CHUNK + 3000) for k in range(4)]
    plain = [_alone(recognizer, samples, WORDS) for samples in audio]
    place, word, lack = _second_best(_choices(recognizer, audio[1]))
    assert lack < 8
    assert word not in plain[1][-1].text
    weight = lack / 2 + 0.1
    options = [WORDS, _wishing((word, weight)), WORDS, _wishing(("阿", 5.0), ("nothing", 5.0))]
    streams = [recognizer.open(one) for one in options]
    plans = [_feeds(stream, samples) for stream, samples in zip(streams, audio, strict=True)]
    rounds = [
        [_sound(answer) for answer in recognizer.step(feeds)] for feeds in zip(*plans, strict=True)
    ]
    for k in (0, 2, 3):
        assert [one[k] for one in rounds] == plain[k]
    final, before = rounds[-1][1], plain[1][-1]
    assert word in final.text
    # One text in place of another; everything else is where it was.
    spans = [(one.start_ms, one.end_ms) for one in final.words]
    assert spans == [(one.start_ms, one.end_ms) for one in before.words]
    changed = [k for k, (a, b) in enumerate(zip(final.words, before.words, strict=True)) if a != b]
    assert len(changed) == 2
    assert changed[1] == changed[0] + 1 <= place + 1
    # A little less weight does not suffice, and a neighbour that sounds otherwise does not count.
    assert _alone(recognizer, audio[1], _wishing((word, weight - 0.2))) == plain[1]
    assert _alone(recognizer, audio[1], _wishing((word[::-1], 5.0)))[-1].text != final.text


def test_a_word_that_is_not_to_be_heard(recognizer: StreamingRecognizer) -> None:
    audio = noise(111, 5 * CHUNK)
    text = _alone(recognizer, audio)[-1].text
    char = max(text.replace(" ", ""), key=lambda one: (ord(one) >= 0x4E00, text.count(one)))
    assert text.count(char) > 0
    assert char not in _alone(recognizer, audio, _wishing((char, -6.0)))[-1].text
    assert _alone(recognizer, audio, _wishing((char, 5.0)))[-1].text.count(char) >= text.count(char)


@pytest.mark.parametrize(
    "hotwords", [(), (("東", 5.0),), (("\u4e00\u4e01" * 8, 5.0), ("hello" * 4, -6.0))]
)
def test_without_a_hotword_nearby_nothing_changes(
    recognizer: StreamingRecognizer, hotwords: tuple[tuple[str, float], ...]
) -> None:
    audio = noise(112, 6 * CHUNK + 700)
    options = RecognitionOptions(words=True, hotwords=hotwords)
    assert _alone(recognizer, audio, options) == _alone(recognizer, audio, WORDS)


def test_all_readings_are_fetched_only_for_those_who_have_hotwords(
    recognizer: StreamingRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[list[bool]] = []
    original = EagerForward.__call__

    def watched(self: EagerForward, parts: Sequence[Part]) -> list[Heard]:
        heard = original(self, parts)
        assert [one.choices is not None for one in heard] == [part.choices for part in parts]
        wanted.append([part.choices for part in parts])
        return heard

    monkeypatch.setattr(EagerForward, "__call__", watched)
    several = (PLAIN, _wishing(("\u4e00", 1.0)), _wishing(("東", 5.0)), _wishing(("\u4e00", 0.0)))
    streams = [recognizer.open(options) for options in several]
    recognizer.step([Feed(stream, noise(113, CHUNK), False) for stream in streams])
    recognizer.step([Feed(streams[0], noise(113, CHUNK), False)])
    assert wanted == [[False, True, False, False], [False]]


def test_lists_of_hotwords_are_read_in_the_step(
    recognizer: StreamingRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening is for the event loop; and the next sentences of a task find it done."""
    threads: list[int] = []
    original = Automaton.__init__

    def watched(self: Automaton, *arguments: Any) -> None:
        threads.append(threading.get_ident())
        original(self, *arguments)

    monkeypatch.setattr(Automaton, "__init__", watched)
    for _ in range(3):
        stream = recognizer.open(_wishing(("\u4e00", 1.0)))
        feed = Feed(stream, np.zeros(CHUNK, np.float32), True)
        thread = threading.Thread(target=recognizer.step, args=([feed],))
        thread.start()
        thread.join(60)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_without_automata_hotwords_are_not_promised() -> None:
    heard = Heard([10], np.zeros((2, 17), np.float32), True, 1.0)
    recognizer = _with(_Scripted([heard]))
    assert not recognizer.capabilities.hotwords
    stream = recognizer.open(_wishing((NAMES[11], 5.0)))
    feed = Feed(stream, np.zeros(CHUNK - 1, np.float32), True)
    assert _sound(recognizer.step([feed])[0]).text == NAMES[10]


def test_marks_are_no_choice() -> None:
    """Times stay with their tokens where the model says that there is no text."""
    heard = Heard(
        [10, 0, 11],
        np.zeros((4, 17), np.float32),
        True,
        1.0,
        Choices(
            np.array([[10, 12], [0, 13], [11, 14]]),
            np.array([[0, -1], [0, -1], [0, -1]], np.float32),
        ),
    )
    for place in range(3):
        heard.shares[place, 6 + 3 * place] = 1.0
    recognizer = _with(_Scripted([heard]), automata=Automata(NAMES, {}))
    stream = recognizer.open(_wishing((NAMES[12] + NAMES[14], 5.0), (NAMES[13], 5.0)))
    answer = _sound(recognizer.step([Feed(stream, np.zeros(CHUNK - 1, np.float32), True)])[0])
    assert answer.text == NAMES[12] + NAMES[14]
    assert [(word.start_ms, word.end_ms) for word in answer.words] == [(0, 60), (360, 420)]


# Forwards without a model


def _with(
    forward: _Scripted | _Failing | _Gated, slots: int = 4, automata: Automata | None = None
) -> StreamingRecognizer:
    return StreamingRecognizer(
        forward, CHUNKINGS[600], TokenList(NAMES), slots=slots, max_batch=None, automata=automata
    )


class _Scripted:
    """Gives what it is told to, one for each part."""

    most_parts = 8

    def __init__(self, heard: Sequence[Heard]) -> None:
        self._heard = list(heard)

    def __call__(self, parts: Sequence[Part]) -> list[Heard]:
        return [self._heard.pop(0) for _ in parts]


class _Failing:
    most_parts = 8

    def __call__(self, parts: Sequence[Part]) -> list[Heard]:
        raise ArithmeticError("no")


class _Gated:
    """Waits in its first forward until it may leave; remembers the slots."""

    most_parts = 8

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.slots: list[int] = []

    def __call__(self, parts: Sequence[Part]) -> list[Heard]:
        self.slots += [part.slot for part in parts]
        self.entered.set()
        assert self.leave.wait(10)
        return [Heard([], np.zeros((1, 17), np.float32), True, 1.0) for _ in parts]
