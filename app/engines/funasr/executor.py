"""The streaming Paraformer over slots: one forward for every stream that is ready.

    slot s:  last 480 samples · last rows, embedded · keys and values of 4 chunks (a ring) for each
             encoder block · the open token of the predictor · last 10 inputs of the memory and last
             rows' keys and values for each decoder block · number of chunks and of tokens so far

The state is in tensors with a dimension for the slot, on the model's device, gathered and written
in place. A stream's rows go through the same arithmetic whoever else is in the batch. The rules are
those of funasr 1.4.16 (models/paraformer_streaming/model.py), found by comparison and held by
tests/funasr; the position table that it computes anew for each chunk is replaced by the rows that
are needed, so a stream does not get dearer with its age.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.audio.pcm import Float32
from app.engines.funasr.dtypes import TORCH_DTYPES
from app.engines.funasr.features import LOOK_BACK, ROW_SAMPLES, WIDTH, ChunkFeatures
from app.engines.funasr.layers import Predictor
from app.engines.funasr.settings import Dtype
from app.engines.funasr.streaming import StreamingParaformer

_POSITION_BASE: Final = 10_000.0
_NEVER: Final = 1e9
"""Margin where there is nothing to be near to."""
_CHOICES: Final = 10
"""Readings of a token that are given out, for hotwords; on a CPU that costs half a millisecond for
16 streams more than two would, which is a two-thousandth of their forward."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """``rows``: of 60 ms in a chunk. ``right``: how many of them the next chunk sees again, with
    what follows: the look-ahead. ``encoder_chunks``, ``decoder_chunks``: chunks that are looked
    back."""

    rows: int = 10
    right: int = 5
    encoder_chunks: int = 4
    decoder_chunks: int = 1

    @property
    def samples(self) -> int:
        """In a whole chunk."""
        return self.rows * ROW_SAMPLES

    @property
    def span(self) -> int:
        """Rows that a forward sees."""
        return self.right + self.rows

    @property
    def most_tokens(self) -> tuple[int, int]:
        """That can fire in a chunk, and in a last one, where the look-ahead and the tail count as
        well: each row weighs less than 1."""
        return self.rows, self.span + 1


@dataclass(frozen=True, slots=True)
class Tokens:
    """What fired, on the device.

    ``choices`` (b, t, k): the best tokens for each place, the best one first, of which the first
    ``count`` (b,) places are there; ``scores`` (b, t, k): their log-probabilities, up to a constant
    for each place. ``shares`` (b, most + 1, 2 + span): how much of each token came from the open
    token, each row and the tail. ``sound`` (b,): nothing in the
    stream is NaN or infinite. For tests, how close the calls were: ``top_margin`` (b,) between the
    best two tokens, ``fire_margin`` (b,) of the sums to 1.
    """

    choices: Tensor
    scores: Tensor
    count: Tensor
    shares: Tensor
    sound: Tensor
    top_margin: Tensor
    fire_margin: Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """One stream's part of a forward. ``fresh``: the slot has a new stream. ``samples``: a whole
    chunk, or less if ``last``; under 960 stand for no rows but the look-ahead. ``choices``: not
    only the best tokens are wanted."""

    slot: int
    fresh: bool
    samples: Float32
    last: bool
    choices: bool = False


@dataclass(frozen=True, slots=True)
class Choices:
    """The best tokens for each place, (t, k), and their scores; see :class:`Tokens`."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one stream's part gave, on the host; see :class:`Tokens`. ``choices``: where they were
    wanted."""

    ids: list[int]
    shares: NDArray[np.float32]
    sound: bool
    margin: float
    choices: Choices | None = None


class Forward(Protocol):
    """Runs forwards: :class:`EagerForward`, or by CUDA graphs (``graphs.py``)."""

    @property
    def most_parts(self) -> int:
        """Parts in one call."""
        ...

    def __call__(self, parts: Sequence[Part]) -> list[Heard]:
        """One forward, in the thread of the steps. Waits for its result."""
        ...


class Executor:
    """``model`` for ``slots`` streams at a time, and a spare slot for filling a batch up.

    ``most_streams``: streams in the largest batch, 0 for ``slots``. For one thread.
    """

    def __init__(
        self,
        model: StreamingParaformer,
        slots: int,
        *,
        chunking: Chunking,
        normalisation: tuple[Tensor, Tensor] | None = None,
        device: str = "cpu",
        dtype: Dtype = "fp32",
        most_streams: int = 0,
    ) -> None:
        self.model = model.eval().to(device)
        self.chunking = chunking
        self.spare = slots
        self.device = device
        self._dtype = TORCH_DTYPES[dtype]
        self._features = ChunkFeatures(chunking.rows, normalisation).to(device)
        self._blocks = model.encoder.layers
        self._ring = chunking.encoder_chunks
        self._ring_rows = chunking.encoder_chunks * chunking.rows
        self._back = chunking.decoder_chunks * chunking.rows
        total, width, kind = slots + 1, model.width, self._dtype
        blocks, layers = len(self._blocks), len(model.decoder.decoders)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return _zeros(shape, dtype, device)

        self._audio = zeros(total, LOOK_BACK)
        self._embedded = zeros(total, chunking.right, WIDTH)
        self._kv = zeros(blocks, total, self._ring, chunking.rows, 2 * width, dtype=kind)
        self._open = zeros(total, width)
        self._level = zeros(total)
        self._memory = zeros(layers, total, model.memory, width, dtype=kind)
        self._heard = zeros(layers, total, self._back, 2 * width, dtype=kind)
        self._decoded = zeros(total, dtype=torch.long)
        self._chunks = zeros(total, dtype=torch.long)
        # One for all blocks: fresh memory of this size costs more than what is copied into it.
        rows = self._ring_rows + chunking.span
        self.most_streams = most_streams or slots
        self._window = zeros(self.most_streams, rows, 2 * width, dtype=kind)
        half = WIDTH // 2
        increment = torch.log(torch.tensor([_POSITION_BASE])) / (half - 1)
        self._scales = torch.exp(torch.arange(half) * -increment).to(device)
        longest = max(chunking.span + 2, chunking.rows, model.memory)
        self._numbers = torch.arange(longest, device=device)

    @property
    def bytes_per_slot(self) -> int:
        """Memory of a slot that has been used."""
        flat = (self._audio, self._embedded, self._open, self._level)
        layered = (self._kv, self._memory, self._heard)
        return sum(t[0].nbytes for t in flat) + sum(t[:, 0].nbytes for t in layered)

    @torch.inference_mode()
    def reset(self, slots: Tensor) -> None:
        """New streams begin in these slots. The rings are cleared as well although the counters
        hide them: a NaN that an earlier stream left there gets through a mask (0 · NaN)."""
        flat = (self._audio, self._embedded, self._open, self._level, self._decoded, self._chunks)
        for state in flat:
            state.index_fill_(0, slots, 0)
        for layered in (self._kv, self._memory, self._heard):
            layered.index_fill_(1, slots, 0)

    def set_age(self, slots: Tensor, chunks: int) -> None:
        """For tests and benchmarks: as if ``chunks`` chunks had been taken in before. For the same
        ring, at least ``encoder_chunks``, and a multiple of them more than there were."""
        self._chunks[slots] = chunks

    @torch.inference_mode()
    def step(
        self, slots: Tensor, audio: Tensor, length: Tensor, last: Tensor, tokens: int | None = None
    ) -> Tokens:
        """Take in one chunk of each stream; ``slots`` (b,), no one twice except the spare one.

        ``audio`` (b, chunk samples) in [-1, 1], zeros after ``length`` (b,), which is less than a
        whole chunk only where ``last`` (b,). ``tokens``: the length that the ids are padded to, at
        least what can fire (:attr:`Chunking.most_tokens`); then nothing here waits for the device.
        None: the longest that there is, which does.
        """
        chunks = self._chunks.index_select(0, slots)
        rows, x = self._embed(slots, audio, length, last, chunks)
        there = self._numbers[: self.chunking.span] < (self.chunking.right + rows)[:, None]
        encoded = self._encode(slots, x.to(self._dtype), there, chunks)
        result = self._decode(slots, encoded, there, last, tokens)
        self._chunks.index_copy_(0, slots, chunks + 1)
        return result

    def _embed(
        self, slots: Tensor, audio: Tensor, length: Tensor, last: Tensor, chunks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How many of the new rows are there, (b,), and all rows of the span, (b, span, 560)."""
        window = torch.cat([self._audio.index_select(0, slots), audio], dim=1)
        self._audio.index_copy_(0, slots, window[:, -LOOK_BACK:])
        features, rows = self._features(window, length, chunks == 0)
        bare = last & (length < ROW_SAMPLES)
        rows = torch.where(bare, 0, rows)
        features = features * math.sqrt(self.model.width) + self._positions(chunks)
        # funasr 1.4.16 multiplies what was looked ahead by the root once more where it comes alone;
        # the norm that the first block begins with undoes that.
        x = torch.cat([self._embedded.index_select(0, slots), features], dim=1)
        self._embedded.index_copy_(0, slots, x[:, -self.chunking.right :])
        return rows, x

    def _positions(self, chunks: Tensor) -> Tensor:
        """Sines and cosines of the new rows' positions, which count from 1, (b, rows, 560)."""
        first = chunks * self.chunking.rows + 1
        position = (first[:, None] + self._numbers[: self.chunking.rows]).float()
        angle = position[:, :, None] * self._scales
        return torch.cat([angle.sin(), angle.cos()], dim=2)

    def _encode(self, slots: Tensor, x: Tensor, there: Tensor, chunks: Tensor) -> Tensor:
        """(b, span, width), zero where a row is not there."""
        batch, back = len(slots), self._ring_rows
        keep = there[:, :, None].to(x.dtype)
        filled = self._numbers[: self._ring] < chunks[:, None]
        past = filled[:, :, None].expand(-1, -1, self.chunking.rows).flatten(1)
        mask = torch.cat([past, there], dim=1)[:, None, None, :]
        # Attention does not care for order, so the ring is never shifted.
        place = slots * self._ring + chunks % self._ring
        window = self._window[:batch]
        for block, kv in zip(self._blocks, self._kv, strict=True):
            window[:, :back].copy_(kv.index_select(0, slots).view(batch, back, -1))
            x = block(x, window, back, mask, keep)
            new = window[:, back : back + self.chunking.rows]
            kv.flatten(0, 1).index_copy_(0, place, new)
        encoded: Tensor = self.model.encoder.after_norm(x)
        return encoded * keep

    def _decode(
        self, slots: Tensor, encoded: Tensor, there: Tensor, last: Tensor, tokens: int | None
    ) -> Tokens:
        most = self.chunking.most_tokens[1] if tokens is None else tokens
        sums, shares, count, level, fire_margin = self._fire(slots, encoded, there, last, most)
        sound = level.isfinite()
        if tokens is None:
            tokens = int(count.max())
        if tokens == 0:
            nothing = count.new_zeros(len(slots), 0, 1)
            never = fire_margin.new_full((1,), _NEVER)
            return Tokens(nothing, nothing.float(), count, shares, sound, never, fire_margin)
        x = self._spell(slots, encoded, sums[:, :tokens].to(self._dtype), count, there)
        logits = self.model.decoder.finish(x).float()
        best = logits.topk(min(_CHOICES, logits.shape[2]), dim=2)
        padding = self._numbers[:tokens] >= count[:, None]
        top, second = best.values[:, :, :2].unbind(2)
        sound = sound & (top.isfinite() | padding).all(1)
        margin = (top - second).masked_fill(padding, _NEVER).amin(1)
        return Tokens(best.indices, best.values, count, shares, sound, margin, fire_margin)

    def _fire(
        self, slots: Tensor, encoded: Tensor, there: Tensor, last: Tensor, most: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The predictor, in fp32: what the tokens heard (b, most + 1, width), and the results of
        :meth:`Predictor.fire` over the open token, the rows and the tail."""
        predictor = self.model.predictor
        encoded = encoded.float()
        ahead = self._numbers[: self.chunking.span] >= self.chunking.rows
        counts = there & (~ahead | last[:, None])
        alphas = torch.where(counts, predictor.weights(encoded), 0.0)
        tail = torch.where(last, predictor.tail, 0.0)
        open_level = self._level.index_select(0, slots)
        alphas = torch.cat([open_level[:, None], alphas, tail[:, None]], dim=1)
        open_frame = self._open.index_select(0, slots)
        nothing = torch.zeros_like(encoded[:, :1])
        frames = torch.cat([open_frame[:, None], encoded, nothing], dim=1)
        shares, count, level, margin = Predictor.fire(alphas, most)
        sums = shares @ frames
        place = count.clamp(max=most)[:, None, None].expand(-1, 1, sums.shape[2])
        rest = sums.gather(1, place)[:, 0]
        # Kept as a row of this weight.
        row = torch.where((level > 0)[:, None], rest / level.clamp(min=1e-30)[:, None], rest)
        self._level.index_copy_(0, slots, level)
        self._open.index_copy_(0, slots, row)
        return sums, shares, count, level, margin

    def _spell(
        self, slots: Tensor, encoded: Tensor, x: Tensor, count: Tensor, there: Tensor
    ) -> Tensor:
        """The decoder's blocks over tokens (b, t, width). Where none fired no state moves."""
        decoded = self._decoded.index_select(0, slots)
        known = (decoded > 0)[:, None].expand(-1, self._back)
        mask = torch.cat([known, there], dim=1)[:, None, None, :]
        fired = (count > 0)[:, None, None]
        # The memory's inputs after this chunk: they end with the last token that is there.
        recent = count.clamp(max=x.shape[1])[:, None] + self._numbers[: self.model.memory]
        recent = recent[:, :, None].expand(-1, -1, self.model.width)
        for block, memory, heard in zip(
            self.model.decoder.decoders, self._memory, self._heard, strict=True
        ):
            past = heard.index_select(0, slots)
            x, context, kv = block(x, encoded, memory.index_select(0, slots), past, mask)
            memory.index_copy_(0, slots, context.gather(1, recent))
            heard.index_copy_(0, slots, torch.where(fired, kv[:, -self._back :], past))
        self._decoded.index_copy_(0, slots, decoded + count)
        return x


class EagerForward:
    """Forwards of any size, op by op."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @property
    def most_parts(self) -> int:
        """Parts in one call."""
        return self._executor.most_streams

    def __call__(self, parts: Sequence[Part]) -> list[Heard]:
        """One forward."""
        reset_fresh(self._executor, parts)
        device = self._executor.device
        slots, audio, length, last = (
            tensor.to(device) for tensor in stacked(parts, len(parts), self._executor)
        )
        return fetched(self._executor.step(slots, audio, length, last), parts)


def reset_fresh(executor: Executor, parts: Sequence[Part]) -> None:
    """Clear the slots of new streams."""
    fresh = [part.slot for part in parts if part.fresh]
    if fresh:
        executor.reset(torch.tensor(fresh, device=executor.device))


def stacked(
    parts: Sequence[Part], size: int, executor: Executor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments of :meth:`Executor.step` on the host, for ``size`` streams: after ``parts``
    the spare slot hears silence."""
    audio = np.zeros((size, executor.chunking.samples), np.float32)
    slots = np.full(size, executor.spare, np.int64)
    length = np.full(size, executor.chunking.samples, np.int64)
    last = np.zeros(size, np.bool_)
    for i, part in enumerate(parts):
        audio[i, : part.samples.size] = part.samples
        slots[i], length[i], last[i] = part.slot, part.samples.size, part.last
    arrays = (slots, audio, length, last)
    first, second, third, fourth = map(torch.from_numpy, arrays)
    return first, second, third, fourth


def fetched(tokens: Tokens, parts: Sequence[Part]) -> list[Heard]:
    """The results of the streams in ``parts``, which are the first ones, on the host; waits for
    them."""
    ids, counts = tokens.choices[:, :, 0].tolist(), tokens.count.tolist()
    sound, shares = tokens.sound.tolist(), tokens.shares.cpu().numpy()
    margins = torch.minimum(tokens.top_margin, tokens.fire_margin).tolist()
    choices = _choices(tokens, counts, parts)
    return [
        Heard(ids[i][: counts[i]], shares[i], sound[i], margins[i], choices[i])
        for i in range(len(parts))
    ]


def _choices(tokens: Tokens, counts: Sequence[int], parts: Sequence[Part]) -> list[Choices | None]:
    """For those that want them; where nobody does, nothing is fetched."""
    if not any(part.choices for part in parts):
        return [None] * len(parts)
    ids, scores = tokens.choices.cpu().numpy(), tokens.scores.cpu().numpy()
    return [
        Choices(ids[i, :count], scores[i, :count]) if part.choices else None
        for i, (part, count) in enumerate(zip(parts, counts, strict=False))
    ]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    """Zeros; on the CPU their memory is taken only when it is written to, so unused slots cost
    nothing (torch.zeros writes)."""
    if device != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    raw = torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8))
    return raw.view(dtype).view(shape)
