"""The tiny models that sherpa's tests stand on, on the real runtime.

Calls that would end the process are not made here: ``decode_streams`` with no stream, or with one
that is not ready.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker

from app.audio.pcm import Float32
from app.audio.vad import WINDOW_SAMPLES, SileroVad
from tests.support.sherpa import (
    kokoro,
    matcha,
    paraformer,
    punctuation,
    sense_voice,
    speaker,
    speech,
    vits,
    zipformer1,
    zipformer2,
    zipvoice,
)
from tests.support.sherpa.graphs import Graph, Value, last
from tests.support.sherpa.hearing import alone, padded, sentences, together
from tests.support.sherpa.tones import (
    GAP_MS,
    LEAD_MS,
    LETTERS,
    RATE,
    TONE_MS,
    hummed,
    silence,
    spoken,
    tones,
)

Build = Callable[[Path], Path]
Load = Callable[[Path], Any]
Models = Callable[[str], Any]

STREAMING: dict[str, tuple[Build, Load]] = {
    "zipformer2, greedy": (zipformer2.transducer, zipformer2.load_transducer),
    "zipformer2, beam": (zipformer2.transducer, zipformer2.load_beam_search),
    "zipformer2, CTC": (zipformer2.ctc, zipformer2.load_ctc),
    "zipformer1, beam": (zipformer1.transducer, zipformer2.load_beam_search),
    "streaming Paraformer": (paraformer.streaming, paraformer.load_streaming),
}
OFFLINE: dict[str, tuple[Build, Load]] = {
    "Paraformer": (paraformer.offline, paraformer.load_offline),
    "SenseVoice": (sense_voice.sense_voice, sense_voice.load_sense_voice),
}
SPEAKING: dict[str, tuple[Build, Load]] = {
    "Melo": (vits.melo, vits.load_vits),
    "VITS": (vits.vits, vits.load_vits),
    "Matcha": (matcha.matcha, matcha.load_matcha),
    "Kokoro": (kokoro.kokoro, kokoro.load_kokoro),
}
OTHERS: dict[str, tuple[Build, Load]] = {
    "ZipVoice": (zipvoice.zipvoice, zipvoice.load_zipvoice),
    "ct-transformer": (punctuation.ct_transformer, punctuation.load_punctuation),
    "speaker": (speaker.speaker, speaker.load_speaker),
}
WITH_HOTWORDS = [kind for kind in STREAMING if "beam" in kind]
AMBIGUOUS = tones([0, (1, 2), 3])
"""你, then 好 and 世 at once, then 界."""
LETTER_S = (TONE_MS + GAP_MS) / 1000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The loaded model of a kind, made when first asked for."""
    found: dict[str, Any] = {}
    kinds = STREAMING | OFFLINE | SPEAKING | OTHERS

    def model(kind: str) -> Any:
        if kind not in found:
            build, load = kinds[kind]
            found[kind] = load(build(tmp_path_factory.mktemp("model")))
        return found[kind]

    return model


def texts_and_sounds(count: int) -> tuple[list[str], list[Float32]]:
    """Texts of one to eight letters, and how they sound after up to half a second."""
    rng = random.Random(6)
    texts = ["".join(rng.choices(LETTERS, k=rng.randint(1, 8))) for _ in range(count)]
    sounds = [np.concatenate([silence(rng.randint(0, 500)), spoken(text)]) for text in texts]
    return texts, sounds


def heard_by(models: Models, kind: str, samples: Float32) -> str:
    if kind in OFFLINE:
        [result] = sentences(models(kind), [samples])
    else:
        result = alone(models(kind), samples)
    text: str = result.text
    return text


@pytest.mark.parametrize("kind", [*STREAMING, *OFFLINE])
def test_recognisers_hear_what_was_spoken(models: Models, kind: str) -> None:
    for shift_ms in range(0, 70, 13):
        samples = np.concatenate([silence(shift_ms), spoken("你你好世界天气今今明")])
        assert heard_by(models, kind, samples) == "你你好世界天气今今明"


@pytest.mark.parametrize("kind", [*STREAMING, *OFFLINE])
def test_recognisers_hear_nothing_in_silence(models: Models, kind: str) -> None:
    assert heard_by(models, kind, silence(1500)) == ""


@pytest.mark.parametrize("kind", [*STREAMING, *OFFLINE])
def test_recognisers_hear_tones_over_a_hum(models: Models, kind: str) -> None:
    assert heard_by(models, kind, hummed(LETTERS)) == LETTERS


