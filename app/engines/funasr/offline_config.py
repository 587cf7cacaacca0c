"""config.yaml of the models that see their input whole: what is known of each part.

The parts are declared with all keys that FunASR's classes take (funasr 1.4.16, ``sanm/encoder.py``,
``sense_voice/model.py``, ``ct_transformer_streaming/encoder.py``, ``paraformer/decoder.py``), so
that a variant that would be computed wrongly is refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from app.engines.funasr.checkpoint import (
    AnyRowFrontend,
    Blocks,
    Heads,
    Hidden,
    Ignored,
    Kernel,
    Places,
    RowFrontend,
    Strict,
    Width,
)
from app.engines.funasr.checkpoint import Predictor as PredictorConfig
from app.engines.funasr.offline_layers import DecoderSize, EncoderSize


class EncoderConfig(Strict, frozen=True, kw_only=True):
    """``encoder_conf``; defaults are FunASR's."""

    output_size: Width = 256
    attention_heads: Heads = 4
    linear_units: Hidden = 2048
    num_blocks: Blocks = 6
    tp_blocks: Blocks | None = None
    kernel_size: Kernel = 11
    sanm_shfit: Places = 0
    input_size: Width | None = None
    input_layer: Literal["pe"] = "pe"
    pos_enc_class: Ignored = None
    normalize_before: Literal[True] = True
    concat_after: Literal[False] = False
    positionwise_layer_type: Literal["linear"] = "linear"
    positionwise_conv_kernel_size: Ignored = None
    selfattention_layer_type: Literal["sanm"] = "sanm"
    interctc_layer_idx: tuple[()] = ()
    interctc_use_conditioning: Literal[False] = False
    lora_list: None = None
    lora_rank: Ignored = None
    lora_alpha: Ignored = None
    lora_dropout: Ignored = None
    padding_idx: Ignored = None
    dropout_rate: Ignored = None
    positional_dropout_rate: Ignored = None
    attention_dropout_rate: Ignored = None
    stochastic_depth_rate: Ignored = None
    tf2torch_tensor_name_prefix_torch: Ignored = None
    tf2torch_tensor_name_prefix_tf: Ignored = None

    def __post_init__(self) -> None:
        if self.output_size % self.attention_heads:
            raise ValueError("attention_heads must divide output_size")
        _check_shift(self.sanm_shfit, self.kernel_size)

    def size(self, in_width: int) -> EncoderSize:
        """For inputs of ``in_width`` channels."""
        return EncoderSize(
            in_width=in_width,
            width=self.output_size,
            heads=self.attention_heads,
            hidden=self.linear_units,
            blocks=self.num_blocks,
            kernel=self.kernel_size,
            shift=self.sanm_shfit,
            after_blocks=self.tp_blocks,
        )


class DecoderConfig(Strict, frozen=True, kw_only=True):
    """``decoder_conf`` of ``ParaformerSANMDecoder``; defaults are FunASR's."""

    attention_heads: Heads = 4
    linear_units: Hidden = 2048
    num_blocks: Blocks = 6
    att_layer_num: Blocks = 6
    kernel_size: Kernel = 21
    sanm_shfit: Places = 0
    input_layer: Literal["embed"] = "embed"
    normalize_before: Literal[True] = True
    concat_after: Literal[False] = False
    use_output_layer: bool = True
    wo_input_layer: bool = False
    pos_enc_class: Ignored = None
    lora_list: None = None
    lora_rank: Ignored = None
    lora_alpha: Ignored = None
    lora_dropout: Ignored = None
    chunk_multiply_factor: Ignored = None
    dropout_rate: Ignored = None
    positional_dropout_rate: Ignored = None
    self_attention_dropout_rate: Ignored = None
    src_attention_dropout_rate: Ignored = None
    tf2torch_tensor_name_prefix_torch: Ignored = None
    tf2torch_tensor_name_prefix_tf: Ignored = None

    def __post_init__(self) -> None:
        if self.num_blocks > self.att_layer_num:
            raise ValueError("blocks without attention are not known: num_blocks > att_layer_num")
        _check_shift(self.sanm_shfit, self.kernel_size)

    def size(self, vocabulary: int, width: int) -> DecoderSize:
        """For so many tokens, behind an encoder of ``width`` channels."""
        return DecoderSize(
            vocabulary=vocabulary,
            width=width,
            heads=self.attention_heads,
            hidden=self.linear_units,
            blocks=self.att_layer_num,
            kernel=self.kernel_size,
            shift=self.sanm_shfit,
        )


