"""Features of whole utterances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.engines.funasr.features import MELS, STACK, STRIDE, LogMel
from app.engines.funasr.offline_features import SHORTEST_MS, WholeFeatures, padded
from tests.support.random_offline import noise

SHORTEST = SHORTEST_MS * 16
LENGTHS = (SHORTEST, 559, 560, 1_200, 1_359, 1_360, 1_361, 16_000, 23_456)
RATES = pytest.mark.parametrize("rate", [16_000, 8_000])


@RATES
@pytest.mark.parametrize("samples", LENGTHS)
def test_frames_are_stacked_around_each_sixth(samples: int, rate: int) -> None:
    audio, length = padded([noise(1, samples)], "cpu")
    features, rows = WholeFeatures(STACK, STRIDE, None, rate)(audio, length)
    frames = LogMel(rate)(audio)[0]
    count = len(frames)
    assert rows.tolist() == [-(-count // STRIDE)]
    assert features.shape == (1, int(rows), STACK * MELS)
    for row in range(int(rows)):
        for place, frame in enumerate(range(row * STRIDE - 3, row * STRIDE + 4)):
            expected = frames[min(max(frame, 0), count - 1)]
            part = features[0, row, place * MELS : (place + 1) * MELS]
            torch.testing.assert_close(part, expected)


@RATES
def test_a_batch_is_its_parts(rate: int) -> None:
    parts = [noise(k, samples) for k, samples in enumerate(LENGTHS)]
    shift, scale = torch.randn(STACK * MELS), torch.rand(STACK * MELS)
    extract = WholeFeatures(STACK, STRIDE, (shift, scale), rate)
    features, rows = extract(*padded(parts, "cpu"))
    for place, part in enumerate(parts):
        alone, count = extract(*padded([part], "cpu"))
        assert int(rows[place]) == int(count[0])
        # The transform of a batch is rounded differently from that of one.
        torch.testing.assert_close(features[place, : rows[place]], alone[0], atol=2e-4, rtol=0)
        assert not features[place, rows[place] :].any()


def test_normalisation() -> None:
    audio = padded([noise(3, 8_000)], "cpu")
    plain, _ = WholeFeatures(STACK, STRIDE, None)(*audio)
    shift, scale = torch.full((560,), -8.0), torch.full((560,), 0.25)
    normal, _ = WholeFeatures(STACK, STRIDE, (shift, scale))(*audio)
    torch.testing.assert_close(normal, (plain - 8.0) * 0.25)


def test_padding() -> None:
    audio, length = padded([np.ones(3, np.float32), np.ones(1, np.float32)], "cpu")
    assert audio.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert length.tolist() == [3, 1]
