"""Linear layers in int8."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from app.engines.funasr.int8 import Int8Linear, to_int8


@pytest.fixture
def linear() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Linear(64, 48)


def _rows(count: int) -> torch.Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_it_is_near_to_float(linear: nn.Linear) -> None:
    x = _rows(24).view(4, 6, 64)
    exact, found = linear(x), Int8Linear(linear)(x)
    assert found.shape == exact.shape == (4, 6, 48)
    assert float((found - exact).abs().max()) < 0.02 * float(exact.abs().max())
    assert not torch.equal(found, exact)  # it is int8


@torch.inference_mode()
def test_a_row_does_not_depend_on_the_others(linear: nn.Linear) -> None:
    layer = Int8Linear(linear)
    x = _rows(5)
    alone = torch.cat([layer(row[None]) for row in x])
    x[1] *= 1000
    x[2] *= 1e-4
    x[3] = float("nan")
    together = layer(x)
    assert torch.equal(together[[0, 4]], alone[[0, 4]])
    assert not torch.isfinite(together[3]).all()


@torch.inference_mode()
def test_rows_of_zeros_give_the_bias(linear: nn.Linear) -> None:
    assert torch.equal(Int8Linear(linear)(torch.zeros(3, 64)), linear.bias.expand(3, -1))


@torch.inference_mode()
def test_a_layer_without_bias() -> None:
    layer = nn.Linear(64, 32, bias=False)
    assert torch.equal(Int8Linear(layer)(torch.zeros(3, 64)), torch.zeros(3, 32))


def test_all_layers_are_replaced_but_those_with_one_output() -> None:
    module = nn.Sequential(
        nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 1)
    )
    to_int8(module)
    kinds = [type(child) for child in module.modules() if not list(child.children())]
    assert kinds == [Int8Linear, Int8Linear, nn.ReLU, nn.Linear]
