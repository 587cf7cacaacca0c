"""CUDA graphs say what eager forwards say. What runs without a card is in test_executor.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engines.funasr import checkpoint
from app.engines.funasr.executor import Chunking, EagerForward, Executor, Forward, Part
from app.engines.funasr.features import WIDTH
from app.engines.funasr.graphs import FixedForward
from app.engines.funasr.streaming import load_model
from tests.support.random_paraformer import noise

CHUNK = Chunking().samples

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def _executor(folder: Path, device: str) -> Executor:
    model, _ = load_model(folder)
    normalisation = checkpoint.read_normalisation(folder, WIDTH)
    return Executor(
        model, 8, chunking=Chunking(), normalisation=normalisation, device=device, most_streams=4
    )


def _run(forward: Forward, streams: int) -> list[list[int]]:
    """Streams of several chunks, each round in forwards of at most four, and of odd sizes."""
    found: list[list[int]] = [[] for _ in range(streams)]
    audio = [noise(200 + k, 3 * CHUNK + 2000) for k in range(streams)]
    for start in range(0, 4 * CHUNK, CHUNK):
        for first in range(0, streams, 3):
            now = range(first, min(first + 3, streams))
            parts = [
                Part(k, start == 0, audio[k][start : start + CHUNK], start == 3 * CHUNK, k % 2 == 0)
                for k in now
            ]
            for k, heard in zip(now, forward(parts), strict=True):
                assert heard.sound
                assert (heard.choices is not None) == (k % 2 == 0)
                if heard.choices is not None:
                    assert heard.choices.ids[:, 0].tolist() == heard.ids
                found[k] += heard.ids
    return found


@contextmanager
def _no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_graphs_find_what_eager_forwards_find(streaming_folder: Path) -> None:
    told: list[str] = []
    forward = FixedForward(_executor(streaming_folder, "cuda:0"), 4, told.append)
    assert len(told) == 3  # each extends the deadline of the start
    graphs = _run(forward, 8)
    assert graphs == _run(EagerForward(_executor(streaming_folder, "cuda:0")), 8)
    on_cpu = _run(EagerForward(_executor(streaming_folder, "cpu")), 8)
    same = sum(a == b for a, b in zip(graphs, on_cpu, strict=True))
    assert same >= 6  # its rounding is its own


def test_a_step_does_not_wait_for_the_card(streaming_folder: Path) -> None:
    executor = _executor(streaming_folder, "cuda:0")
    slots = torch.arange(4, device="cuda:0")
    audio = torch.from_numpy(np.stack([noise(k, CHUNK) for k in range(4)])).to("cuda:0")
    length = torch.full((4,), CHUNK, device="cuda:0")
    last = torch.zeros(4, dtype=torch.bool, device="cuda:0")
    executor.step(slots, audio, length, last, 16)
    with _no_waiting():
        executor.step(slots, audio, length, last, 16)