def _check_shift(shift: int, kernel: int) -> None:
    if shift > kernel // 2:
        raise ValueError("sanm_shfit must be half of kernel_size at most")


def _check_heads(encoder: EncoderConfig, *decoders: DecoderConfig) -> None:
    if any(encoder.output_size % decoder.attention_heads for decoder in decoders):
        raise ValueError("the decoder's attention_heads must divide the encoder's output_size")


class SenseVoiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """config.yaml of SenseVoiceSmall."""

    model: Literal["SenseVoiceSmall"]
    encoder: Literal["SenseVoiceEncoderSmall"]
    encoder_conf: EncoderConfig
    frontend: Literal["WavFrontend"]
    frontend_conf: RowFrontend


class ParaformerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """config.yaml of the offline Paraformer."""

    model: Literal["Paraformer"]
    encoder: Literal["SANMEncoder"]
    encoder_conf: EncoderConfig
    decoder: Literal["ParaformerSANMDecoder"]
    decoder_conf: DecoderConfig
    predictor: Literal["CifPredictorV2"]
    predictor_conf: PredictorConfig
    frontend: Literal["WavFrontend"]
    frontend_conf: AnyRowFrontend

    def __post_init__(self) -> None:
        _check_heads(self.encoder_conf, self.decoder_conf)


Factor = Annotated[float, msgspec.Meta(ge=0.0, le=100.0)]


class TimedPredictorConfig(PredictorConfig, frozen=True, kw_only=True):
    """``predictor_conf`` of ``CifPredictorV3``: a second head tells the times of the tokens, for
    ``upsample_times`` parts of each row."""

    upsample_times: Annotated[int, msgspec.Meta(ge=1, le=64)]
    upsample_type: Literal["cnn_blstm"]
    use_cif1_cnn: bool = True
    smooth_factor2: Factor = 1.0
    noise_threshold2: Factor = 0.0
    tail_mask: Literal[True] = True


class SeacoModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``model_conf`` of SeACo Paraformer. ``no_bias``: the token that stands for "no hotword"."""

    inner_dim: Width = 256
    bias_encoder_type: Literal["lstm"] = "lstm"
    bias_encoder_bid: Literal[False] = False
    no_bias: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(default=8377, name="NO_BIAS")


class SeacoConfig(msgspec.Struct, frozen=True, kw_only=True):
    """config.yaml of SeACo Paraformer."""

    model: Literal["SeacoParaformer"]
    model_conf: SeacoModelConfig
    encoder: Literal["SANMEncoder"]
    encoder_conf: EncoderConfig
    decoder: Literal["ParaformerSANMDecoder"]
    decoder_conf: DecoderConfig
    seaco_decoder: Literal["ParaformerSANMDecoder"]
    seaco_decoder_conf: DecoderConfig
    predictor: Literal["CifPredictorV3"]
    predictor_conf: TimedPredictorConfig
    frontend: Literal["WavFrontend"]
    frontend_conf: RowFrontend

    def __post_init__(self) -> None:
        _check_heads(self.encoder_conf, self.decoder_conf, self.seaco_decoder_conf)


class PunctuationModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``model_conf`` of ct-punc. ``sentence_end_id``: the mark that ends a sentence."""

    punc_list: list[str]
    embed_unit: Width = 128
    att_unit: Ignored = None
    sentence_end_id: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.sentence_end_id < len(self.punc_list) or "_" not in self.punc_list:
            raise ValueError("punc_list has no mark for the end of a sentence, or none for nothing")


class PunctuationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """config.yaml of ct-punc, of final and of interim texts."""

    model: Literal["CTTransformer", "CTTransformerStreaming"]
    model_conf: PunctuationModelConfig
    encoder: Literal["SANMEncoder", "SANMVadEncoder"]
    encoder_conf: EncoderConfig
