"""What the recognition benchmarks say: the example's three sentences, again and again, each stream
from another place on; and models with random weights that hear about 2.5 tokens in 600 ms of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from app.audio.pcm import Float32
from benchmarks import audio

if TYPE_CHECKING:
    from benchmarks.random_paraformer import Size

_APART: Final = 0.137
"""Of the example's length: how far apart streams begin in it."""

_CALIBRATION_S: Final = 9.0
_SKIPPED: Final = 5
"""Chunks until a model's look-back is full."""


def speech(stream: int, seconds: float) -> audio.Int16:
    """What this stream says."""
    spoken = audio.example("three_sentences")
    samples = np.arange(round(seconds * audio.RATE)) + round(stream * _APART * len(spoken))
    return spoken[samples % len(spoken)]


def heard(stream: int, seconds: float) -> Float32:
    """The same as engines have it."""
    return speech(stream, seconds).astype(np.float32) / np.float32(32768)


def write_model(folder: Path, size: Size | None = None) -> Path:
    """A streaming Paraformer's folder; of the published size, or of another one."""
    # Not every installation has torch, and clients of other engines speak as well.
    import torch

    from benchmarks.random_paraformer import FULL, write_streaming

    torch.set_num_threads(1)  # where others keep the cores busy, two threads take minutes
    sounds = [heard(stream, _CALIBRATION_S) for stream in range(3)]
    return write_streaming(folder, size or FULL, sounds=sounds, skipped=_SKIPPED)
