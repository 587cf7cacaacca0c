"""The recogniser as the worker gets it, its second pass and its punctuation, on tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.audio.pcm import Float32
from app.core.config import Config
from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionOptions, Word
from app.engines.base import Hypothesis, OfflineRecognizer, RecognizerParts, Segment
from app.engines.sherpa import FAMILY
from app.engines.sherpa.offline import BatchedRecognizer
from app.engines.sherpa.punctuation import CtPunctuator, aligned
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.spelling import words
from tests.support.sherpa import paraformer, punctuation, sense_voice, zipformer2
from tests.support.sherpa.hearing import padded
from tests.support.sherpa.tones import LETTERS, silence, spoken

OPTIONS = RecognitionOptions(words=True)


NO_CACHE: dict[str, object] = {"MODELSCOPE_CACHE": "/no/such/cache", "OFFLINE": True}
"""What is on this machine is not looked at, and nothing is downloaded."""


def loaded(**settings: object) -> RecognizerParts:
    found = FAMILY.recognizer("auto", {**NO_CACHE, **settings}, lambda doing: None)
    assert isinstance(found, RecognizerParts)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "SHERPA_STREAMING_MODEL": zipformer2.transducer(place / "zipformer"),
        "SHERPA_OFFLINE_MODEL": sense_voice.sense_voice(place / "sense-voice"),
        "SHERPA_PUNCTUATION_MODEL": punctuation.ct_transformer(place / "ct"),
    }


@pytest.fixture(scope="module")
def parts(folders: dict[str, Path]) -> RecognizerParts:
    return loaded(**{name: str(path) for name, path in folders.items()})


@pytest.fixture(scope="module")
def offline(parts: RecognizerParts) -> OfflineRecognizer:
    assert parts.offline is not None
    return parts.offline


@pytest.fixture(scope="module", params=["SenseVoice", "Paraformer"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    build = sense_voice.sense_voice if request.param == "SenseVoice" else paraformer.offline
    return loaded(SHERPA_OFFLINE_MODEL=str(build(tmp_path_factory.mktemp("model")))).offline


def heard(
    recognizer: OfflineRecognizer, sounds: Sequence[Float32], options: RecognitionOptions = OPTIONS
) -> list[Hypothesis]:
    found = recognizer.recognize([Segment(sound, options) for sound in sounds])
    assert len(found) == len(sounds)
    return [each for each in found if isinstance(each, Hypothesis)]


def test_the_whole_has_the_abilities_of_its_parts(parts: RecognizerParts) -> None:
    whole = parts.capabilities
    assert whole.partials and whole.word_times and whole.hotwords and whole.punctuation
    assert whole.tags and not whole.inverse_text_normalization
    assert whole.step_ms == 320
    assert set(whole.languages) == {"zh", "yue", "en", "ja", "ko"}
    assert whole.notice == "zipformer (zh), second pass sense-voice, punctuation ct; on the CPU"
    assert parts.partial_punctuator is None


def test_the_mode_chooses(folders: dict[str, Path]) -> None:
    settings: dict[str, object] = {name: str(path) for name, path in folders.items()}
    realtime = loaded(**settings, ASR_MODEL_MODE="realtime", ASR_ENABLE_REALTIME_PUNC=True)
    assert realtime.streaming is not None and realtime.offline is None
    assert realtime.partial_punctuator is not None
    files = loaded(**settings, ASR_MODEL_MODE="offline")
    assert files.streaming is None and files.offline is not None
    assert not files.capabilities.partials


@pytest.mark.parametrize(
    "settings, text",
    [
        ({}, r"model zh-small is not in /no/such/cache.* funspeech models pull"),
        ({"ASR_MODEL_MODE": "offline"}, "model sensevoice-int8 is not in"),
        (
            {"SHERPA_STREAMING_MODEL": "none", "SHERPA_OFFLINE_MODEL": "None"},
            "set SHERPA_STREAMING_MODEL or SHERPA_OFFLINE_MODEL to a model",
        ),
        (
            {"ASR_MODEL_MODE": "realtime", "SHERPA_STREAMING_MODEL": "none"},
            "set SHERPA_STREAMING_MODEL to a model",
        ),
        ({"SHERPA_STREAMING_MODEL": "/no/such"}, "there is no folder /no/such"),
        ({"SHERPA_STREAMING_MODEL": "a\0b"}, "^SHERPA_STREAMING_MODEL: must be a path"),
        ({"SHERPA_THREADS": 0}, "^SHERPA_THREADS: "),
        ({"SHERPA_SLOTS": "many"}, "^SHERPA_SLOTS: "),
        ({"SHERPA_MAX_BATCH": -1}, "^SHERPA_MAX_BATCH: "),
        ({"ASR_MODEL_MODE": "none"}, "^ASR_MODEL_MODE: "),
    ],
)
def test_nonsense_is_refused_in_one_line(settings: dict[str, object], text: str) -> None:
    with pytest.raises(EngineNotUsable, match=text) as caught:
        loaded(**settings)
    assert "\n" not in str(caught.value)


def test_defaults_are_the_servers() -> None:
    assert SherpaOptions.parse({}) == SherpaOptions.parse(
        Config.model_validate({}).engine_settings("sherpa")
    )


def test_what_the_runtime_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    folder = zipformer2.transducer(tmp_path)
    # Whole, and without metadata to check, but of another shape than a joiner's.
    (folder / "joiner.onnx").write_bytes(b"\x3a\x04\x62\x02\x0a\x00")
    with pytest.raises(EngineNotUsable, match=r"is not usable: [^\n]+$"):
        loaded(SHERPA_STREAMING_MODEL=str(folder))


# Whole sentences


def test_a_batch_gives_what_its_sentences_give_alone(either: OfflineRecognizer) -> None:
    rng = np.random.default_rng(6)
    said = ["".join(rng.choice(list(LETTERS), 1 + i % 9)) for i in range(20)]
    sounds = [np.concatenate([silence(23 * i), padded(spoken(s))]) for i, s in enumerate(said)]
    together = heard(either, sounds)
    assert [found.text for found in together] == said
    assert together == [heard(either, [sound])[0] for sound in sounds]


def test_words_are_inside_the_sentence(either: OfflineRecognizer) -> None:
    sound = padded(spoken(LETTERS))
    [found] = heard(either, [sound])
    assert [word.text for word in found.words] == list(LETTERS)
    times = [time for word in found.words for time in (word.start_ms, word.end_ms)]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= sound.size // 16
    assert heard(either, [sound], RecognitionOptions())[0].words == ()


def test_exports_without_times_declare_none(tmp_path: Path) -> None:
    folder = paraformer.offline(tmp_path, timestamps=False)
    recognizer = loaded(SHERPA_OFFLINE_MODEL=str(folder)).offline
    assert recognizer is not None
    assert not recognizer.capabilities.word_times
    [found] = heard(recognizer, [padded(spoken(LETTERS))])
    assert (found.text, found.words) == (LETTERS, ())


@pytest.mark.parametrize("samples", [0, 1, 399, 959, 960, 1601])
def test_a_sentence_may_be_tiny(
    either: OfflineRecognizer, samples: int, capfd: pytest.CaptureFixture[str]
) -> None:
    found = heard(either, [np.zeros(samples, np.float32), padded(spoken("你"))])
    assert [each.text for each in found] == ["", "你"]
    assert capfd.readouterr().err == ""


def test_damaged_audio_fails_alone(either: OfflineRecognizer) -> None:
    good, bad = padded(spoken("你好")), padded(spoken("你好"))
    bad[99] = np.nan
    found = either.recognize([Segment(sound, OPTIONS) for sound in (good, bad, good)])
    assert [isinstance(each, Exception) for each in found] == [False, True, False]


def test_calls_are_of_similar_lengths(
    either: BatchedRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []

    def heard_nothing(segments: Sequence[Segment]) -> list[Hypothesis]:
        calls.append([segment.samples.size for segment in segments])
        return [Hypothesis("")] * len(segments)

    monkeypatch.setattr(either, "_heard", heard_nothing)
    lengths = [16_000, 1_600, 15_000, 200_000, 1_500, 90_000]
    either.recognize([Segment(silence(length // 16), OPTIONS) for length in lengths])
    if either.capabilities.tags:
        assert calls == [[1_488, 1_600], [14_992, 16_000], [90_000], [200_000]]
    else:
        assert calls == [[length // 16 * 16] for length in sorted(lengths)]


def test_tags_and_figures(offline: OfflineRecognizer) -> None:
    sounds = [padded(spoken("你好"))]
    plain = heard(offline, sounds, RecognitionOptions(punctuation=True))[0]
    assert plain == Hypothesis("你好", language="zh", emotion="happy")
    both = RecognitionOptions(punctuation=True, inverse_text_normalization=True)
    [found] = heard(offline, sounds, both)
    assert (found.text, found.finished) == ("你好。", True)


# Punctuation


def test_marks_come_into_our_own_text(parts: RecognizerParts) -> None:
    assert parts.punctuator is not None
    texts = [
        "你好吗今天了明天",
        "",
        "  ",
        "hello world 你好",
        "3.14吗 好",
        "안녕 세계",
        "été là",
        "你好。",
    ]
    assert list(parts.punctuator.punctuate(texts)) == [
        "你好吗？今天了，明天。",
        "",
        "  ",
        "hello world 你好。",
        "3.14吗？ 好。",
        "안녕 세계",
        "été là",
        "你好。",
    ]


def test_interim_texts_get_no_mark_at_their_end(folders: dict[str, Path]) -> None:
    settings: dict[str, object] = {name: str(path) for name, path in folders.items()}
    interim = loaded(**settings, ASR_ENABLE_REALTIME_PUNC=True).partial_punctuator
    assert interim is not None
    assert list(interim.punctuate(["你好吗今天吗", "hello world"])) == [
        "你好吗？今天吗",
        "hello world",
    ]


class Runtime:
    """Says what it is told to."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def add_punctuation(self, text: str) -> str:
        return self._answer


