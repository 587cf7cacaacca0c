"""Linear layers in int8 for CPUs: weights scaled by output, activations by row.

torch's own dynamic quantisation scales activations by tensor. A stream's text would then depend on
who else is in the batch: a loud neighbour costs it its resolution, a NaN everything.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_LARGEST: Final = 127.0
_TINY: Final = 1e-12
"""Least scale, for rows of zeros."""


class Int8Linear(nn.Module):
    """A linear layer whose product is computed in int8."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).clamp(min=_TINY) / _LARGEST
        quantised = (weight / scale[:, None]).round().to(torch.int8)
        self.register_buffer("weight", quantised.t())  # (in, out), as columns in memory
        self.register_buffer("scale", scale)
        bias = linear.bias  # None where the layer has none, whatever its type says
        zeros = torch.zeros_like(scale)
        self.register_buffer("bias", zeros if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out), float32."""
        rows = x.flatten(0, -2)
        scale = rows.abs().amax(1, keepdim=True).clamp(min=_TINY) / _LARGEST
        whole = torch._int_mm((rows / scale).round_().to(torch.int8), self.weight)
        out = torch.addcmul(self.bias, whole.float().mul_(scale), self.scale)
        return out.view(*x.shape[:-1], -1)


def to_int8(module: nn.Module) -> None:
    """Replace the linear layers in ``module``, which must be float32 on the CPU. One with a single
    output stays: rounding the weights of rows (CIF) moves tokens."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            if child.out_features > 1:
                setattr(module, name, Int8Linear(child))
        else:
            to_int8(child)
