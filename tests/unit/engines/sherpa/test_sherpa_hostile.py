"""What clients, damaged models and other threads do to the recognisers harms nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.pcm import Float32
from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionOptions
from app.engines import registry
from app.engines.base import Feed, Hypothesis, Segment
from app.engines.sherpa.hotwords import MOST_PHRASES
from app.engines.sherpa.kinds import find_model
from app.engines.sherpa.offline import load_offline
from app.engines.sherpa.punctuation import CtPunctuator, load_punctuators
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.spelling import words, words_of
from app.engines.sherpa.streaming import StreamingRecognizer, load_streaming
from tests.support.sherpa import paraformer, punctuation, sense_voice, zipformer2
from tests.support.sherpa.hearing import padded
from tests.support.sherpa.tones import LETTERS, silence, spoken

PLAIN = RecognitionOptions()
WORDS = RecognitionOptions(words=True)


def nothing(doing: str) -> None:
    """Progress that nobody hears."""


def streaming(folder: Path, **options: Any) -> StreamingRecognizer:
    return load_streaming(find_model(folder, "streaming"), SherpaOptions(**options), nothing)


@pytest.fixture(scope="module")
def transducer(tmp_path_factory: pytest.TempPathFactory) -> StreamingRecognizer:
    return streaming(zipformer2.transducer(tmp_path_factory.mktemp("model")))


def heard(
    recognizer: StreamingRecognizer,
    sounds: Sequence[Float32],
    options: Sequence[RecognitionOptions],
) -> list[Hypothesis | Exception]:
    """The last answers of sounds of one length."""
    streams = [recognizer.open(each) for each in options]
    step = 16 * recognizer.capabilities.step_ms
    found: dict[int, Hypothesis | Exception] = {}
    for begin in range(0, sounds[0].size, step):
        last = begin + step >= sounds[0].size
        places = [i for i in range(len(sounds)) if not isinstance(found.get(i), Exception)]
        feeds = [Feed(streams[i], sounds[i][begin : begin + step], last) for i in places]
        found.update(zip(places, recognizer.step(feeds), strict=True))
    return [found[place] for place in range(len(sounds))]


def text_of(answer: Hypothesis | Exception) -> str:
    assert isinstance(answer, Hypothesis), answer
    return answer.text


# Options


def test_ten_thousand_hotwords(transducer: StreamingRecognizer) -> None:
    rng = np.random.default_rng(6)
    many = tuple(("".join(rng.choice(list(LETTERS), 7)), 2.0) for _ in range(10_000))
    odd = tuple((f"{i}☃\0/:#@" * 500, float("nan")) for i in range(2_000))
    sounds = [spoken("你好世界")] * 3
    options = [RecognitionOptions(hotwords=each) for each in (many, (), odd)]
    assert list(map(text_of, heard(transducer, sounds, options))) == ["你好世界"] * 3
    assert transducer._hotwords is not None
    assert len(transducer._hotwords.written(many).split("/")) == MOST_PHRASES


def test_only_the_beginning_of_a_list_is_looked_at(transducer: StreamingRecognizer) -> None:
    assert transducer._hotwords is not None
    unknown = (("☃", 2.0),) * 3_999
    assert transducer._hotwords.written((*unknown, ("世界", 2.0))) == "世界 :2.00"
    assert transducer._hotwords.written((*unknown, ("☃", 2.0), ("世界", 2.0))) == ""


@pytest.mark.parametrize("language", [None, "", "zh", "tlh", "☃", "\0"])
def test_languages_are_ignored(
    transducer: StreamingRecognizer, tmp_path: Path, language: str | None
) -> None:
    options = RecognitionOptions(language=language)
    assert text_of(heard(transducer, [spoken("你好")], [options])[0]) == "你好"
    model = find_model(sense_voice.sense_voice(tmp_path), "offline")
    offline = load_offline(model, SherpaOptions(), nothing)
    assert text_of(offline.recognize([Segment(padded(spoken("你好")), options)])[0]) == "你好"


def test_words_for_some_streams_of_a_step_only(transducer: StreamingRecognizer) -> None:
    found = heard(transducer, [spoken("你好")] * 4, [WORDS, PLAIN] * 2)
    assert [len(each.words) for each in found if isinstance(each, Hypothesis)] == [2, 0, 2, 0]


# Audio


@pytest.mark.parametrize(
    "hard",
    [
        np.full(16_000, 1e30),
        np.full(16_000, -1.0),
        np.where(np.arange(16_000) % 2, 1e9, -1e9),
        np.full(16_000, 1e-40),
        np.random.default_rng(6).normal(0, 100, 16_000),
        np.where(np.arange(16_000) == 8_000, np.nan, 0.0),
    ],
    ids=["huge", "constant", "square", "denormal", "noise", "NaN"],
)
def test_hard_audio_harms_nobody_beside_it(transducer: StreamingRecognizer, hard: Float32) -> None:
    sound = np.concatenate([spoken("你好世界"), silence(1000)])[:16_000]
    sounds = [sound, hard.astype(np.float32), sound]
    found = heard(transducer, sounds, [WORDS] * 3)
    [alone] = heard(transducer, [sound], [WORDS])
    assert [found[0], found[2]] == [alone, alone]
    assert isinstance(found[1], Exception) == bool(np.isnan(hard).any())


# Damaged models


@pytest.mark.parametrize("kind", [zipformer2.transducer, zipformer2.ctc, paraformer.streaming])
def test_tokens_that_are_parts_of_characters_have_no_words(
    kind: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = kind(tmp_path)
    tokens = folder / "tokens.txt"
    tokens.write_bytes(tokens.read_bytes().replace("世".encode(), b"\xe4\xb8"))
    recognizer = streaming(folder)
    damaged, whole = heard(recognizer, [spoken("你好世界"), spoken("你好今天")], [WORDS] * 2)
    assert text_of(damaged).startswith("你好")
    assert isinstance(damaged, Hypothesis) and damaged.words == ()
    assert text_of(whole) == "你好今天"


@pytest.mark.parametrize(
    ("kind", "file", "key", "value"),
    [
        (zipformer2.transducer, "decoder.onnx", "context_size", 99),
        (zipformer2.transducer, "encoder.onnx", "num_heads", 3),
        (zipformer2.ctc, "model.onnx", "left_context_len", 3),
    ],
)
def test_metadata_that_do_not_fit_the_model_are_told_at_the_start(
    kind: Callable[[Path], Path], file: str, key: str, value: int, tmp_path: Path
) -> None:
    folder = kind(tmp_path)
    model = onnx.load(str(folder / file))
    known = {each.key: each.value for each in model.metadata_props}
    onnx.helper.set_model_props(model, {**known, key: str(value)})
    onnx.save(model, str(folder / file))
    settings = {
        "SHERPA_STREAMING_MODEL": str(folder),
        "SHERPA_OFFLINE_MODEL": "none",
        "SHERPA_PUNCTUATION_MODEL": "none",
    }
    with pytest.raises(EngineNotUsable, match=r"is not usable: .*invalid dimensions") as told:
        registry.load("sherpa").recognizer("cpu", settings, nothing)
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


def test_whole_sentences_with_parts_of_characters_have_no_words(tmp_path: Path) -> None:
    folder = sense_voice.sense_voice(tmp_path)
    tokens = folder / "tokens.txt"
    tokens.write_bytes(tokens.read_bytes().replace("世".encode(), b"\xe4\xb8"))
    offline = load_offline(find_model(folder, "offline"), SherpaOptions(), nothing)
    sounds = [padded(spoken("你好世界")), padded(spoken("你好今天"))]
    damaged, whole = offline.recognize([Segment(sound, WORDS) for sound in sounds])
    assert isinstance(damaged, Hypothesis) and damaged.words == ()
    assert text_of(damaged).startswith("你好")
    assert isinstance(whole, Hypothesis) and len(whole.words) == 4


def test_times_that_go_back_do_not() -> None:
    found = words("你好世", ["你", "好", "世"], [0.5, 0.2, 0.9], 1000)
    assert [(word.start_ms, word.end_ms) for word in found] == [(500, 500), (500, 900), (900, 1000)]


def test_a_result_of_the_runtime_has_words() -> None:
    result = SimpleNamespace(tokens=["你"], timestamps=[0.1])
    assert [word.text for word in words_of(result, "你", 300)] == ["你"]


# Failures of the runtime


class Failing:
    """A recogniser's runtime whose results of some streams cannot be had."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.fails: Callable[[Any], bool] = lambda native: False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def get_result_all(self, native: Any) -> Any:
        if self.fails(native):
            raise RuntimeError("broken")
        return self._runtime.get_result_all(native)


