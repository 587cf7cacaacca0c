"""Many streams in one batch have the tokens that FunASR finds for each of them alone (fp32)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pytest
import torch

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions
from app.engines.base import Feed
from app.engines.funasr import checkpoint
from app.engines.funasr.executor import Chunking, EagerForward, Executor, Forward
from app.engines.funasr.features import WIDTH
from app.engines.funasr.graphs import FixedForward
from app.engines.funasr.recognizer import CHUNKINGS, StreamingRecognizer
from app.engines.funasr.streaming import load_model
from app.engines.funasr.tokens import TokenList
from tests.support.random_paraformer import noise, write_streaming

MARGIN: Final = 1e-3
"""What two ways of computing the same may differ by is far less; so no token hangs on rounding."""

CHUNK: Final = 9600
LENGTHS: Final = (
    # Whole chunks, and every kind of rest after some: none, too short for a row, the shortest row,
    # each number of rows, one sample less than a chunk.
    *(CHUNK, 2 * CHUNK, 5 * CHUNK, 5 * CHUNK + 1, 3 * CHUNK + 959, 2 * CHUNK + 960),
    *(CHUNK * (2 + k % 4) + 960 * k + 37 for k in range(1, 10)),
    4 * CHUNK + 9599,
    # Short streams of one chunk.
    *(1, 300, 959, 960, 961, 2000, 5000, 9599),
    # Longer than the look-back, so that the ring has turned.
    *(9 * CHUNK + 4000, 12 * CHUNK, 14 * CHUNK + 100),
)
OTHER_CHUNKINGS: Final = (CHUNKINGS[480], CHUNKINGS[300])
AGED_AT: Final = 5
"""The chunk before which a stream is made two hours old: the look-back is full by then."""

OLD: Final = 120_010
"""Rows in two hours; the ring of four chunks is where it is after five."""


class RunReference(Protocol):
    def __call__(self, script: str, *arguments: Path | str) -> None: ...


@dataclass(frozen=True)
class Case:
    """A stream, and what FunASR finds in it."""

    name: str
    chunking: Chunking
    samples: Float32
    expected: list[int]

    @property
    def age(self) -> int:
        return int(self.name.split("_")[2])


class Bench:
    """The model in ``folder``, over some slots."""

    def __init__(self, folder: Path, chunking: Chunking, slots: int, *, fixed: int = 0) -> None:
        model, names = load_model(folder)
        self.executor = Executor(
            model,
            slots,
            chunking=chunking,
            normalisation=checkpoint.read_normalisation(folder, WIDTH),
        )
        forward: Forward = EagerForward(self.executor)
        if fixed:
            forward = FixedForward(self.executor, fixed, lambda doing: None)
        self.recognizer = StreamingRecognizer(forward, chunking, TokenList(names), slots=slots)

    def step(self, *feeds: Feed) -> None:
        for answer in self.recognizer.step(feeds):
            assert not isinstance(answer, Exception)


class Told:
    """A stream of the recogniser under test, and what it has found."""

    def __init__(self, bench: Bench, case: Case) -> None:
        self.bench = bench
        self.case = case
        self.stream = bench.recognizer.open(RecognitionOptions())
        self.slot = self.stream.slot  # type: ignore[attr-defined]  # the engine's own class

    @property
    def ids(self) -> list[int]:
        return list(self.stream.ids)  # type: ignore[attr-defined]  # the engine's own class

    def feeds(self) -> Iterator[Feed]:
        samples, size = self.case.samples, self.case.chunking.samples
        for start in range(0, max(samples.size, 1), size):
            last = start + size >= samples.size
            yield Feed(self.stream, samples[start : start + size], last)


def _with_wide_margins(folder: Path, chunking: Chunking, length: int, number: int) -> Float32:
    """Noise of this length in which nothing is decided by rounding: the first such seed."""
    bench = Bench(folder, chunking, 1)
    for seed in range(1000 * number, 1000 * number + 50):
        samples = noise(seed, length)
        told = Told(bench, Case("0_0_0_0", chunking, samples, []))
        for feed in told.feeds():
            bench.step(feed)
        if bench.recognizer.margin(told.stream) > MARGIN:
            return samples
    raise AssertionError("no seed with wide margins")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_streaming(tmp_path_factory.mktemp("streaming"))


@dataclass(frozen=True)
class Reference:
    """What FunASR says: the cases, and the shapes of its parameters."""

    cases: list[Case]
    parameters: dict[str, list[int]]


@pytest.fixture(scope="module")
def cases(reference: Reference) -> list[Case]:
    return reference.cases


@pytest.fixture(scope="module")
def reference(
    folder: Path, run_reference: RunReference, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """All streams of this module: FunASR is started once."""
    plan = [(CHUNKINGS[600], length, 0) for length in LENGTHS]
    for chunking in OTHER_CHUNKINGS:
        wholes = ((1, 0), (3, 500), (6, 2000), (9, 0), (0, 1500))
        plan += [(chunking, chunking.samples * whole + rest, 0) for whole, rest in wholes]
    plan.append((CHUNKINGS[600], 7 * CHUNK + 3333, OLD))
    streams = {
        f"{chunking.rows}_{chunking.right}_{age}_{number}": (
            chunking,
            _with_wide_margins(folder, chunking, length, number),
        )
        for number, (chunking, length, age) in enumerate(plan)
    }
    work = tmp_path_factory.mktemp("reference")
    audio, out = work / "audio.npz", work / "out.json"
    arrays = {name: samples for name, (_, samples) in streams.items()}
    np.savez(audio, allow_pickle=False, **arrays)
    run_reference("reference_streaming.py", folder, audio, out)
    said = json.loads(out.read_text("utf-8"))
    cases = [
        Case(name, chunking, samples, said["tokens"][name])
        for name, (chunking, samples) in streams.items()
    ]
    return Reference(cases, said["parameters"])


def _run_together(bench: Bench, slots: int, cases: list[Case]) -> tuple[list[Told], set[int]]:
    """All streams over few slots, each beginning whenever one is free, ready at odd times. Also
    the sizes of the batches."""
    rng = random.Random(7)
    waiting = list(cases)
    told: list[Told] = []
    running: list[tuple[Told, Iterator[Feed]]] = []
    sizes: set[int] = set()
    while waiting or running:
        while waiting and len(running) < slots and (not running or rng.random() < 0.8):
            told.append(Told(bench, waiting.pop(0)))
            running.append((told[-1], told[-1].feeds()))
        ready = [entry for entry in running if rng.random() < 0.7]
        rng.shuffle(ready)
        feeds = [next(feeds) for _, feeds in ready]
        if feeds:
            sizes.add(len(feeds))
            bench.step(*feeds)
        over = {id(feed.stream) for feed in feeds if feed.last}
        running = [entry for entry in running if id(entry[0].stream) not in over]
    return told, sizes


def _assert_equal(told: list[Told]) -> None:
    for one in told:
        assert one.ids == one.case.expected, one.case.name
        assert one.bench.recognizer.margin(one.stream) > MARGIN / 2, one.case.name


@pytest.mark.parametrize("fixed", [0, 12], ids=["eager", "fixed shapes"])
def test_streams_together_have_the_tokens_of_each_alone(
    folder: Path, cases: list[Case], fixed: int
) -> None:
    wanted = [case for case in cases if case.chunking == CHUNKINGS[600] and not case.age]
    assert len(wanted) == len(LENGTHS)
    tokens = [token for case in wanted for token in case.expected]
    assert len(tokens) > 200
    assert len(set(tokens)) > 50
    bench = Bench(folder, CHUNKINGS[600], 12, fixed=fixed)
    told, sizes = _run_together(bench, 12, wanted)
    _assert_equal(told)
    assert 8 < len({one.slot for one in told}) <= 12 < len(told)  # used again
    assert len(sizes) > 5


@pytest.mark.parametrize("chunking", OTHER_CHUNKINGS, ids=["480 ms", "300 ms"])
def test_the_other_chunk_sizes(folder: Path, cases: list[Case], chunking: Chunking) -> None:
    wanted = [case for case in cases if case.chunking == chunking]
    assert sum(len(case.expected) for case in wanted) > 20
    told, _ = _run_together(Bench(folder, chunking, 3), 3, wanted)
    _assert_equal(told)


def test_checkpoints_of_funasr_fit(folder: Path, reference: Reference) -> None:
    """The parameters have the same names and shapes, to the last."""
    model, _ = load_model(folder)
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == reference.parameters


def test_a_stream_of_two_hours(folder: Path, cases: list[Case]) -> None:
    (case,) = (case for case in cases if case.age)
    bench = Bench(folder, case.chunking, 2)
    told = Told(bench, case)
    for number, feed in enumerate(told.feeds()):
        if number == AGED_AT:
            bench.executor.set_age(torch.tensor([told.slot]), case.age // case.chunking.rows)
        bench.step(feed)
    assert told.ids == case.expected
    assert len(told.ids) > 10
