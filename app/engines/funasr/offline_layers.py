"""The layers of the models that see their input whole, and in padded batches.

The blocks are those of ``layers.py``; parameter names are those of the published checkpoints.
Behaviour after funasr 1.4.16: ``sanm/encoder.py``, ``sense_voice/model.py`` (encoder with a second
stack), ``paraformer/decoder.py``, ``paraformer/cif_predictor.py``.

Shapes: b inputs, t rows, d channels. What is behind an input's end never reaches what is before it:
attention does not look there, and the memories hear zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.engines.funasr.layers import (
    CrossAttention,
    DecoderFeedForward,
    EncoderLayer,
    LastDecoderLayer,
    Memory,
    attend,
    heads,
    norm,
)


def rows_there(length: Tensor, rows: int) -> Tensor:
    """(b, ``rows``), true for the first ``length`` (b,) of each."""
    return torch.arange(rows, device=length.device) < length[:, None]


def positions(rows: int, width: int, device: torch.device) -> Tensor:
    """Sinusoids for the places 1 … ``rows``, (rows, width): funasr's SinusoidalPositionEncoder."""
    step = torch.log(torch.tensor([10000.0], device=device)) / (width / 2 - 1)
    scales = torch.exp(torch.arange(width / 2, device=device) * -step)
    angles = torch.arange(1, rows + 1, device=device).float()[:, None] * scales
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """``shift``: places by which the memory looks further back, and less ahead
    (``sanm_shfit``). ``after_blocks``: blocks of the second stack, None where there is none."""

    in_width: int
    width: int
    heads: int
    hidden: int
    blocks: int
    kernel: int
    shift: int = 0
    after_blocks: int | None = None


class WholeEncoder(nn.Module):
    """SAN-M over whole inputs (funasr: SANMEncoder, SANMVadEncoder, SenseVoiceEncoderSmall)."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.size = size
        self.encoders0 = nn.ModuleList([_block(size, size.in_width)])
        self.encoders = nn.ModuleList(_block(size, size.width) for _ in range(size.blocks - 1))
        self.after_norm = norm(size.width)
        if size.after_blocks is not None:
            self.tp_encoders = nn.ModuleList(
                _block(size, size.width) for _ in range(size.after_blocks)
            )
            self.tp_norm = norm(size.width)

    def forward(
        self, x: Tensor, there: Tensor, mask: Tensor | None = None, last_mask: Tensor | None = None
    ) -> Tensor:
        """(b, t, in_width) in fp32 to (b, t, width), of which the rows that are ``there`` count.

        ``there``: (b, t). ``mask``: what each row may look at, (b, 1, t, t), and of the last block
        ``last_mask``; None: all that is there.
        """
        everything = there[:, None, None, :]
        mask = everything if mask is None else mask
        last_mask = everything if last_mask is None else last_mask
        x = x * self.size.width**0.5 + positions(x.shape[1], x.shape[2], x.device)
        x = x.to(self.after_norm.weight.dtype)
        keep = there[:, :, None].to(x.dtype)
        window = x.new_empty(x.shape[0], x.shape[1], 2 * self.size.width)
        blocks = [*self.encoders0, *self.encoders]
        for block in blocks[:-1]:
            x = block(x, window, 0, mask, keep)
        x = self.after_norm(blocks[-1](x, window, 0, last_mask, keep))
        if self.size.after_blocks is None:
            return x
        for block in self.tp_encoders:
            x = block(x, window, 0, mask, keep)
        out: Tensor = self.tp_norm(x)
        return out


def _block(size: EncoderSize, in_width: int) -> EncoderLayer:
    block = EncoderLayer(in_width, size.width, size.heads, size.hidden, size.kernel)
    block.self_attn.pads = _pads(size.kernel, size.shift)
    return block


def _pads(kernel: int, shift: int) -> tuple[int, int]:
    left = (kernel - 1) // 2 + shift
    return left, kernel - 1 - left


@dataclass(frozen=True, slots=True)
class DecoderSize:
    """``shift``: as of :class:`EncoderSize`."""

    vocabulary: int
    width: int
    heads: int
    hidden: int
    blocks: int
    kernel: int
    shift: int = 0


class WholeDecoderLayer(nn.Module):
    """A block of the decoder: feed-forward, memory of all tokens, attention to the audio."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.feed_forward = DecoderFeedForward(size.width, size.hidden)
        self.self_attn = Memory(size.width, size.kernel, *_pads(size.kernel, size.shift))
        self.src_attn = CrossAttention(size.width, size.heads)
        self.norm1 = norm(size.width)
        self.norm2 = norm(size.width)
        self.norm3 = norm(size.width)

    def forward(self, x: Tensor, keep: Tensor, heard: Tensor, mask: Tensor) -> Tensor:
        """(b, t, d), unchanged in shape. ``keep`` (b, t, 1): 1.0 for tokens that are there.
        ``heard``: what they attend to (b, s, d), as far as ``mask`` (b, 1, 1, s) lets them."""
        x = self._remembered(x, keep)
        attention = self.src_attn
        q: Tensor = attention.linear_q(self.norm3(x))
        kv: Tensor = attention.linear_k_v(heard)
        out: Tensor = attention.linear_out(attend(q, kv, mask, attention.count))
        return out.add_(x)

    def attention(self, x: Tensor, keep: Tensor, heard: Tensor, mask: Tensor) -> Tensor:
        """How much each token looks at each of ``heard``, (b, heads, t, s), each row adding up
        to 1; arguments as of :meth:`forward`."""
        attention = self.src_attn
        q = heads(attention.linear_q(self.norm3(self._remembered(x, keep))), attention.count)
        kv: Tensor = attention.linear_k_v(heard)
        k = heads(kv.chunk(2, dim=2)[0], attention.count)
        scores = q * q.shape[3] ** -0.5 @ k.transpose(2, 3)
        shares: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(3)
        return shares

    def _remembered(self, x: Tensor, keep: Tensor) -> Tensor:
        inner: Tensor = self.norm2(self.feed_forward(self.norm1(x))) * keep
        context = functional.pad(inner, (0, 0, *self.self_attn.pads))
        return self.self_attn.convolve(context, inner).mul_(keep).add_(x)


