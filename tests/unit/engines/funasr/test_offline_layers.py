"""Encoder and token counting over padded batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from app.engines.funasr.layers import Predictor
from app.engines.funasr.offline_layers import EncoderSize, WholeEncoder, integrate, rows_there


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("shift", [0, 5])
@pytest.mark.parametrize("after", [None, 2])
def test_what_is_behind_the_end_is_not_heard(shift: int, after: int | None) -> None:
    encoder = WholeEncoder(EncoderSize(24, 16, 4, 32, 3, 11, shift, after)).eval()
    lengths = torch.tensor([9, 4, 1])
    x = torch.randn(3, 9, 24)
    loud = torch.where(rows_there(lengths, 9)[:, :, None], x, 1e4)
    encoded = encoder(loud, rows_there(lengths, 9))
    for place, length in enumerate(lengths.tolist()):
        part = x[place : place + 1, :length]
        alone = encoder(part, torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(encoded[place, :length], alone[0], atol=1e-5, rtol=0)


def test_masks_of_the_last_block_and_of_the_others() -> None:
    """Causal blocks do not see what is to come; the last one does."""
    size = EncoderSize(16, 16, 4, 32, 3, 11, shift=5)
    encoder = WholeEncoder(size).eval()
    x = torch.randn(1, 8, 16)
    changed = x.clone()
    changed[:, 6:] *= -1.0
    there = torch.ones(1, 8, dtype=torch.bool)
    causal = torch.ones(8, 8, dtype=torch.bool).tril()[None, None]
    blind = [encoder(some, there, causal, causal)[:, :6] for some in (x, changed)]
    torch.testing.assert_close(*blind)
    seeing = [encoder(some, there, causal)[:, :6] for some in (x, changed)]
    assert (seeing[0] - seeing[1]).abs().max() > 1e-3


@pytest.mark.parametrize("tail", [0.0, 0.45])
def test_tokens_are_those_of_row_by_row_integration(tail: float) -> None:
    """Against the predictor of the streaming model, which adds up one row after the other."""
    lengths = torch.tensor([40, 17, 1, 33])
    there = rows_there(lengths, 40)
    weights = torch.rand(4, 40).masked_fill(~there, 0.0)
    encoded = torch.randn(4, 40, 8).masked_fill(~there[:, :, None], 0.0)
    fired = integrate(encoded, weights, lengths, tail)
    assert (fired.margin > 1e-5).all()
    for place, length in enumerate(lengths.tolist()):
        alphas = torch.cat([weights[place, :length], torch.tensor([tail])])[None]
        shares, count, _, _ = Predictor.fire(alphas, length + 1)
        rows = torch.cat([encoded[place, :length], torch.zeros(1, 8)])
        number = int(count)
        assert int(fired.count[place]) == number
        expected = (shares[0] @ rows)[:number]
        torch.testing.assert_close(fired.tokens[place, :number], expected, atol=1e-5, rtol=0)
        assert not fired.tokens[place, number:].any()
        peaks = [int(shares[0, k].nonzero().max()) for k in range(number)]
        assert fired.peaks[place, :number].tolist() == peaks


def test_no_token_fires() -> None:
    fired = integrate(torch.ones(2, 3, 4), torch.full((2, 3), 0.1), torch.tensor([3, 3]), 0.45)
    assert fired.count.tolist() == [0, 0]
    assert fired.tokens.shape == (2, 0, 4)


def test_weights_that_are_no_numbers_fire_nothing_and_leave_the_others() -> None:
    weights = torch.full((2, 4), 0.7)
    weights[0] = torch.nan
    fired = integrate(torch.ones(2, 4, 4), weights, torch.tensor([4, 4]), 0.45)
    assert fired.count.tolist() == [0, 3]
    assert fired.tokens[1].isfinite().all()
