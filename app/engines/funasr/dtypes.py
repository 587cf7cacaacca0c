"""The arithmetic of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from app.engines.funasr.int8 import to_int8
from app.engines.funasr.settings import Dtype

TORCH_DTYPES: Final = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,  # between the layers
}


def in_dtype(network: nn.Module, dtype: Dtype, exact: Sequence[nn.Module] = ()) -> None:
    """Change ``network``, which has all of its parameters in its parts, in place to compute in
    ``dtype``, ready for inference. Those of its parts that are in ``exact`` keep bf16 and fp16 out:
    they are as they were loaded."""
    network.eval().requires_grad_(False)
    if dtype == "int8":
        to_int8(network)
        return
    for part in network.children():
        if not any(part is each for each in exact):
            part.to(TORCH_DTYPES[dtype])
