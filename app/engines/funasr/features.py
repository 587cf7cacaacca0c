"""Log-mel features with stacked frames, for many streams at once and without waiting for the
device.

Kaldi's filter bank as FunASR's ``WavFrontend`` asks for it (funasr 1.4.16,
frontends/wav_frontend.py), but without dither: frames of 25 ms every 10 ms, seven of them stacked
in each row of 60 ms. Row j of a stream stacks the frames 6j-3 … 6j+3, the first three of a stream
being copies of frame 0. Frame f covers the samples 160f … 160f+400, so a chunk of 60 frames needs
480 samples from before it. Differs from kaldi-native-fbank by 2e-4 at most.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

SAMPLE_RATE: Final = 16_000
FRAME: Final = 400
"""Samples in a frame, at 16 kHz; so are all numbers of samples here."""

SHIFT: Final = 160
"""Samples from one frame to the next."""

MELS: Final = 80
STACK: Final = 7
"""Frames in a row."""

STRIDE: Final = 6
"""Frames from one row to the next."""

LEFT: Final = STACK // 2
"""Frames of a row before its middle one."""

LOOK_BACK: Final = LEFT * SHIFT
"""Samples from before a chunk that its rows need."""

ROW_SAMPLES: Final = STRIDE * SHIFT
WIDTH: Final = STACK * MELS

_FFT: Final = 512
_LOWEST_HZ: Final = 20.0
_PREEMPHASIS: Final = 0.97
_INT16: Final = 32768.0
"""Kaldi counts in the units of int16."""


class LogMel(nn.Module):
    """Kaldi's log-mel filter bank with a Hamming window, from 20 Hz to half of ``sample_rate`` (Hz;
    16,000 or 8,000).

    ``frame``, ``shift``: samples of a frame, and from one to the next.
    """

    window: Tensor
    banks: Tensor

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.frame = FRAME * sample_rate // SAMPLE_RATE
        self.shift = SHIFT * sample_rate // SAMPLE_RATE
        # The next power of two; of a frame at 8 kHz that is half as much, too.
        self._fft = _FFT * sample_rate // SAMPLE_RATE
        time = torch.arange(self.frame, dtype=torch.float64)
        window = 0.54 - 0.46 * torch.cos(2 * math.pi * time / (self.frame - 1))
        self.register_buffer("window", window.float(), persistent=False)
        banks = _mel_banks(sample_rate, self._fft)
        self.register_buffer("banks", banks, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """(b, n) in [-1, 1] to (b, frames, 80), with (n - frame) // shift + 1 frames."""
        frames = (audio * _INT16).unfold(1, self.frame, self.shift)
        frames = frames - frames.mean(2, keepdim=True)
        before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
        frames = (frames - _PREEMPHASIS * before) * self.window
        power = torch.view_as_real(torch.fft.rfft(frames, self._fft)).square().sum(-1)
        return (power @ self.banks).clamp(min=torch.finfo(torch.float32).eps).log()


class ChunkFeatures(nn.Module):
    """``rows`` rows of 560 features from each chunk of a stream.

    ``normalisation``: what is added to a row, and then multiplied by, each (560,); None for a
    model without.
    """

    shift: Tensor
    scale: Tensor
    numbers: Tensor

    def __init__(self, rows: int, normalisation: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.rows = rows
        self.log_mel = LogMel()
        shift, scale = normalisation or (torch.zeros(WIDTH), torch.ones(WIDTH))
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        numbers = torch.arange(rows * STRIDE + 1)
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, windows: Tensor, length: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, rows, 560), and how many rows of each stream are there, (b,).

        ``windows``: (b, LOOK_BACK + chunk) samples in [-1, 1], zeros after the end. ``length``:
        samples of the chunk that are there, (b,). ``first``: whether it is a stream's first, (b,).
        """
        frames = self.log_mel(windows)
        there = (length + LOOK_BACK - FRAME).div(SHIFT, rounding_mode="floor") + 1
        rows = (there - LEFT + STRIDE - 1).div(STRIDE, rounding_mode="floor").clamp(0, self.rows)
        # Copies of the first frame before it, and of the last one after it.
        lowest = torch.where(first, LEFT, 0)[:, None]
        highest = (there - 1).clamp(min=0)[:, None]
        number = self.numbers.expand(len(windows), -1)
        number = torch.minimum(torch.maximum(number, lowest), highest)
        frames = frames.gather(1, number[:, :, None].expand(-1, -1, MELS))
        stacked = frames.unfold(1, STACK, STRIDE).transpose(2, 3).flatten(2)
        return (stacked + self.shift) * self.scale, rows


def _mel_banks(sample_rate: int, size: int) -> Tensor:
    """Kaldi's triangles over a transform of ``size`` samples, shape (size // 2 + 1, 80); the bin at
    the Nyquist frequency counts nothing."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    low, high = mel(torch.tensor([_LOWEST_HZ, sample_rate / 2], dtype=torch.float64))
    step = (high - low) / (MELS + 1)
    left = low + step * torch.arange(MELS, dtype=torch.float64)
    bins = mel(torch.arange(size // 2, dtype=torch.float64) * sample_rate / size)[:, None]
    up = (bins - left) / step
    down = (left + 2 * step - bins) / step
    banks = torch.clamp(torch.minimum(up, down), min=0.0)
    return torch.cat([banks, torch.zeros(1, MELS, dtype=torch.float64)]).float()
