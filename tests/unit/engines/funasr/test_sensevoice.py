"""SenseVoice: what it is asked, and what its tokens mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as Folder

import numpy as np
import pytest
import torch
from torch import Tensor

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions, Word
from app.engines.base import Hypothesis
from app.engines.funasr.features import STACK, STRIDE
from app.engines.funasr.offline_features import WholeFeatures
from app.engines.funasr.offline_layers import EncoderSize
from app.engines.funasr.sensevoice import SenseVoice, SenseVoiceNetwork
from app.engines.funasr.tokens import PieceList

NAMES = ["<blank>", "<|zh|>", "<|HAPPY|>", "<|Laughter|>", "<|withitn|>", "你", "▁hel", "lo", "。"]


class Told(SenseVoiceNetwork):
    """Hears what it is told to, and remembers what it was asked."""

    def __init__(self, best: Sequence[int]) -> None:
        super().__init__(EncoderSize(560, 8, 2, 8, 1, 3), len(NAMES))
        self.best = best
        self.queries: list[list[int]] = []

    def forward(self, features: Tensor, rows: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        self.queries = queries.tolist()
        assert rows.tolist() == [len(self.best) - 4]
        return torch.tensor(self.best), torch.zeros(len(self.best))


def hear(network: Told, options: RecognitionOptions) -> Hypothesis:
    model = SenseVoice(network, WholeFeatures(STACK, STRIDE, None), PieceList(NAMES), "cpu", 10.0)
    rows = len(network.best) - 4
    samples: Float32 = np.zeros(400 + 160 * (rows * STRIDE - 1), np.float32)
    [found] = model.transcribe([samples], [options])
    assert isinstance(found, Hypothesis)
    return found


def test_tags_text_and_times() -> None:
    network = Told([1, 2, 3, 4, 0, 5, 5, 0, 5, 6, 7, 7, 8, 0, 0])
    found = hear(network, RecognitionOptions(words=True))
    assert found.text == "你你 hello。"
    assert (found.language, found.emotion, found.events) == ("zh", "happy", ("laughter",))
    # Rows are counted behind the four queries; a token begins half a row early.
    assert found.words == (
        Word("你", 30, 150),
        Word("你", 210, 270),
        Word("hello", 270, 450),
    )


def test_nothing_is_heard() -> None:
    found = hear(Told([0] * 9), RecognitionOptions(words=True))
    assert found == Hypothesis("")


@pytest.mark.parametrize(
    ("language", "query"),
    [
        (None, 0),
        ("zh", 3),
        ("zh-CN", 3),
        ("en_US", 4),
        ("yue", 7),
        ("JA", 11),
        ("ko", 12),
        ("de", 0),
    ],
)
def test_language_is_asked_for(language: str | None, query: int) -> None:
    network = Told([0] * 9)
    hear(network, RecognitionOptions(language=language))
    assert network.queries == [[query, 1, 2, 15]]


@pytest.mark.parametrize("punctuation", [False, True])
@pytest.mark.parametrize("figures", [False, True])
def test_figures_and_punctuation_only_together(punctuation: bool, figures: bool) -> None:
    network = Told([0] * 9)
    options = RecognitionOptions(punctuation=punctuation, inverse_text_normalization=figures)
    found = hear(network, options)
    assert network.queries == [[0, 1, 2, 14 if punctuation and figures else 15]]
    assert found.finished == (punctuation and figures)


def test_many_rows_are_scored_in_parts(tmp_path: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = SenseVoiceNetwork(EncoderSize(560, 8, 2, 8, 1, 3), 20).eval()
    asked = torch.randn(2, 30, 560), torch.tensor([30, 11]), torch.tensor([[0, 1, 2, 15]] * 2)
    with torch.inference_mode():
        whole = network(*asked)
        monkeypatch.setattr("app.engines.funasr.sensevoice._ROWS_AT_ONCE", 7)
        parts = network(*asked)
    assert len(whole[0]) == 30 + 11 + 8
    assert torch.equal(whole[0], parts[0])