def test_a_result_that_cannot_be_had_fails_its_stream_only(tmp_path: Path) -> None:
    recognizer = streaming(zipformer2.transducer(tmp_path), slots=3)
    failing = Failing(recognizer._recognizer)
    recognizer._recognizer = failing
    streams = [recognizer.open(PLAIN) for _ in range(3)]
    bad: Any = streams[1]
    failing.fails = lambda native: native is bad.native
    found = recognizer.step([Feed(stream, silence(320), False) for stream in streams])
    assert [isinstance(each, Exception) for each in found] == [False, True, False]
    # Its slot is free again, and the others go on.
    other = recognizer.open(PLAIN)
    feeds = [Feed(stream, silence(320), False) for stream in (streams[0], streams[2], other)]
    assert all(isinstance(each, Hypothesis) for each in recognizer.step(feeds))


def test_a_sentence_whose_result_cannot_be_had_fails_alone(tmp_path: Path) -> None:
    model = find_model(sense_voice.sense_voice(tmp_path), "offline")
    offline = load_offline(model, SherpaOptions(), nothing)
    hypothesis = offline._hypothesis

    def failing(result: Any, segment: Segment) -> Hypothesis:
        if segment.options.words:
            raise RuntimeError("broken")
        return hypothesis(result, segment)

    offline._hypothesis = failing  # type: ignore[method-assign]  # as the runtime may fail
    sound = padded(spoken("你好"))
    found = offline.recognize([Segment(sound, each) for each in (PLAIN, WORDS, PLAIN)])
    assert [isinstance(each, Exception) for each in found] == [False, True, False]