class BareDecoder(nn.Module):
    """A decoder without tokens of its own."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(WholeDecoderLayer(size) for _ in range(size.blocks))
        self.decoders3 = nn.ModuleList([LastDecoderLayer(size.width, size.hidden)])
        self.after_norm = norm(size.width)

    def hidden(self, x: Tensor, there: Tensor, heard: Tensor, heard_there: Tensor) -> Tensor:
        """(b, t, d) to (b, t, d). ``there`` (b, t): tokens; ``heard_there`` (b, s): rows."""
        keep = there[:, :, None].to(x.dtype)
        mask = heard_there[:, None, None, :]
        for layer in self.decoders:
            x = layer(x, keep, heard, mask)
        out: Tensor = self.after_norm(self.decoders3[0](x))
        return out


class WholeDecoder(BareDecoder):
    """The decoder of the offline Paraformer: all tokens of a sentence at once."""

    def __init__(self, size: DecoderSize) -> None:
        super().__init__(size)
        self.embed = nn.Sequential(nn.Embedding(size.vocabulary, size.width))  # training, hotwords
        self.output_layer = nn.Linear(size.width, size.vocabulary)

    def logits(self, hidden: Tensor) -> Tensor:
        """(b, t, d) to (b, t, vocabulary)."""
        out: Tensor = self.output_layer(hidden)
        return out


@dataclass(frozen=True, slots=True)
class Fired:
    """``count`` (b,): tokens. ``tokens`` (b, most, d): what they heard, zeros behind the last.
    ``peaks`` (b, most): the row in which each became complete. ``margin`` (b,): how near the sum
    of weights came to a whole number, for tests."""

    count: Tensor
    tokens: Tensor
    peaks: Tensor
    margin: Tensor


def integrate(encoded: Tensor, weights: Tensor, length: Tensor, tail: float) -> Fired:
    """Continuous integrate-and-fire over whole inputs, for all tokens at once.

    ``encoded`` (b, t, d) and ``weights`` (b, t), both zero behind ``length`` (b,), where a row of
    zeros with the weight ``tail`` is put. With P the sum of weights up to a row, that row belongs
    to token k as far as its part of the sum lies between k and k + 1. Sums in float64, as in
    funasr 1.4.16 (cif_v1). Waits for the device once, to know the longest.
    """
    at_end = functional.one_hot(length, weights.shape[1] + 1)
    alphas = functional.pad(weights, (0, 1)) + tail * at_end
    ends = alphas.double().cumsum(1)
    begins = functional.pad(ends[:, :-1], (1, 0))
    total = ends[:, -1]
    count = total.floor().nan_to_num(0.0).long()
    most = int(count.max())
    place = torch.arange(most, device=ends.device)[None, :, None]
    upper = torch.minimum(ends[:, None, :], place + 1.0)
    shares = (upper - torch.maximum(begins[:, None, :], place)).clamp(min=0.0)
    there = torch.arange(most, device=ends.device) < count[:, None]
    shares = shares.masked_fill(~there[:, :, None], 0.0)
    rows = functional.pad(encoded, (0, 0, 0, 1))
    peaks = (ends[:, None, :] < place + 1.0).sum(2)
    margin = (ends - ends.round()).abs().masked_fill(alphas == 0, 1.0).amin(1)
    return Fired(count, shares.to(encoded.dtype) @ rows, peaks, margin)
