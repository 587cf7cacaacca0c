"""SeACo Paraformer: hotwords and times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.core.speech import RecognitionOptions
from app.engines.base import Hypothesis, Segment
from app.engines.funasr.background import Background
from app.engines.funasr.offline import load_model, load_offline
from app.engines.funasr.offline_config import TimedPredictorConfig
from app.engines.funasr.offline_layers import BareDecoder
from app.engines.funasr.seaco import (
    Hotwords,
    Seaco,
    TimedPredictor,
    spans_of,
)
from app.engines.funasr.settings import FunasrOptions
from tests.support import random_offline
from tests.support.random_offline import noise

NAMES = ["<blank>", "<s>", "</s>", "阿", "里", "hel@@", "lo", "world", "<unk>"]
HOTWORDS = Hotwords(NAMES, {"hello": ["hel@@", "lo"]})


@pytest.mark.parametrize(
    ("word", "tokens"),
    [
        ("阿里", [3, 4]),
        ("Hello", [5, 6]),
        ("阿里 hello", [3, 4, 5, 6]),
        ("world阿", [7, 3]),
        ("巴巴", []),
        ("阿巴", []),
        ("", []),
        ("  ", []),
    ],
)
def test_hotwords_as_tokens(word: str, tokens: list[int]) -> None:
    assert HOTWORDS.tokens(word) == tokens


def test_hotwords_of_one_stream_do_not_touch_another(tmp_path: Path) -> None:
    """In a ragged batch, some with hotwords, some with more than are looked at closely."""
    recognizer = load_offline(
        random_offline.seaco(tmp_path), "cpu", FunasrOptions(threads=1), lambda _: None
    )
    assert recognizer.capabilities.hotwords
    names = random_offline.characters()
    few = ((names[9] + names[40], 1.0), (names[100], 5.0), ("hello", 1.0), ("unwritable", 1.0))
    many = tuple((names[3 + k] + names[200 - k], 1.0) for k in range(80))
    batch = [
        Segment(noise(50 + k, samples), RecognitionOptions(words=True, hotwords=hotwords))
        for k, (samples, hotwords) in enumerate(
            [(64_000, few), (60_000, ()), (8_000, many), (50_000, many), (400, few), (62_000, few)]
        )
    ]
    alone = [recognizer.recognize([segment])[0] for segment in batch]
    assert list(recognizer.recognize(batch)) == alone
    [plain] = recognizer.recognize([Segment(batch[0].samples, RecognitionOptions(words=True))])
    assert isinstance(plain, Hypothesis)
    assert plain != alone[0]
    unwritable = RecognitionOptions(words=True, hotwords=(("unwritable", 1.0),))
    assert recognizer.recognize([Segment(batch[0].samples, unwritable)]) == [plain]
    unwanted = tuple((word, weight) for (word, _), weight in zip(few, (0, -1, -6, -2), strict=True))
    unwished = RecognitionOptions(words=True, hotwords=unwanted)
    assert recognizer.recognize([Segment(batch[0].samples, unwished)]) == [plain]


def test_times_do_not_hear_the_padding() -> None:
    torch.manual_seed(0)
    config = TimedPredictorConfig(
        idim=16,
        l_order=1,
        r_order=1,
        upsample_times=3,
        upsample_type="cnn_blstm",
        use_cif1_cnn=False,
    )
    predictor = TimedPredictor(16, config).eval()
    encoded, length = torch.randn(3, 9, 16), torch.tensor([9, 4, 1])
    count = torch.tensor([3, 2, 1])
    with torch.inference_mode():
        found = predictor.times(encoded, length, count)
        assert found.sum(1).tolist() == pytest.approx([3, 2, 1])
        for place, rows in enumerate(length.tolist()):
            one = slice(place, place + 1)
            alone = predictor.times(encoded[one, :rows], length[one], count[one])
            torch.testing.assert_close(found[place, : 3 * rows], alone[0])


def test_only_the_best_fitting_of_many_hotwords_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(random_offline.seaco(tmp_path), "cpu", FunasrOptions(threads=1))
    assert isinstance(model, Seaco)
    looked_at: list[int] = []
    original = BareDecoder.hidden

    def counted(self: BareDecoder, x: Tensor, there: Tensor, heard: Tensor, mask: Tensor) -> Tensor:
        if self is model._seaco.seaco_decoder:
            looked_at.append(heard.shape[1])
        return original(self, x, there, heard, mask)

    monkeypatch.setattr(BareDecoder, "hidden", counted)
    names = random_offline.characters()
    for count in (49, 50, 80):
        hotwords = tuple((names[3 + k], 1.0) for k in range(count))
        with Background("cpu", 1).running():
            model.spoken([noise(50, 16_000)], [RecognitionOptions(hotwords=hotwords)])
    # With the one that stands for none, twice each: for what fired, and for the decoder's own.
    assert looked_at == [50, 50, 51, 51, 51, 51]


def test_a_token_lasts_from_one_firing_to_the_next() -> None:
    weights = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert spans_of(weights, 2) == [(0.5, 3.5), (3.5, 9.0)]


def test_silence_is_no_part_of_a_token() -> None:
    weights = [0.0] * 60
    for place in (2, 40, 44):
        weights[place] = 1.0
    assert spans_of(weights, 2) == [(0.5, 12.5), (38.5, (60 + 42.5) / 2)]


def test_weights_are_scaled_to_the_tokens() -> None:
    assert len(spans_of([0.25] * 12, 2)) == 2
    assert spans_of([0.25] * 12, 5) == spans_of([0.5] * 12, 5)
    assert spans_of([0.0] * 4, 2) == [(4.0, 4.0), (4.0, 4.0)]
    assert spans_of([0.5] * 4, 0) == []
