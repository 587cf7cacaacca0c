"""Offline recognition, punctuation and VAD give what FunASR gives, input by input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from msgspec.structs import replace

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions
from app.engines.funasr.background import Background
from app.engines.funasr.checkpoint import read_normalisation
from app.engines.funasr.features import STACK, STRIDE, WIDTH
from app.engines.funasr.offline import load_model
from app.engines.funasr.offline_features import WholeFeatures, padded
from app.engines.funasr.paraformer import Paraformer, Spoken
from app.engines.funasr.punctuation import load_punctuator
from app.engines.funasr.seaco import Seaco
from app.engines.funasr.sensevoice import SenseVoice
from app.engines.funasr.settings import FunasrOptions
from app.engines.funasr.vad import WINDOW_SAMPLES, load_detector
from tests.support import random_offline

RunReference = Callable[..., None]

OPTIONS: Final = FunasrOptions(threads=1)
LENGTHS: Final = (
    64_000,
    20_000,
    400,
    35_000,
    50_000,
    8_000,
    63_000,
    559,
    560,
    1_359,
    1_360,
    47_999,
)


@pytest.fixture
def audio() -> list[Float32]:
    return [random_offline.noise(50 + k, samples) for k, samples in enumerate(LENGTHS)]


def funasr(
    run: RunReference,
    folder: Path,
    audio: Sequence[Float32],
    told: Sequence[str] = (),
    *,
    names: Sequence[str] = (),
) -> Any:
    """What FunASR makes of each audio; ``told``: options for each, ``|name=value``."""
    given, out = folder / "given.npz", folder / "out.json"
    names = names or [f"{k}{told[k] if told else ''}" for k in range(len(audio))]
    arrays: dict[str, Any] = dict(zip(names, audio, strict=True))
    np.savez(given, **arrays)
    run("reference_offline.py", folder, given, out)
    return json.loads(out.read_text("utf-8"))


def funasr_texts(run: RunReference, folder: Path, texts: Sequence[str]) -> list[str]:
    given, out = folder / "given.json", folder / "out.json"
    given.write_text(json.dumps(list(texts)), "utf-8")
    run("reference_offline.py", folder, given, out)
    found: list[str] = json.loads(out.read_text("utf-8"))
    return found


@pytest.mark.parametrize("sample_rate", [16_000, 8_000])
def test_paraformer(
    run_reference: RunReference, tmp_path: Path, audio: list[Float32], sample_rate: int
) -> None:
    folder = random_offline.paraformer(tmp_path, sample_rate=sample_rate)
    random_offline.normalisation(folder, 560)
    model = load_model(folder, "cpu", OPTIONS)
    assert isinstance(model, Paraformer)
    with Background("cpu", 1).running():
        found = model.spoken(audio, [RecognitionOptions()] * len(audio))
    *expected, features = funasr(
        run_reference, folder, [*audio, audio[0]], names=[*map(str, range(len(audio))), "features"]
    )
    extract = WholeFeatures(STACK, STRIDE, read_normalisation(folder, WIDTH), sample_rate)
    own, _ = extract(*padded(audio[:1], "cpu"))
    np.testing.assert_allclose(own[0], features, atol=1e-3)
    assert [spoken.ids for spoken in found if not isinstance(spoken, Exception)] == expected
    assert sum(map(len, expected)) > 50


def test_seaco(run_reference: RunReference, tmp_path: Path, audio: list[Float32]) -> None:
    folder = random_offline.seaco(tmp_path)
    model = load_model(folder, "cpu", OPTIONS)
    assert isinstance(model, Seaco)
    names = random_offline.characters()
    few = [names[9] + names[40], names[100], names[17] + names[18] + names[19], "hello"]
    many = [names[3 + k] + names[200 - k] for k in range(80)]
    hotwords = [(few, many, [])[place % 3] for place in range(len(audio))]
    told = ["|hotword=" + " ".join(words) if words else "" for words in hotwords]
    options = [
        RecognitionOptions(hotwords=tuple((word, 1.0) for word in words)) for words in hotwords
    ]
    with Background("cpu", 1).running():
        found = model.spoken(audio, options)
        plain = model.spoken(audio, [RecognitionOptions()] * len(audio))
    expected = funasr(run_reference, folder, audio, told)
    for place, (ids, times) in enumerate(expected):
        spoken, without = found[place], plain[place]
        assert isinstance(spoken, Spoken)
        assert isinstance(without, Spoken)
        assert spoken.ids == ids
        assert (spoken.ids == without.ids) == (not hotwords[place] or not ids)
        # FunASR's last token may end behind the audio.
        inside = np.clip(times, 0, audio[place].size // 16)
        own = [*zip(spoken.begins_ms, spoken.ends_ms, strict=True)]
        np.testing.assert_allclose(own, inside, atol=1)


def test_sensevoice(run_reference: RunReference, tmp_path: Path, audio: list[Float32]) -> None:
    folder = random_offline.sensevoice(tmp_path)
    model = load_model(folder, "cpu", OPTIONS)
    assert isinstance(model, SenseVoice)
    plain = RecognitionOptions()
    figures = replace(plain, punctuation=True, inverse_text_normalization=True)
    languages = ("auto", "zh", "en", "yue", "ja", "ko")
    told, options = [], []
    for place in range(len(audio)):
        language = languages[place % len(languages)]
        with_figures = place % 2 == 1
        told.append(f"|language={language}|use_itn={with_figures}")
        options.append(
            replace(
                figures if with_figures else plain,
                language=None if language == "auto" else f"{language}-X",
            )
        )
    with Background("cpu", 1).running():
        found = model.paths(audio, options)
    expected = funasr(run_reference, folder, audio, told)
    assert [path.ids for path in found if not isinstance(path, Exception)] == expected
    assert sum(map(len, expected)) > 50


TEXTS: Final = [
    "一",
    "hello",
    "一丁丂七丄丅丆万丈三上下丌不与",
    "hello world",
    "丌hello world不与hello",
    "".join(chr(0x4E00 + k * 7 % 290) for k in range(19)),
    "".join(chr(0x4E00 + k * 11 % 290) for k in range(20)),
    "".join(chr(0x4E00 + k * 13 % 290) for k in range(21)),
    "".join(chr(0x4E00 + k * k % 290) for k in range(150)),
    "".join(chr(0x4E00 + k * k * k % 290) for k in range(263)),
    " ".join(("hello", "world", "hello hello", "world 一丁七")[k * k % 4] for k in range(90)),
    "".join(chr(0x4E00 + k % 3) for k in range(450)),
]


@pytest.mark.parametrize(("seed", "stops"), [(1, -0.5), (2, -0.5), (2, -100.0)])
def test_final_punctuation(
    run_reference: RunReference, tmp_path: Path, seed: int, stops: float
) -> None:
    folder = random_offline.punctuation(tmp_path, realtime=False, seed=seed, stops=stops)
    punctuator = load_punctuator(folder, "cpu", OPTIONS, print, realtime=False)
    found = punctuator.punctuate(TEXTS)
    expected = funasr_texts(run_reference, folder, TEXTS)
    # FunASR puts a space before Latin words where its pieces happen to begin.
    assert list(found) == [re.sub("^ |(?<=[。？]) ", "", text) for text in expected]
    assert all(mark in "".join(found) for mark in "，。、,.")


@pytest.mark.parametrize("seed", [1, 2])
def test_interim_punctuation(run_reference: RunReference, tmp_path: Path, seed: int) -> None:
    folder = random_offline.punctuation(tmp_path, realtime=True, seed=seed)
    punctuator = load_punctuator(folder, "cpu", OPTIONS, print, realtime=True)
    texts = [text for text in TEXTS if len(text) > 1 and text != "hello"]  # FunASR fails on one
    found = punctuator.punctuate(texts)
    expected = funasr_texts(run_reference, folder, texts)
    ascii_marks = {"，": ",", "。": ".", "？": "?"}
    assert list(found) == [
        re.sub("(?<=[a-z])[，。？]", lambda match: ascii_marks[match[0]], text) for text in expected
    ]
    assert all(mark in "".join(found) for mark in "，。？、")


def test_voice_activity(run_reference: RunReference, tmp_path: Path) -> None:
    folder = random_offline.vad(tmp_path)
    detector = load_detector(folder, "cpu", OPTIONS, print)
    audio = random_offline.noise(7, WINDOW_SAMPLES * 40)
    audio[9_600:19_200] *= 0.01
    state = detector.new_state()
    rows: list[float] = []
    for window in audio.reshape(-1, 1, WINDOW_SAMPLES):
        silence, there = detector.silence([state], window)
        rows += silence[there > 0].tolist()
    [expected] = funasr(run_reference, folder, [audio])
    assert len(rows) == len(expected) == 2 + 39 * 6
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert np.ptp(rows) > 0.1
