"""One forward over slots: a stream's result does not depend on who else is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from app.audio.pcm import Float32
from app.engines.funasr import checkpoint
from app.engines.funasr.executor import Chunking, EagerForward, Executor, Forward, Heard, Part
from app.engines.funasr.features import WIDTH
from app.engines.funasr.graphs import SIZES, FixedForward, fixed_sizes
from app.engines.funasr.settings import Dtype
from app.engines.funasr.streaming import load_model
from tests.support.random_paraformer import noise

CHUNK = Chunking().samples
MARGIN = 1e-3
"""No token of these streams hangs on rounding, which differs with the size of the batch."""


def _executor(folder: Path, slots: int, dtype: Dtype = "fp32", most_streams: int = 0) -> Executor:
    model, _ = load_model(folder)
    model.cast(dtype)
    return Executor(
        model,
        slots,
        chunking=Chunking(),
        normalisation=checkpoint.read_normalisation(folder, WIDTH),
        dtype=dtype,
        most_streams=most_streams,
    )


def _parts(slot: int, samples: Float32) -> list[Part]:
    """A stream in whole chunks and a rest, which is its last."""
    starts = range(0, samples.size, CHUNK)
    return [
        Part(slot, start == 0, samples[start : start + CHUNK], samples.size - start < CHUNK)
        for start in starts
    ]


def _ids(heard: Sequence[Heard]) -> list[int]:
    assert all(one.sound for one in heard)
    return [token for one in heard for token in one.ids]


def _alone(forward: Forward, slot: int, samples: Float32) -> list[int]:
    return _ids([forward([part])[0] for part in _parts(slot, samples)])


def _fixed(executor: Executor, most: int = 4) -> FixedForward:
    return FixedForward(executor, most, lambda doing: None)


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_stream_is_the_same_alone_among_others_and_padded(
    streaming_folder: Path, dtype: Dtype
) -> None:
    executor = _executor(streaming_folder, 8, dtype)
    audio: list[Float32] = []
    alone: list[list[int]] = []
    for seed in range(40, 80):
        samples = noise(seed, 4 * CHUNK + 700 * (len(audio) + 1))
        heard = [EagerForward(executor)([part])[0] for part in _parts(7, samples)]
        if len(audio) < 5 and min(one.margin for one in heard) > MARGIN:
            audio.append(samples)
            alone.append(_ids(heard))
    assert len(audio) == 5
    assert all(len(ids) > 5 for ids in alone)
    assert len({token for ids in alone for token in ids}) > 15
    for forward in (EagerForward(executor), _fixed(executor, 8)):
        rounds = zip(*(_parts(slot, samples) for slot, samples in enumerate(audio)), strict=True)
        by_round = [forward(parts) for parts in rounds]
        together = [_ids([one[k] for one in by_round]) for k in range(len(audio))]
        assert together == alone


def test_half_the_precision_hears_nearly_the_same(streaming_folder: Path) -> None:
    """Also in float16, which a CPU can compute, though too slowly to be offered."""
    samples = noise(5, 6 * CHUNK + 900)
    ids = {
        dtype: _alone(EagerForward(_executor(streaming_folder, 1, dtype)), 0, samples)
        for dtype in ("fp32", "bf16", "fp16", "int8")
    }
    for dtype in ("bf16", "fp16", "int8"):
        assert abs(len(ids[dtype]) - len(ids["fp32"])) <= 2
        shared = Counter(ids[dtype]) & Counter(ids["fp32"])
        assert shared.total() > 0.6 * len(ids["fp32"])


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "int8"])
def test_rounding_does_not_move_tokens(streaming_folder: Path, dtype: Dtype) -> None:
    """The predictor stays in fp32, whatever the rest is."""
    executor = _executor(streaming_folder, 1, dtype)
    assert {p.dtype for p in executor.model.predictor.parameters()} == {torch.float32}
    part = _parts(0, noise(1, CHUNK))[0]
    assert EagerForward(executor)([part])[0].shares.dtype == np.float32


def test_streams_that_begin_at_different_times(streaming_folder: Path) -> None:
    forward = EagerForward(_executor(streaming_folder, 3))
    first, second = noise(50, 6 * CHUNK + 500), noise(51, 3 * CHUNK + 5000)
    expected = [_alone(forward, 2, samples) for samples in (first, second)]
    waiting = {0: _parts(0, first), 1: _parts(1, second)}
    found: dict[int, list[Heard]] = {0: [], 1: []}
    for tick in range(len(waiting[0])):
        ready = [0, 1] if 2 <= tick < 2 + len(waiting[1]) else [0]
        parts = [waiting[0][tick], *([waiting[1][tick - 2]] if 1 in ready else [])]
        for k, one in zip(ready, forward(parts), strict=True):
            found[k].append(one)
    assert [_ids(found[0]), _ids(found[1])] == expected


def test_a_slot_used_again_remembers_nothing(streaming_folder: Path) -> None:
    """Nor a NaN, which a mask does not stop."""
    forward = EagerForward(_executor(streaming_folder, 2))
    samples = noise(52, 5 * CHUNK + 2000)
    expected = _alone(forward, 0, samples)
    _alone(forward, 1, noise(53, 7 * CHUNK + 1))
    assert _alone(forward, 1, samples) == expected
    for part in _parts(1, np.full(6 * CHUNK, np.nan, np.float32)):
        assert not forward([part])[0].sound
    assert _alone(forward, 1, samples) == expected


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_neighbour_of_nan_harms_nobody(
    streaming_folder: Path, value: float, dtype: Dtype, fixed: bool
) -> None:
    executor = _executor(streaming_folder, 3, dtype)
    forward: Forward = _fixed(executor) if fixed else EagerForward(executor)
    samples = noise(54, 5 * CHUNK + 3000)
    expected = _alone(forward, 2, samples)
    heard = []
    for part in _parts(0, samples):
        bad = Part(1, part.fresh, np.full(part.samples.size, value, np.float32), part.last)
        one, other = forward([part, bad])
        assert not other.sound
        heard.append(one)
    assert _ids(heard) == expected


def test_silence_and_square_waves_are_sound(streaming_folder: Path) -> None:
    forward = EagerForward(_executor(streaming_folder, 2))
    square = np.where(np.arange(3 * CHUNK + 5000) // 40 % 2 == 0, 1.0, -1.0).astype(np.float32)
    for samples in (np.zeros(3 * CHUNK + 5000, np.float32), square):
        _alone(forward, 0, samples)
    silent = np.zeros(CHUNK, np.float32)
    one, other = forward([Part(0, True, silent, False), Part(1, True, square[:CHUNK], False)])
    assert one.sound
    assert other.sound


def test_nothing_waits_for_the_device_where_the_number_of_tokens_is_constant(
    streaming_folder: Path,
) -> None:
    executor = _executor(streaming_folder, 4)
    slots, audio = torch.arange(3), torch.from_numpy(np.stack([noise(k, CHUNK) for k in range(3)]))
    length, last = torch.tensor([CHUNK, CHUNK, 4000]), torch.tensor([False, False, True])

    def waits(tokens: int | None) -> int:
        # Under inference_mode a dispatch mode sees nothing.
        step: Any = Executor.step.__wrapped__  # type: ignore[attr-defined]  # by functools.wraps
        with torch.no_grad(), _Count() as count:
            step(executor, slots, audio, length, last, tokens)
        waited: int = count.of(
            "_local_scalar_dense", "nonzero", "item", "equal.default", "is_nonzero"
        )
        return waited

    assert waits(None) == 1  # the count is seen at all
    assert waits(Chunking().most_tokens[1]) == 0


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self._seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self._seen[str(function)] += 1
        return function(*args, **(kwargs or {}))

    def of(self, *names: str) -> int:
        return sum(n for op, n in self._seen.items() if any(name in op for name in names))


@pytest.mark.parametrize("fixed", [False, True])
def test_readings_are_given_to_those_who_want_them(streaming_folder: Path, fixed: bool) -> None:
    executor = _executor(streaming_folder, 4)
    forward: Forward = _fixed(executor) if fixed else EagerForward(executor)
    plain = _parts(0, noise(50, 5 * CHUNK + 700))
    fired = 0
    for part in plain:
        wanting = replace(part, slot=1, choices=True)
        first, second, third = forward([part, wanting, replace(part, slot=2)])
        assert first.choices is third.choices is None
        assert second.choices is not None
        ids, scores = second.choices.ids, second.choices.scores
        assert ids.shape == scores.shape
        assert ids[:, 0].tolist() == second.ids == first.ids
        assert not ids.size or ids.shape[1] == 10
        assert (np.diff(scores, axis=1) <= 0).all()
        assert all(len(set(row)) == len(row) for row in ids.tolist())
        fired += len(ids)
    assert fired > 5


@pytest.mark.parametrize("fixed", [False, True])
def test_the_tokens_of_a_chunk_never_exceed_the_constant(
    streaming_folder: Path, fixed: bool
) -> None:
    """However sure the predictor is of every row."""
    executor = _executor(streaming_folder, 1)
    forward: Forward = _fixed(executor) if fixed else EagerForward(executor)
    with torch.no_grad():
        executor.model.predictor.cif_output.bias.fill_(60.0)
    parts = _parts(0, noise(2, 4 * CHUNK + 9599))
    usual, ending = Chunking().most_tokens
    assert [len(forward([part])[0].ids) for part in parts[:-1]] == [usual] * 4
    executor._level.fill_(0.9)
    assert len(forward([parts[-1]])[0].ids) == ending


@pytest.mark.parametrize("fixed", [False, True])
def test_where_no_token_fires_the_decoder_stands_still(streaming_folder: Path, fixed: bool) -> None:
    """Also in a batch that has room for tokens, where the decoder runs nevertheless."""
    executor = _executor(streaming_folder, 1)
    forward: Forward = _fixed(executor) if fixed else EagerForward(executor)
    parts = _parts(0, noise(3, 5 * CHUNK))
    assert forward([parts[0]])[0].ids
    bias = executor.model.predictor.cif_output.bias
    usual = bias.detach().clone()

    def state() -> list[torch.Tensor]:
        kept = (executor._memory[:, 0], executor._heard[:, 0], executor._decoded[0])
        return [tensor.clone() for tensor in kept]

    before = state()
    with torch.no_grad():
        bias.fill_(-60.0)
    assert forward([parts[1]])[0].ids == []
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    with torch.no_grad():
        bias.copy_(usual)
    assert forward([parts[2]])[0].ids
    assert not any(torch.equal(a, b) for a, b in zip(before, state(), strict=True))


def test_the_age_of_a_stream_costs_no_memory_and_no_precision(streaming_folder: Path) -> None:
    executor = _executor(streaming_folder, 2)
    forward = EagerForward(executor)
    parts = _parts(0, noise(4, 9 * CHUNK))
    for part in parts[:5]:
        forward([part])
    executor.set_age(torch.tensor([0]), 12_001)  # two hours; the ring is where it was
    heard = [forward([part])[0] for part in parts[5:]]
    assert all(one.sound for one in heard)
    position = executor._positions(torch.tensor([12_000]))[0, 0]
    scales = np.exp(-np.log(10_000.0) / 279 * np.arange(280))
    angle = 120_001 * scales
    exact = np.concatenate([np.sin(angle), np.cos(angle)])
    assert np.abs(position.numpy() - exact).max() < 0.02  # float32, as FunASR has them


def test_a_batch_is_filled_up_to_a_fixed_size(
    streaming_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fixed_sizes(4) == (1, 2, 4)
    assert fixed_sizes(6) == (1, 2, 4, 6)
    assert fixed_sizes(5000) == SIZES
    executor = _executor(streaming_folder, 8)
    seen: list[tuple[int, int | None]] = []
    original = Executor.step

    def watched(self: Executor, slots: torch.Tensor, *rest: Any) -> Any:
        seen.append((len(slots), rest[-1]))
        return original(self, slots, *rest)

    monkeypatch.setattr(Executor, "step", watched)
    forward = _fixed(executor, 6)
    silent = np.zeros(CHUNK, np.float32)
    for size in (1, 3, 5):
        assert len(forward([Part(k, True, silent, False) for k in range(size)])) == size
    forward([Part(0, False, silent[:500], True)])
    usual, ending = Chunking().most_tokens
    assert seen == [(1, usual), (4, usual), (6, usual), (1, ending)]


def test_memory_of_slots_that_are_not_used_is_not_taken(streaming_folder: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux tells")
    before = resident()
    executor = _executor(streaming_folder, 20_000)
    EagerForward(executor)([Part(11_111, True, noise(1, CHUNK), False)])
    assert executor.bytes_per_slot * 20_000 > 2e9
    assert resident() - before < 2e8