def test_vad_takes_the_hum_for_speech() -> None:
    vad = SileroVad()

    def share_of_speech(samples: Float32) -> float:
        windows = samples[: samples.size // WINDOW_SAMPLES * WINDOW_SAMPLES]
        state = vad.new_state()
        found = [
            vad.probabilities([state], window[None])[0] > 0.5
            for window in windows.reshape(-1, WINDOW_SAMPLES)
        ]
        return sum(map(bool, found)) / len(found)

    assert share_of_speech(hummed(LETTERS, lead_ms=100, after_ms=0)) > 0.9
    assert share_of_speech(spoken(LETTERS)) < 0.1


# The runtime gives none for the streaming Paraformer.
@pytest.mark.parametrize("kind", [*[k for k in STREAMING if "Paraformer" not in k], *OFFLINE])
def test_times_are_those_of_the_tones(models: Models, kind: str) -> None:
    if kind in OFFLINE:
        [result] = sentences(models(kind), [spoken(LETTERS)])
    else:
        result = alone(models(kind), spoken(LETTERS))
    expected = [LEAD_MS / 1000 + LETTER_S * index for index in range(len(LETTERS))]
    assert result.timestamps == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("kind", list(STREAMING))
def test_streams_in_shared_calls_give_what_each_gives_alone(models: Models, kind: str) -> None:
    recognizer = models(kind)
    texts, sounds = texts_and_sounds(20)
    results, calls = together(recognizer, sounds)
    assert max(calls) >= 5 > min(calls)
    singles = [alone(recognizer, sound) for sound in sounds]
    assert [one.text for one in results] == texts
    assert [one.timestamps for one in results] == [one.timestamps for one in singles]
    assert [one.ys_probs for one in results] == [one.ys_probs for one in singles]


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (zipformer2, "zipformer2, greedy"),
        (zipformer2, "zipformer2, CTC"),
        (zipformer1, "zipformer1, beam"),
    ],
)
def test_texts_depend_on_the_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, kind: str
) -> None:
    def forgotten(graph: Graph, levels: Value) -> Value:
        return graph.op("Mul", last(graph, levels), graph.floats(0.0))

    monkeypatch.setattr(module, "last", forgotten)
    build, load = STREAMING[kind]
    recognizer = load(build(tmp_path))
    texts, sounds = texts_and_sounds(20)
    heard = [alone(recognizer, sound).text for sound in sounds]
    assert sum(one != text for one, text in zip(heard, texts, strict=True)) >= 10


@pytest.mark.parametrize("kind", WITH_HOTWORDS)
def test_hotwords_change_the_text_of_their_stream_only(models: Models, kind: str) -> None:
    hotwords = ["你世界" if index % 2 else "" for index in range(20)]
    results, calls = together(models(kind), [AMBIGUOUS] * 20, hotwords)
    assert max(calls) > 1
    assert [one.text for one in results] == ["你好界", "你世界"] * 10


@pytest.mark.parametrize("kind", list(OFFLINE))
def test_sentences_in_one_call_give_what_each_gives_alone(models: Models, kind: str) -> None:
    texts, sounds = texts_and_sounds(20)
    results = sentences(models(kind), sounds)
    singles = [sentences(models(kind), [sound])[0] for sound in sounds]
    assert [one.text for one in results] == texts
    assert [one.timestamps for one in results] == [one.timestamps for one in singles]


def test_paraformer_without_times(tmp_path: Path) -> None:
    folder = paraformer.offline(tmp_path, timestamps=False)
    [result] = sentences(paraformer.load_offline(folder), [spoken("天气")])
    assert (result.text, result.timestamps) == ("天气", [])


def test_sense_voice_has_tags_and_figures_by_stream(models: Models) -> None:
    figures = [{"use_itn": "1"}, {"use_itn": "0"}, {"use_itn": "1"}]
    sounds = [spoken("你好"), spoken("世界天"), spoken(LETTERS)]
    results = sentences(models("SenseVoice"), sounds, figures)
    assert [one.text for one in results] == ["你好。", "世界天", f"{LETTERS}。"]
    tags = [(one.lang, one.emotion, one.event) for one in results]
    assert tags == [("<|zh|>", "<|HAPPY|>", "<|Speech|>")] * 3


def test_sense_voice_has_one_language_a_recogniser(tmp_path: Path) -> None:
    folder = sense_voice.sense_voice(tmp_path)
    recognizer = sense_voice.load_sense_voice(folder, language="ja", figures=True)
    [result] = sentences(recognizer, [spoken("今天")], [{"language": "en"}])
    assert (result.text, result.lang) == ("今天。", "<|ja|>")


