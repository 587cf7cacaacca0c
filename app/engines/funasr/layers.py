"""SANM, FSMN and CIF: the layers of all these models, for many streams at once.

Their parameters have the names of the published checkpoints, so ``load_state_dict`` takes those as
they are. Nothing here knows of streams: what the past left comes in gathered, and goes out again as
what is new. Behaviour and names after funasr 1.4.16, ``models/sanm`` (SAN-M: self-attention with a
memory block, an FSMN), ``models/paraformer`` (decoder, CIF).

Shapes: b streams, t rows of 60 ms or tokens, d channels. Masks are true where something is there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-12
"""Of the layer norms: funasr 1.4.16, transformer/layer_norm.py."""


def norm(width: int) -> nn.LayerNorm:
    """Layer normalisation with FunASR's epsilon."""
    return nn.LayerNorm(width, eps=_EPSILON)


def heads(x: Tensor, count: int) -> Tensor:
    """(b, t, d) as (b, heads, t, d / heads)."""
    return torch.unflatten(x, 2, (count, -1)).transpose(1, 2)


def attend(q: Tensor, kv: Tensor, mask: Tensor, count: int) -> Tensor:
    """What each row of ``q`` (b, t, d) finds in ``kv`` (b, s, 2d: keys, then values).

    ``mask``: boolean, broadcast to (b, heads, t, s); at least one true for each row.
    """
    k, v = kv.chunk(2, dim=2)
    mixed = functional.scaled_dot_product_attention(
        heads(q, count), heads(k, count), heads(v, count), attn_mask=mask
    )
    return mixed.transpose(1, 2).flatten(2)


class Memory(nn.Module):
    """The memory block (FSMN): a convolution over time, each channel for itself.

    ``pads``: rows of context that the kernel wants before and after.
    """

    def __init__(self, width: int, kernel: int, left: int, right: int) -> None:
        super().__init__()
        self.fsmn_block = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        # In memory step by step, which makes a CPU five times as fast below; the shape stays.
        weight = self.fsmn_block.weight.detach().permute(2, 1, 0).contiguous()
        self.fsmn_block.weight = nn.Parameter(weight.permute(2, 1, 0))
        self.pads = (left, right)

    def convolve(self, x: Tensor, onto: Tensor) -> Tensor:
        """``onto`` (b, t, d), which is overwritten, plus the memory of ``x`` (b, t + pads, d).

        On a CPU the steps of the kernel one after the other are several times as fast as the
        convolution with its transpositions.
        """
        weight = self.fsmn_block.weight
        if x.device.type != "cpu":
            memory = functional.conv1d(x.transpose(1, 2), weight, groups=len(weight))
            return onto.add_(memory.transpose(1, 2))
        length = onto.shape[1]
        for k in range(weight.shape[2]):
            onto.addcmul_(x[:, k : k + length], weight[:, 0, k])
        return onto


class SelfAttention(Memory):
    """Self-attention plus the memory of its values."""

    def __init__(self, in_width: int, width: int, count: int, kernel: int) -> None:
        half = (kernel - 1) // 2
        super().__init__(width, kernel, half, kernel - 1 - half)
        self.count = count
        self.width = width
        self.linear_q_k_v = nn.Linear(in_width, 3 * width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, x: Tensor, window: Tensor, back: int, mask: Tensor, there: Tensor) -> Tensor:
        """(b, t, in_width) to (b, t, width).

        ``window`` (b, back + t, 2·width): keys and values of the past in its first ``back`` rows;
        those of ``x`` are put into the others. ``there`` (b, t, 1): 1.0, or 0.0 for rows that are
        only padding, which the memory must not hear.
        """
        q, kv = self.linear_q_k_v(x).split((self.width, 2 * self.width), dim=2)
        window[:, back:].copy_(kv)
        v = kv[:, :, self.width :] * there
        memory = self.convolve(functional.pad(v, (0, 0, *self.pads)), v)
        mixed: Tensor = self.linear_out(attend(q, window, mask, self.count))
        return mixed.add_(memory)


class EncoderFeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, width), unchanged in shape."""
        out: Tensor = self.w_2(self.w_1(x).relu_())
        return out


class EncoderLayer(nn.Module):
    """A block of the encoder; the first one widens its input and has no residual around the
    attention."""

    def __init__(self, in_width: int, width: int, count: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(in_width, width, count, kernel)
        self.feed_forward = EncoderFeedForward(width, hidden)
        self.norm1 = norm(in_width)
        self.norm2 = norm(width)
        self.residual = in_width == width

    def forward(self, x: Tensor, window: Tensor, back: int, mask: Tensor, there: Tensor) -> Tensor:
        """As :meth:`SelfAttention.forward`."""
        mixed: Tensor = self.self_attn(self.norm1(x), window, back, mask, there)
        x = mixed.add_(x) if self.residual else mixed
        fed: Tensor = self.feed_forward(self.norm2(x))
        return fed.add_(x)


class CrossAttention(nn.Module):
    """The layers of the attention of tokens to encoder rows; :class:`DecoderLayer` joins them."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear_q = nn.Linear(width, width)
        self.linear_k_v = nn.Linear(width, 2 * width)
        self.linear_out = nn.Linear(width, width)


