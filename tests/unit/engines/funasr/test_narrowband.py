"""Which of two models hears a sentence, and what it hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.audio.pcm import Float32
from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionOptions
from app.engines.base import Hypothesis, OfflineCapabilities, Segment
from app.engines.funasr.narrowband import NarrowbandRouter
from app.engines.funasr.parts import load_parts
from app.engines.funasr.settings import FunasrOptions

CAPABILITIES = OfflineCapabilities(
    sample_rate=16_000, languages=("zh", "en"), word_times=True, max_batch_s=10.0
)


class Model:
    """Says its name and how much it has heard, and keeps what that was."""

    def __init__(self, name: str, capabilities: OfflineCapabilities) -> None:
        self.name = name
        self.capabilities = capabilities
        self.heard: list[list[Float32]] = []

    def recognize(self, batch: Sequence[Segment]) -> Sequence[Hypothesis | Exception]:
        self.heard.append([each.samples for each in batch])
        return [Hypothesis(f"{self.name} {each.samples.size}") for each in batch]


@pytest.fixture
def wide() -> Model:
    return Model("wide", CAPABILITIES)


@pytest.fixture
def narrow() -> Model:
    return Model("narrow", msgspec.structs.replace(CAPABILITIES, sample_rate=8_000))


def segment(rate: int, samples: Float32) -> Segment:
    return Segment(samples, RecognitionOptions(source_rate=rate))


def tone(hertz: float, rate: int) -> Float32:
    time = np.arange(rate)
    return (0.5 * np.sin(2 * np.pi * hertz * time / rate)).astype(np.float32)


def test_each_goes_to_the_model_for_its_source(wide: Model, narrow: Model) -> None:
    rates = (16_000, 8_000, 44_100, 8_001, 8_000, 16_000)
    batch = [segment(rate, np.zeros(1_600 + 2 * k, np.float32)) for k, rate in enumerate(rates)]
    found = NarrowbandRouter(wide, narrow).recognize(batch)
    assert [each.text for each in found if isinstance(each, Hypothesis)] == [
        "wide 1600", "narrow 801", "wide 1604", "wide 1606", "narrow 804", "wide 1610",
    ]  # fmt: skip
    assert len(wide.heard) == len(narrow.heard) == 1


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_model_without_a_sentence_is_not_asked(wide: Model, narrow: Model, rate: int) -> None:
    router = NarrowbandRouter(wide, narrow)
    assert len(router.recognize([segment(rate, np.zeros(1_600, np.float32))])) == 1
    assert sorted([len(wide.heard), len(narrow.heard)]) == [0, 1]
    assert router.recognize([]) == []


def test_the_sound_is_the_same_at_half_the_rate(wide: Model, narrow: Model) -> None:
    NarrowbandRouter(wide, narrow).recognize([segment(8_000, tone(1_000, 16_000))])
    [[heard]] = narrow.heard
    assert heard.dtype == np.float32
    middle = slice(400, -400)
    np.testing.assert_allclose(heard[middle], tone(1_000, 8_000)[middle], atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_stays_one(wide: Model, narrow: Model, bad: float) -> None:
    spoilt = tone(500, 16_000)
    spoilt[8_000] = bad
    batch = [segment(8_000, spoilt), segment(8_000, tone(500, 16_000))]
    NarrowbandRouter(wide, narrow).recognize(batch)
    assert [bool(np.isfinite(each).all()) for each in narrow.heard[0]] == [False, True]


@pytest.mark.parametrize("samples", [0, 1, 2, 399, 401])
def test_a_sentence_may_be_tiny(wide: Model, narrow: Model, samples: int) -> None:
    NarrowbandRouter(wide, narrow).recognize([segment(8_000, np.zeros(samples, np.float32))])
    assert abs(narrow.heard[0][0].size - samples / 2) <= 0.5


def test_a_sentence_is_no_longer_than_before(wide: Model, narrow: Model) -> None:
    for samples in range(16_000, 16_032):
        batch = [segment(8_000, np.zeros(samples, np.float32))]
        NarrowbandRouter(wide, narrow).recognize(batch)
        assert narrow.heard[-1][0].size * 1000 // 8_000 <= samples * 1000 // 16_000


def test_what_only_one_of_them_adds_is_left_to_the_caller(wide: Model, narrow: Model) -> None:
    wide.capabilities = msgspec.structs.replace(
        CAPABILITIES, languages=("zh", "ja"), punctuation=True, tags=True, max_batch_s=5.0
    )
    both = NarrowbandRouter(wide, narrow).capabilities
    assert both == msgspec.structs.replace(
        CAPABILITIES, languages=("zh", "ja", "en"), tags=True, max_batch_s=5.0
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"FUNASR_OFFLINE_MODEL": "paraformer-zh-8k"}, "belongs in FUNASR_OFFLINE_MODEL_8K"),
        ({"FUNASR_OFFLINE_MODEL_8K": "paraformer-zh"}, "belongs in FUNASR_OFFLINE_MODEL"),
        (
            {"FUNASR_OFFLINE_MODEL": "none", "FUNASR_OFFLINE_MODEL_8K": "paraformer-zh-8k"},
            "without FUNASR_OFFLINE_MODEL",
        ),
    ],
)
def test_a_published_model_in_the_wrong_place_is_refused_before_the_download(
    tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    options = FunasrOptions.parse(
        {**settings, "MODELSCOPE_CACHE": str(tmp_path), "OFFLINE": True, "FUNASR_THREADS": 1}
    )
    with pytest.raises(EngineNotUsable) as caught:
        load_parts("cpu", options, lambda doing: None)
    assert told in str(caught.value) and "\n" not in str(caught.value)