def collector() -> tuple[list[Float32], Callable[[Float32, float], int]]:
    """What a synthesiser has spoken so far, and the callback that fills it."""
    pieces: list[Float32] = []

    def callback(samples: Float32, _progress: float) -> int:
        pieces.append(samples)
        return 1

    return pieces, callback


def as_recogniser_gets_it(samples: Any, rate: int) -> Float32:
    resampled: Float32 = soxr.resample(np.array(samples, np.float32), rate, RATE)
    return padded(resampled)


@pytest.mark.parametrize("hearer", [*STREAMING, *OFFLINE])
@pytest.mark.parametrize("kind", list(SPEAKING))
def test_recognisers_hear_what_synthesisers_speak(models: Models, kind: str, hearer: str) -> None:
    audio = models(kind).generate("你好世界，天气今明。", sid=0, speed=1.0)
    samples = as_recogniser_gets_it(audio.samples, audio.sample_rate)
    assert heard_by(models, hearer, samples) == LETTERS


@pytest.mark.parametrize("hearer", [*STREAMING, *OFFLINE])
def test_recognisers_hear_what_a_clone_speaks(models: Models, hearer: str) -> None:
    synthesizer = models("ZipVoice")
    for steps in (1, 4):
        config = zipvoice.in_voice_of(spoken("你好"), "你好", steps=steps)
        pieces, callback = collector()
        synthesizer.generate("天气今明", config, callback=callback)
        samples = as_recogniser_gets_it(np.concatenate(pieces), synthesizer.sample_rate)
        assert heard_by(models, hearer, samples) == "天气今明"


@pytest.mark.parametrize("kind", list(SPEAKING))
def test_speed_and_words_of_the_lexicon(models: Models, kind: str) -> None:
    def seconds(text: str, speed: float) -> float:
        audio = models(kind).generate(text, sid=0, speed=speed)
        return len(audio.samples) / float(audio.sample_rate)

    assert seconds("你好世界", 1.0) == pytest.approx(4 * LETTER_S, abs=0.02)
    assert seconds("你好世界", 2.0) == pytest.approx(2 * LETTER_S, abs=0.02)
    assert seconds("hello 你", 1.0) == pytest.approx(3 * LETTER_S, abs=0.02)


@pytest.mark.parametrize(("kind", "levels"), [("VITS", [1, 1 / 2, 1 / 3]), ("Kokoro", [1, 0.5])])
def test_voices_differ_in_loudness(models: Models, kind: str, levels: list[float]) -> None:
    synthesizer = models(kind)
    assert synthesizer.num_speakers == len(levels)
    peaks = [
        max(synthesizer.generate("你好", sid=voice, speed=1.0).samples)
        for voice in range(len(levels))
    ]
    assert [peak / peaks[0] for peak in peaks] == pytest.approx(levels, rel=0.01)


@pytest.mark.parametrize("kind", list(SPEAKING))
def test_each_sentence_comes_by_itself(models: Models, kind: str) -> None:
    # Kokoro and Matcha join short sentences and cut long ones.
    pieces, callback = collector()
    models(kind).generate(f"{LETTERS * 2}。" * 3, callback=callback)
    assert len(pieces) == 3


def test_punctuation_follows_its_words(models: Models) -> None:
    marked = models("ct-transformer").add_punctuation("你好吗今天天气好了明天和今天")
    assert marked == "你好吗？今天天气好了，明天和、今天。"


def test_speakers_are_told_apart_by_their_tones(models: Models) -> None:
    def unit(text: str) -> Any:
        found = speaker.embedding(models("speaker"), spoken(text))
        return found / np.linalg.norm(found)

    assert unit("你你你") @ unit("你你你你") > 0.99
    assert unit("你你你") @ unit("明明明") < 0.5


@pytest.mark.parametrize("kind", [*STREAMING, *OFFLINE, *SPEAKING])
def test_vocabularies_are_those_of_the_tokens(tmp_path: Path, kind: str) -> None:
    build, _ = (STREAMING | OFFLINE | SPEAKING)[kind]
    folder = build(tmp_path)
    lines = (folder / "tokens.txt").read_text("utf-8").splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == list(map(str, range(len(lines))))
    sizes = {
        entry.value
        for path in folder.glob("*.onnx")
        for entry in onnx.load(path).metadata_props
        if entry.key == "vocab_size"
    }
    # Some kinds have no such entry: their size is that of an output, or does not matter.
    assert sizes <= {str(len(lines))}


def test_lexicon_names_only_phones_that_there_are(tmp_path: Path) -> None:
    speech.write_lexicon(tmp_path)
    lines = (tmp_path / "lexicon.txt").read_text("utf-8").splitlines()
    assert {phone for line in lines for phone in line.split()[1:]} <= set(speech.PHONES)
