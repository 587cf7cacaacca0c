"""Features of chunks are those of the whole audio."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from app.engines.funasr.features import (
    FRAME,
    LOOK_BACK,
    MELS,
    ROW_SAMPLES,
    SHIFT,
    STACK,
    STRIDE,
    ChunkFeatures,
    LogMel,
)
from tests.support.random_paraformer import noise

CHUNK = 10 * ROW_SAMPLES


def _rows_of_the_whole(samples: torch.Tensor) -> torch.Tensor:
    """Row j stacks the frames 6j-3 … 6j+3; those outside are copies of the first and the last."""
    frames: torch.Tensor = LogMel()(samples[None])[0]
    rows = math.ceil(len(frames) / STRIDE)
    numbers = torch.arange(rows)[:, None] * STRIDE + torch.arange(STACK) - STACK // 2
    return frames[numbers.clamp(0, len(frames) - 1)].flatten(1)


def _in_chunks(samples: torch.Tensor, features: ChunkFeatures) -> torch.Tensor:
    kept = torch.zeros(LOOK_BACK)
    found = []
    for start in range(0, len(samples), CHUNK):
        piece = samples[start : start + CHUNK]
        chunk = torch.zeros(CHUNK)
        chunk[: len(piece)] = piece
        window = torch.cat([kept, chunk])
        first = torch.tensor([start == 0])
        rows, count = features(window[None], torch.tensor([len(piece)]), first)
        found.append(rows[0, : int(count[0])])
        kept = window[-LOOK_BACK:]
    return torch.cat(found)


@pytest.mark.parametrize("rest", [0, 960, 1000, 3 * 960 + 37, 9599])
def test_chunks_have_the_rows_of_the_whole(rest: int) -> None:
    samples = torch.from_numpy(noise(rest, 3 * CHUNK + rest))
    whole = _rows_of_the_whole(samples)
    chunks = _in_chunks(samples, ChunkFeatures(10, None))
    # All but what hangs on frames after the end, which the whole chunks' windows do not see.
    assert len(whole) - 1 <= len(chunks) <= len(whole) + 1
    rows = min(len(whole), len(chunks)) - 1
    assert torch.allclose(chunks[:rows], whole[:rows], atol=1e-4)


def test_a_row_does_not_depend_on_the_batch() -> None:
    features = ChunkFeatures(10, None)
    windows = torch.from_numpy(
        np.stack([noise(k, LOOK_BACK + CHUNK) for k in range(5)]) * np.float32(0.5)
    )
    windows[3] = float("nan")
    length, first = torch.full((5,), CHUNK), torch.zeros(5, dtype=torch.bool)
    together, _ = features(windows, length, first)
    for k in (0, 1, 2, 4):
        alone, _ = features(windows[k : k + 1], length[:1], first[:1])
        assert torch.allclose(together[k], alone[0], atol=1e-4)


def test_the_normalisation_is_added_and_then_multiplied() -> None:
    windows = torch.from_numpy(noise(1, LOOK_BACK + CHUNK))[None]
    length, first = torch.tensor([CHUNK]), torch.tensor([True])
    plain, _ = ChunkFeatures(10, None)(windows, length, first)
    shift, scale = torch.full((560,), 2.0), torch.full((560,), 3.0)
    moved, _ = ChunkFeatures(10, (shift, scale))(windows, length, first)
    assert torch.allclose(moved, (plain + 2) * 3, atol=1e-4)


@pytest.mark.parametrize(("rate", "bands"), [(16_000, (10, 30, 60)), (8_000, (40, 60))])
def test_a_tone_is_in_the_band_of_its_frequency(rate: int, bands: tuple[int, ...]) -> None:
    """At 8 kHz the lower bands are narrower than the transform tells apart."""
    time = torch.arange((FRAME + 9 * SHIFT) * rate // 16_000) / rate
    mel_low, mel_high = (1127 * math.log1p(hertz / 700) for hertz in (20, rate / 2))
    for band in bands:
        mel = mel_low + (band + 1) * (mel_high - mel_low) / (MELS + 1)
        hertz = 700 * math.expm1(mel / 1127)
        frames = LogMel(rate)(0.5 * torch.sin(2 * math.pi * hertz * time)[None])
        assert frames.shape == (1, 10, MELS)
        assert set(frames[0].argmax(1).tolist()) == {band}


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_constant_is_silence(level: float) -> None:
    frames = LogMel()(torch.full((1, 4000), level))
    assert torch.isfinite(frames).all()
    assert float(frames.max()) < 0
