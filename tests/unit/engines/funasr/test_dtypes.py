from __future__ import annotations

import pytest
import torch
from torch import nn

from app.engines.funasr.dtypes import TORCH_DTYPES, in_dtype
from app.engines.funasr.settings import Dtype


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_what_is_to_stay_exact_is_not_even_rounded(dtype: Dtype) -> None:
    rounded, exact = nn.Linear(3, 2), nn.Linear(2, 1)
    before = exact.weight.detach().clone()
    in_dtype(nn.Sequential(rounded, exact), dtype, exact=[exact])
    assert rounded.weight.dtype == TORCH_DTYPES[dtype]
    assert torch.equal(exact.weight, before)