# Other threads


class Held:
    """A recogniser's runtime that waits in the middle of a call."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.inside, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def decode_streams(self, natives: list[Any]) -> None:
        self.inside.set()
        assert self.go_on.wait(30)
        self._runtime.decode_streams(natives)


def test_a_stream_that_is_closed_in_its_step_is_given_up_after_it(tmp_path: Path) -> None:
    recognizer = streaming(zipformer2.transducer(tmp_path), slots=2)
    held = Held(recognizer._recognizer)
    streams = [recognizer.open(PLAIN) for _ in range(2)]
    audio = np.concatenate([spoken("你好世界"), silence(1000)])
    feeds = [
        [Feed(stream, audio[at : at + 5_120], False) for stream in streams]
        for at in range(0, 4 * 5_120, 5_120)
    ]
    recognizer.step(feeds[0])
    recognizer._recognizer = held
    answers: list[Hypothesis | Exception] = []
    thread = threading.Thread(target=lambda: answers.extend(recognizer.step(feeds[1])))
    thread.start()
    assert held.inside.wait(30)
    recognizer.close(streams[0])
    recognizer.close(streams[0])
    with pytest.raises(RuntimeError):
        recognizer.open(PLAIN)  # its slot is still in use
    # Nor may it be in two steps at once.
    [refused] = recognizer.step([feeds[2][1]])
    assert isinstance(refused, RuntimeError)
    held.go_on.set()
    thread.join(30)
    assert [isinstance(each, Hypothesis) for each in answers] == [True, True]
    recognizer.open(PLAIN)
    gone, there = recognizer.step(feeds[2])
    assert isinstance(gone, RuntimeError) and isinstance(there, Hypothesis)


def test_streams_come_and_go_while_steps_run(tmp_path: Path) -> None:
    recognizer = streaming(zipformer2.transducer(tmp_path), slots=16)
    steady = recognizer.open(PLAIN)
    audio = np.concatenate([spoken("你好世界天气"), silence(1000)])
    others: list[object] = []
    stop = threading.Event()

    def come_and_go() -> None:
        rng = np.random.default_rng(6)
        while not stop.is_set():
            if len(others) < 7:
                others.append(recognizer.open(PLAIN))
            else:
                recognizer.close(others.pop(int(rng.integers(7))))

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        text = ""
        for at in range(0, audio.size, 5_120):
            last = at + 5_120 >= audio.size
            chosen = others[:5]
            feeds = [Feed(stream, silence(320), False) for stream in chosen]
            feeds.append(Feed(steady, audio[at : at + 5_120], last))
            *answers, own = recognizer.step(feeds)
            # Closed before the step: refused; in it or after: not.
            assert all(isinstance(each, Hypothesis | RuntimeError) for each in answers)
            text = text_of(own)
    finally:
        stop.set()
        thread.join(30)
    assert text == "你好世界天气"
    for stream in others:
        recognizer.close(stream)
    assert recognizer._opened == 0


# Punctuation


@pytest.fixture(scope="module")
def punctuators(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[CtPunctuator, CtPunctuator]:
    folder = punctuation.ct_transformer(tmp_path_factory.mktemp("model"))
    return load_punctuators(find_model(folder, "punctuation"), SherpaOptions(), nothing)


@given(
    st.text(
        st.sampled_from(
            "你好吗今天了和吧ab12 .,。，？、\t\n\0\u200b😀々〇①°%$'\"-…“”《》\u202e𠮷\ud800"
        )
    )
    | st.text(max_size=40)
)
def test_punctuation_only_adds_marks(
    punctuators: tuple[CtPunctuator, CtPunctuator], text: str
) -> None:
    for punctuator in punctuators:
        [written] = punctuator.punctuate([text])
        rest = iter(written)
        added = []
        for char in text:
            while (found := next(rest)) != char:
                added.append(found)
        assert set(added + list(rest)) <= set("，。？、,.?")