class DecoderFeedForward(nn.Module):
    """Two linear layers with a ReLU and a norm between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width, bias=False)
        self.norm = norm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, width), unchanged in shape."""
        out: Tensor = self.w_2(self.norm(self.w_1(x).relu_()))
        return out


class DecoderLayer(nn.Module):
    """A block of the decoder: feed-forward, memory of the tokens before, attention to the audio."""

    def __init__(self, width: int, count: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.feed_forward = DecoderFeedForward(width, hidden)
        self.self_attn = Memory(width, kernel, kernel - 1, 0)
        self.src_attn = CrossAttention(width, count)
        self.norm1 = norm(width)
        self.norm2 = norm(width)
        self.norm3 = norm(width)

    def forward(
        self, x: Tensor, heard: Tensor, before: Tensor, past: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New rows for the tokens ``x`` (b, t, d), and what later chunks need.

        ``heard`` (b, s, d): encoder rows. ``before`` (b, kernel - 1, d): the inputs of the memory
        for the tokens before these. ``past`` (b, p, 2d): keys and values of earlier encoder rows.
        ``mask``: of ``past`` and ``heard``, (b, 1, 1, p + s). Second result: the inputs of the
        memory, (b, kernel - 1 + t, d); third: keys and values of ``heard``.
        """
        inner: Tensor = self.norm2(self.feed_forward(self.norm1(x)))
        context = torch.cat([before, inner], dim=1)
        x = self.self_attn.convolve(context, inner).add_(x)
        attention = self.src_attn
        kv: Tensor = attention.linear_k_v(heard)
        q: Tensor = attention.linear_q(self.norm3(x))
        mixed = attend(q, torch.cat([past, kv], dim=1), mask, attention.count)
        out: Tensor = attention.linear_out(mixed)
        return out.add_(x), context, kv


class LastDecoderLayer(nn.Module):
    """The last block of the decoder: only a feed-forward, without residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.feed_forward = DecoderFeedForward(width, hidden)
        self.norm1 = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, width), unchanged in shape."""
        out: Tensor = self.feed_forward(self.norm1(x))
        return out


class Predictor(nn.Module):
    """Continuous integrate-and-fire (CIF): how much each row weighs, and in which token.

    Rows are summed up by weight; wherever the sum reaches 1 a token fires, and the weight of that
    row is divided between it and the next one. ``tail``: the weight of a row of zeros after the
    last one, so that a token that is nearly complete fires at the end.
    """

    def __init__(self, width: int, left: int, right: int, tail: float) -> None:
        super().__init__()
        self.cif_conv1d = nn.Conv1d(width, width, left + right + 1)
        self.cif_output = nn.Linear(width, 1)
        self.pads = (left, right)
        self.tail = tail

    def weights(self, encoded: Tensor) -> Tensor:
        """(b, t, d) to (b, t), each in [0, 1]. Rows that are only padding must be zero: the
        convolution reads them."""
        padded = functional.pad(encoded.transpose(1, 2), self.pads)
        x = functional.relu(self.cif_conv1d(padded))
        out: Tensor = self.cif_output(x.transpose(1, 2))
        return torch.sigmoid(out).squeeze(2)

    @staticmethod
    def fire(alphas: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Divide the weights (b, t) among tokens, without waiting for the device.

        Returns the shares (b, most + 1, t) of the rows in the tokens, the open token last, at
        place ``count``; counts (b,); the weight that the open token has (b,); and how near a sum
        came to 1 (b,), for tests. ``most`` must be at least as large as any count.
        """
        batch, rows = alphas.shape
        shares = alphas.new_zeros(batch, most + 1, rows)
        count = torch.zeros(batch, dtype=torch.long, device=alphas.device)
        level = alphas.new_zeros(batch)
        margin = alphas.new_full((batch,), 1.0)
        for row in range(rows):
            alpha = alphas[:, row]
            total = level + alpha
            fires = total >= 1.0
            margin = torch.where(alpha > 0, torch.minimum(margin, (total - 1.0).abs()), margin)
            share = torch.where(fires, 1.0 - level, alpha)
            shares[:, :, row].scatter_(1, count[:, None].clamp(max=most), share[:, None])
            count = count + fires
            level = torch.where(fires, total - 1.0, total)
            rest = torch.where(fires, level, 0.0)
            shares[:, :, row].scatter_add_(1, count[:, None].clamp(max=most), rest[:, None])
        return shares, count, level, margin
