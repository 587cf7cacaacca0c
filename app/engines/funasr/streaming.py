"""The streaming Paraformer's network; its checkpoint loads into it as it is.

Architecture: config.yaml of ``paraformer-zh-streaming``; ``ParaformerStreaming``,
``SANMEncoderChunkOpt``, ``ParaformerSANMDecoder`` and ``CifPredictorV2`` of funasr 1.4.16. How its
parts work together on chunks is in ``executor.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from app.engines.funasr import checkpoint
from app.engines.funasr.dtypes import in_dtype
from app.engines.funasr.features import WIDTH
from app.engines.funasr.layers import (
    DecoderLayer,
    EncoderLayer,
    LastDecoderLayer,
    Predictor,
    norm,
)
from app.engines.funasr.settings import Dtype


class _Encoder(checkpoint.Strict, frozen=True, kw_only=True):
    output_size: checkpoint.Width
    attention_heads: checkpoint.Heads
    linear_units: checkpoint.Hidden
    num_blocks: checkpoint.Blocks
    kernel_size: checkpoint.Kernel
    input_layer: Literal["pe_online"]
    pos_enc_class: Literal["SinusoidalPositionEncoder"] = "SinusoidalPositionEncoder"
    normalize_before: bool = True
    concat_after: bool = False
    selfattention_layer_type: Literal["sanm"] = "sanm"
    sanm_shfit: Literal[0] = 0
    # Of the masks in training. Streaming has its chunk and look-back from its caller.
    chunk_size: list[int] | None = None
    stride: list[int] | None = None
    pad_left: list[int] | None = None
    encoder_att_look_back_factor: list[int] | None = None
    decoder_att_look_back_factor: list[int] | None = None
    dropout_rate: checkpoint.Ignored = None
    positional_dropout_rate: checkpoint.Ignored = None
    attention_dropout_rate: checkpoint.Ignored = None
    tf2torch_tensor_name_prefix_torch: checkpoint.Ignored = None
    tf2torch_tensor_name_prefix_tf: checkpoint.Ignored = None

    def __post_init__(self) -> None:
        if not self.normalize_before or self.concat_after:
            raise ValueError("normalize_before must be true, and concat_after false")
        if self.output_size % self.attention_heads:
            raise ValueError("attention_heads must divide output_size")


class _Decoder(checkpoint.Strict, frozen=True, kw_only=True):
    attention_heads: checkpoint.Heads
    linear_units: checkpoint.Hidden
    num_blocks: checkpoint.Blocks
    att_layer_num: checkpoint.Blocks
    kernel_size: checkpoint.Kernel
    sanm_shfit: checkpoint.Places
    input_layer: Literal["embed"] = "embed"
    dropout_rate: checkpoint.Ignored = None
    positional_dropout_rate: checkpoint.Ignored = None
    self_attention_dropout_rate: checkpoint.Ignored = None
    src_attention_dropout_rate: checkpoint.Ignored = None
    tf2torch_tensor_name_prefix_torch: checkpoint.Ignored = None
    tf2torch_tensor_name_prefix_tf: checkpoint.Ignored = None

    def __post_init__(self) -> None:
        if self.att_layer_num != self.num_blocks:
            raise ValueError("att_layer_num must be num_blocks")
        if 2 * self.sanm_shfit != self.kernel_size - 1:
            raise ValueError("sanm_shfit must be half of kernel_size: no token sees a later one")


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """What of config.yaml the computation depends on; its other parts are of training."""

    model: Literal["ParaformerStreaming"]
    encoder: Literal["SANMEncoderChunkOpt"]
    encoder_conf: _Encoder
    decoder: Literal["ParaformerSANMDecoder"]
    decoder_conf: _Decoder
    predictor: Literal["CifPredictorV2"]
    predictor_conf: checkpoint.Predictor
    frontend: Literal["WavFrontendOnline"]
    frontend_conf: checkpoint.RowFrontend

    def __post_init__(self) -> None:
        if self.predictor_conf.idim != self.encoder_conf.output_size:
            raise ValueError("predictor_conf.idim must be encoder_conf.output_size")
        if self.encoder_conf.output_size % self.decoder_conf.attention_heads:
            raise ValueError("the decoder's attention_heads must divide the encoder's output_size")


class Encoder(nn.Module):
    """Blocks over rows of audio."""

    def __init__(self, conf: _Encoder) -> None:
        super().__init__()
        width, count = conf.output_size, conf.attention_heads
        hidden, kernel = conf.linear_units, conf.kernel_size
        self.encoders0 = nn.ModuleList([EncoderLayer(WIDTH, width, count, hidden, kernel)])
        self.encoders = nn.ModuleList(
            EncoderLayer(width, width, count, hidden, kernel) for _ in range(conf.num_blocks - 1)
        )
        self.after_norm = norm(width)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """All blocks, in order."""
        return [*self.encoders0, *self.encoders]


class Decoder(nn.Module):
    """Blocks over tokens."""

    def __init__(self, conf: _Decoder, width: int, vocabulary: int) -> None:
        super().__init__()
        # Of training only, but in the checkpoint.
        self.embed = nn.Sequential(nn.Embedding(vocabulary, width))
        self.decoders = nn.ModuleList(
            DecoderLayer(width, conf.attention_heads, conf.linear_units, conf.kernel_size)
            for _ in range(conf.num_blocks)
        )
        self.decoders3 = nn.ModuleList([LastDecoderLayer(width, conf.linear_units)])
        self.after_norm = norm(width)
        self.output_layer = nn.Linear(width, vocabulary)

    def finish(self, x: Tensor) -> Tensor:
        """What the blocks made of the tokens, (b, t, width), to logits (b, t, vocabulary)."""
        out: Tensor = self.output_layer(self.after_norm(self.decoders3[0](x)))
        return out


class StreamingParaformer(nn.Module):
    """Encoder, predictor and decoder. ``vocabulary``: how many tokens there are."""

    def __init__(self, architecture: Architecture, vocabulary: int) -> None:
        super().__init__()
        self.width = architecture.encoder_conf.output_size
        self.memory = architecture.decoder_conf.kernel_size - 1
        predictor = architecture.predictor_conf
        self.encoder = Encoder(architecture.encoder_conf)
        self.decoder = Decoder(architecture.decoder_conf, self.width, vocabulary)
        self.predictor = Predictor(
            self.width, predictor.l_order, predictor.r_order, predictor.tail_threshold
        )

    def cast(self, dtype: Dtype) -> None:
        """Change the arithmetic of all but the predictor, where rounding moves tokens."""
        in_dtype(self, dtype, exact=[self.predictor])


def load_model(folder: Path) -> tuple[StreamingParaformer, list[str]]:
    """The network with its weights, in fp32 on the CPU, and the names of its tokens.

    Raises:
        EngineNotUsable: a file is missing or damaged, or it is another model.
    """
    config: dict[str, Any] = checkpoint.read_config(folder)
    architecture = checkpoint.architecture(folder, config, Architecture)
    names = checkpoint.read_tokens(folder)
    with torch.device("meta"):  # no random numbers for what is loaded at once
        model = StreamingParaformer(architecture, len(names))
    model.to_empty(device="cpu")
    checkpoint.load_weights(model, folder)
    return model.eval(), names
