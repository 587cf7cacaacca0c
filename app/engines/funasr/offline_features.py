"""Log-mel features of whole utterances, in a padded batch.

The frames are those of ``features.py``; how they are stacked after funasr 1.4.16,
``wav_frontend.py`` (``apply_lfr``): row j has the frames 6j-3 … 6j+3, the first frame repeated
before the beginning and the last one behind the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from app.audio.pcm import Float32
from app.engines.funasr.features import MELS, SAMPLE_RATE, LogMel

SHORTEST_MS: Final = 25
"""Of the shortest audio that has a row: one frame."""


def padded(samples: Sequence[Float32], device: str) -> tuple[Tensor, Tensor]:
    """The samples as one tensor (b, longest), zeros behind each one's end, and their lengths."""
    length = np.array([part.size for part in samples], np.int64)
    batch = np.zeros((len(samples), int(length.max())), np.float32)
    for row, part in zip(batch, samples, strict=True):
        row[: part.size] = part
    return torch.from_numpy(batch).to(device), torch.from_numpy(length).to(device)


class WholeFeatures(nn.Module):
    """Rows of ``stack`` frames of 80 bands, one for every ``stride`` frames.

    ``normalisation``: what is added to a row, and then multiplied by, each (stack · 80,); None for
    a model without. ``sample_rate``: of the audio, 16,000 or 8,000 Hz.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        stack: int,
        stride: int,
        normalisation: tuple[Tensor, Tensor] | None,
        sample_rate: int = SAMPLE_RATE,
    ) -> None:
        super().__init__()
        self.stack = stack
        self.stride = stride
        self.sample_rate = sample_rate
        self.log_mel = LogMel(sample_rate)
        shift, scale = normalisation or (torch.zeros(stack * MELS), torch.ones(stack * MELS))
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, samples: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, rows, stack · 80), zeros behind the end, and how many rows each has (b,).

        ``samples``: (b, n) in [-1, 1], whatever behind ``length`` (b,), which is at least
        :data:`SHORTEST_MS`.
        """
        frames = self.log_mel(samples)
        there = self._frames_of(length)
        rows = (there + self.stride - 1).div(self.stride, rounding_mode="floor")
        most = -(-frames.shape[1] // self.stride)
        row = torch.arange(most, device=frames.device)[:, None] * self.stride
        number = row + torch.arange(self.stack, device=frames.device) - (self.stack - 1) // 2
        number = torch.minimum(number.clamp(min=0).flatten(), (there - 1)[:, None])
        stacked = frames.gather(1, number[:, :, None].expand(-1, -1, MELS))
        stacked = stacked.unflatten(1, (most, self.stack)).flatten(2)
        keep = torch.arange(most, device=frames.device) < rows[:, None]
        features = (stacked + self.shift) * self.scale
        return features.masked_fill(~keep[:, :, None], 0.0), rows

    def _frames_of(self, length: Tensor) -> Tensor:
        """Whole frames in so many samples."""
        behind = length - self.log_mel.frame
        return behind.div(self.log_mel.shift, rounding_mode="floor") + 1