@pytest.mark.parametrize(
    "text, answer, expected",
    [
        ("hello world", "hello，world。", "hello, world."),
        ("hello你好", "hello，你好？", "hello,你好？"),
        ("3.14", "3，.14。", "3.14."),
        ("你，好", "你，，好。", "你，好。"),
        ("你好", "你们好。", "你好"),
        ("你好", "你。", "你好"),
        ("你好 ", "你好。", "你好。 "),
    ],
)
def test_only_marks_are_taken(text: str, answer: str, expected: str) -> None:
    assert CtPunctuator(Runtime(answer), final=True).punctuate([text]) == [expected]


def test_alignment() -> None:
    assert aligned("a b", "a，b。") == {0: "，", 2: "。"}
    assert aligned("ab", "ba") is None


# Words


@pytest.mark.parametrize(
    "text, tokens, expected",
    [
        ("你好", ["你", "好"], ["你", "好"]),
        ("HELLO WORLD", ["▁HE", "LLO", "▁WORLD"], ["HELLO", "WORLD"]),
        ("你 HELLO 好", ["你", "▁HE", "LL", "O", "好"], ["你", "HELLO", "好"]),
        ("hello world 好", ["hel@@", "lo", "world", "好"], ["hello", "world", "好"]),
        ("I'M", ["▁I", "'", "M"], ["I'M"]),
        ("the cat", [" the", " c", "at"], ["the", "cat"]),
        ("你好，世", ["你", "好", "，", "世"], ["你", "好", "世"]),
        ("你", ["ƌĢ", "ƍ"], []),
        ("", [], []),
    ],
)
def test_words(text: str, tokens: list[str], expected: list[str]) -> None:
    found = words(text, tokens, [0.1 * index for index in range(len(tokens))], 10_000)
    assert [word.text for word in found] == expected


def test_times_end_with_the_next_word_and_the_audio() -> None:
    assert words("你好", ["你", "好"], [0.1, 0.3], 350) == (
        Word("你", 100, 300),
        Word("好", 300, 350),
    )
    assert words("你好", ["你", "好"], [0.1], 350) == ()
