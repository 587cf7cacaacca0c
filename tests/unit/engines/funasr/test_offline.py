"""Whole sentences in batches, whatever the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from app.audio.pcm import Float32
from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionOptions
from app.engines.base import Hypothesis, OfflineCapabilities, Segment
from app.engines.funasr.background import Background
from app.engines.funasr.offline import BatchedRecognizer, load_offline
from app.engines.funasr.settings import Dtype, FunasrOptions
from tests.support import random_offline
from tests.support.random_offline import noise, paraformer

OPTIONS = FunasrOptions(threads=1)
WORDS = RecognitionOptions(words=True)
LENGTHS = (64_000, 20_000, 400, 35_000, 399, 50_000, 8_000, 63_000, 0, 47_999)

Build = Callable[[Path], Path]


def narrow(folder: Path) -> Path:
    """A Paraformer for 8 kHz."""
    return paraformer(folder, sample_rate=8_000)


MODELS = pytest.mark.parametrize(
    "build", [random_offline.paraformer, random_offline.sensevoice, random_offline.seaco]
)


def nothing(_: str) -> None:
    """No progress is of interest."""


def load(folder: Path, dtype: Dtype = "fp32") -> BatchedRecognizer:
    return load_offline(folder, "cpu", replace(OPTIONS, dtype=dtype), nothing)


def segments(audio: Sequence[Float32]) -> list[Segment]:
    return [Segment(samples, WORDS) for samples in audio]


@MODELS
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_ragged_batch_gives_what_each_gives_alone(
    build: Build, tmp_path: Path, dtype: Dtype
) -> None:
    recognizer = load(build(tmp_path), dtype)
    batch = segments([noise(50 + k, samples) for k, samples in enumerate(LENGTHS)])
    alone = [recognizer.recognize([segment])[0] for segment in batch]
    assert list(recognizer.recognize(batch)) == alone
    assert list(recognizer.recognize(batch[::-1])) == alone[::-1]
    texts = [hypothesis.text for hypothesis in alone if isinstance(hypothesis, Hypothesis)]
    assert len(texts) == len(batch)
    assert len(set(texts)) > 5


@MODELS
def test_one_padded_batch_gives_what_each_gives_alone(build: Build, tmp_path: Path) -> None:
    """Without the cutting into batches of similar length."""
    model = load(build(tmp_path))._model
    audio = [noise(70 + k, samples) for k, samples in enumerate((64_000, 400, 30_000, 8_000))]
    with Background("cpu", 1).running():
        alone = [model.transcribe([samples], [WORDS])[0] for samples in audio]
        assert model.transcribe(audio, [WORDS] * len(audio)) == alone


@MODELS
def test_words_are_in_order_and_inside_the_audio(build: Build, tmp_path: Path) -> None:
    recognizer = load(build(tmp_path))
    [found] = recognizer.recognize(segments([noise(50, 64_000)]))
    assert isinstance(found, Hypothesis)
    assert len(found.words) > 3
    times = [(word.start_ms, word.end_ms) for word in found.words]
    assert times == sorted(times)
    assert all(0 <= start <= end <= 4_000 for start, end in times)
    assert "".join(word.text for word in found.words) == found.text
    [silent] = recognizer.recognize([Segment(noise(50, 64_000), RecognitionOptions())])
    assert isinstance(silent, Hypothesis)
    assert silent.words == ()
    assert silent.text == found.text


@MODELS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_fail_alone(build: Build, tmp_path: Path, bad: float) -> None:
    recognizer = load(build(tmp_path))
    good = segments([noise(1, 16_000), noise(2, 16_000)])
    spoilt = noise(3, 16_000)
    spoilt[8_000] = bad
    found = recognizer.recognize([good[0], Segment(spoilt, WORDS), good[1]])
    assert isinstance(found[1], ValueError)
    assert [found[0], found[2]] == list(recognizer.recognize(good))


@MODELS
def test_hard_audio_passes(build: Build, tmp_path: Path) -> None:
    recognizer = load(build(tmp_path))
    time = np.arange(16_000)
    square = np.where(time // 40 % 2, 1.0, -1.0).astype(np.float32)
    hard = [np.zeros(16_000, np.float32), square, square * 1e6, np.ones(16_000, np.float32)]
    found = recognizer.recognize(segments(hard))
    assert all(isinstance(hypothesis, Hypothesis) for hypothesis in found)


@MODELS
def test_weights_that_overflow_are_told(build: Build, tmp_path: Path) -> None:
    folder = build(tmp_path)
    weights = torch.load(folder / "model.pt")
    weights["encoder.after_norm.weight"].fill_(torch.nan)
    torch.save(weights, folder / "model.pt")
    [found] = load(folder).recognize(segments([noise(1, 16_000)]))
    assert isinstance(found, ArithmeticError)


@MODELS
def test_half_precision_runs(build: Build, tmp_path: Path) -> None:
    found = load(build(tmp_path), "bf16").recognize(segments([noise(1, 64_000)]))
    assert isinstance(found[0], Hypothesis)
    assert found[0].text


class Fragile:
    """A model that takes no batch with a certain length in it."""

    capabilities = OfflineCapabilities(
        sample_rate=16_000, languages=("zh",), word_times=False, max_batch_s=10.0
    )

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def transcribe(
        self, samples: Sequence[Float32], options: Sequence[RecognitionOptions]
    ) -> list[Hypothesis | Exception]:
        self.sizes.append(len(samples))
        if any(part.size == 10_001 for part in samples):
            raise MemoryError("too much")
        return [Hypothesis(str(part.size)) for part in samples]


def test_a_batch_that_fails_is_tried_one_by_one() -> None:
    model = Fragile()
    recognizer = BatchedRecognizer(model, Background("cpu", 1))
    batch = segments([np.zeros(size, np.float32) for size in (10_000, 10_001, 10_002)])
    first, second, third = recognizer.recognize(batch)
    assert isinstance(second, MemoryError)
    assert [first, third] == [Hypothesis("10000"), Hypothesis("10002")]
    assert model.sizes == [3, 1, 1, 1]


def test_batches_are_no_longer_than_the_model_likes() -> None:
    model = Fragile()
    recognizer = BatchedRecognizer(model, Background("cpu", 1))
    batch = segments([np.zeros(48_000, np.float32)] * 7)
    assert len(recognizer.recognize(batch)) == 7
    assert model.sizes == [3, 3, 1]


def test_a_model_for_8_khz_hears_as_much_as_one_for_16_khz(tmp_path: Path) -> None:
    """Lengths, times and batches are of its own rate."""
    recognizer = load_offline(narrow(tmp_path), "cpu", OPTIONS, nothing, sample_rate=8_000)
    assert recognizer.capabilities.sample_rate == 8_000
    batch = segments([noise(50 + k, samples // 2) for k, samples in enumerate(LENGTHS)])
    alone = [recognizer.recognize([segment])[0] for segment in batch]
    assert list(recognizer.recognize(batch)) == alone
    first, too_short = alone[0], alone[4]
    assert isinstance(first, Hypothesis)
    assert len(first.words) > 3
    times = [time for word in first.words for time in (word.start_ms, word.end_ms)]
    assert times == sorted(times)
    assert 3_000 < times[-1] <= 4_000
    assert too_short == Hypothesis("", finished=True)


@pytest.mark.parametrize(("rate", "wanted"), [(8_000, 16_000), (16_000, 8_000)])
def test_a_model_for_another_rate_is_refused(tmp_path: Path, rate: int, wanted: int) -> None:
    folder = paraformer(tmp_path, sample_rate=rate)
    with pytest.raises(EngineNotUsable) as caught:
        load_offline(folder, "cpu", OPTIONS, nothing, sample_rate=wanted)
    settings = {8_000: "FUNASR_OFFLINE_MODEL_8K", 16_000: "FUNASR_OFFLINE_MODEL"}
    text = str(caught.value)
    assert f"{rate:,} Hz" in text and f"belongs in {settings[rate]}" in text and "\n" not in text


@pytest.mark.parametrize("build", [random_offline.sensevoice, random_offline.seaco])
def test_only_a_paraformer_is_computed_at_8_khz(build: Build, tmp_path: Path) -> None:
    folder = build(tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    config["frontend_conf"]["fs"] = 8_000
    (folder / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    with pytest.raises(EngineNotUsable, match=r"frontend_conf\.fs"):
        load_offline(folder, "cpu", OPTIONS, nothing, sample_rate=8_000)


def test_nothing_is_loaded_that_is_not_known(tmp_path: Path) -> None:
    folder = random_offline.paraformer(tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))

    def refused(changed: dict[str, object]) -> str:
        (folder / "config.yaml").write_text(yaml.safe_dump(changed), "utf-8")
        with pytest.raises(EngineNotUsable) as caught:
            load(folder)
        return str(caught.value)

    assert "Conformer" in refused({**config, "model": "Conformer"})
    assert "\n" not in refused({**config, "encoder": "ConformerEncoder"})
    wider = {**config["encoder_conf"], "linear_units": 256}
    assert "model.pt" in refused({**config, "encoder_conf": wider})
    strange = {**config["encoder_conf"], "windowed": True}
    assert "windowed" in refused({**config, "encoder_conf": strange})
    blind = {**config["decoder_conf"], "num_blocks": 4}
    assert "att_layer_num" in refused({**config, "decoder_conf": blind})
