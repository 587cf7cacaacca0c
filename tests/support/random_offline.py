"""Offline models, punctuation and VAD with random weights, in the folders that the hub has.

The weights are those of our own modules, saved under the published names, so FunASR loads the same
folder. Small: each is built in a fraction of a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from torch import nn

from app.audio.pcm import Float32
from app.engines.funasr.checkpoint import architecture
from app.engines.funasr.features import WIDTH
from app.engines.funasr.offline_config import (
    ParaformerConfig,
    PunctuationConfig,
    SeacoConfig,
    SenseVoiceConfig,
)
from app.engines.funasr.paraformer import ParaformerNetwork, PredictorSize
from app.engines.funasr.punctuation import PunctuationNetwork
from app.engines.funasr.seaco import SeacoNetwork
from app.engines.funasr.sensevoice import SenseVoiceNetwork
from app.engines.funasr.vad import VadConfig, VadNetwork

CHARACTERS: Final = 300
MARKS: Final = ["<unk>", "_", "，", "。", "？", "、"]
_DROPOUTS: Final = {"dropout_rate": 0.1, "positional_dropout_rate": 0.1}


def noise(seed: int, samples: int) -> Float32:
    """Noise whose colour and loudness change every 100 ms, so that tokens differ."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal(samples + 64)
    out = np.zeros(samples)
    for start in range(0, samples, 1600):
        taps = rng.standard_normal(24) * rng.uniform(0.01, 0.12)
        coloured = np.convolve(white[start : start + 1623], taps, "same")
        part = out[start : start + 1600]
        part[:] = coloured[: part.size]
    return np.clip(out, -1, 1).astype(np.float32)


def characters(count: int = CHARACTERS) -> list[str]:
    """A vocabulary: blank, begin, end, Chinese characters, unknown."""
    return ["<blank>", "<s>", "</s>", *(chr(0x4E00 + i) for i in range(count - 4)), "<unk>"]


def frontend(
    kind: str = "WavFrontend", stack: int = 7, stride: int = 6, sample_rate: int = 16_000
) -> dict[str, Any]:
    """The part of config.yaml that says how features are made."""
    return {
        "frontend": kind,
        "frontend_conf": {
            "fs": sample_rate,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": stack,
            "lfr_n": stride,
            "dither": 0.0,
        },
    }


def encoder(kind: str, *, blocks: int = 3, **more: Any) -> dict[str, Any]:
    """The part of config.yaml that says what the encoder is."""
    return {
        "encoder": kind,
        "encoder_conf": {
            "output_size": 64,
            "attention_heads": 4,
            "linear_units": 128,
            "num_blocks": blocks,
            **_DROPOUTS,
            "attention_dropout_rate": 0.1,
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
            **more,
        },
    }


def decoder(blocks: int = 3, **more: Any) -> dict[str, Any]:
    """``decoder_conf``."""
    return {
        "attention_heads": 4,
        "linear_units": 128,
        "num_blocks": blocks,
        "att_layer_num": blocks,
        **_DROPOUTS,
        "self_attention_dropout_rate": 0.1,
        "src_attention_dropout_rate": 0.1,
        "kernel_size": 11,
        "sanm_shfit": 0,
        **more,
    }


def paraformer_config(sample_rate: int = 16_000) -> dict[str, Any]:
    """config.yaml of paraformer-large, shrunk."""
    return {
        "model": "Paraformer",
        "model_conf": {
            "ctc_weight": 0.0,
            "lsm_weight": 0.1,
            "length_normalized_loss": True,
            "predictor_weight": 1.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.75,
        },
        **encoder("SANMEncoder", input_layer="pe", pos_enc_class="SinusoidalPositionEncoder"),
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": decoder(),
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": 64,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
        },
        **frontend(sample_rate=sample_rate),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }


def paraformer(folder: Path, seed: int = 1, sample_rate: int = 16_000) -> Path:
    """An offline Paraformer that hears three to five tokens a second."""
    config = paraformer_config(sample_rate)
    known = architecture(folder, config, ParaformerConfig)
    torch.manual_seed(seed)
    network = ParaformerNetwork(
        known.encoder_conf.size(WIDTH),
        known.decoder_conf.size(CHARACTERS, 64),
        PredictorSize(1, 1, 0.45),
    )
    loud_predictor(network)
    return write(folder, config, network, characters())


NO_BIAS: Final = 277


def seaco(folder: Path, seed: int = 1) -> Path:
    """A SeACo Paraformer, with a normalisation and a ``seg_dict``."""
    config = paraformer_config()
    config["model"] = "SeacoParaformer"
    config["model_conf"] |= {
        "inner_dim": 64,
        "bias_encoder_type": "lstm",
        "bias_encoder_bid": False,
        "seaco_lsm_weight": 0.1,
        "seaco_length_normal": True,
        "train_decoder": True,
        "NO_BIAS": NO_BIAS,
    }
    config["seaco_decoder"] = "ParaformerSANMDecoder"
    config["seaco_decoder_conf"] = {
        **decoder(6, kernel_size=21, linear_units=96),
        "num_blocks": 4,
        "use_output_layer": False,
        "wo_input_layer": True,
    }
    config["predictor"] = "CifPredictorV3"
    config["predictor_conf"] |= {
        "smooth_factor2": 0.25,
        "noise_threshold2": 0.01,
        "upsample_times": 3,
        "use_cif1_cnn": False,
        "upsample_type": "cnn_blstm",
    }
    known = architecture(folder, config, SeacoConfig)
    torch.manual_seed(seed)
    network = SeacoNetwork(
        known.encoder_conf.size(WIDTH),
        known.decoder_conf.size(CHARACTERS, 64),
        known.seaco_decoder_conf.size(CHARACTERS, 64),
        known.predictor_conf,
        NO_BIAS,
    )
    loud_predictor(network)
    names = characters()
    with torch.no_grad():
        network.predictor.cif_output2.weight.mul_(6)
        network.hotword_output_layer.weight.normal_(0, 0.2)
        network.hotword_output_layer.bias[NO_BIAS] = 3.5
        for layer in (network.decoder.output_layer, network.hotword_output_layer):
            layer.bias[-1] = -100.0  # never "unknown"
    write(folder, config, network, names)
    normalisation(folder, 560, seed)
    lines = [*(f"{name} {name}" for name in names[3:-1]), f"hello {names[5]} {names[6]}"]
    (folder / "seg_dict").write_text("\n".join(lines), "utf-8")
    return folder


def loud_predictor(network: ParaformerNetwork) -> None:
    """Make tokens fire, and differ."""
    with torch.no_grad():
        network.predictor.cif_output.weight.mul_(6)
        network.predictor.cif_output.bias.fill_(-1.2)
        network.decoder.output_layer.weight.normal_(0, 0.2)


def sensevoice(folder: Path, seed: int = 0, names: Sequence[str] | None = None) -> Path:
    """A SenseVoiceSmall with a list of tokens, by default characters without tags."""
    names = characters(400) if names is None else names
    config = {
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        **encoder("SenseVoiceEncoderSmall", tp_blocks=2, input_layer="pe"),
        **frontend(),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }
    known = architecture(folder, config, SenseVoiceConfig)
    torch.manual_seed(seed)
    network = SenseVoiceNetwork(known.encoder_conf.size(WIDTH), len(names))
    return write(folder, config, network, names)


def punctuation(folder: Path, *, realtime: bool, seed: int = 2, stops: float = -0.5) -> Path:
    """A ct-punc that knows Chinese characters and a few English words. ``stops``: how it likes
    full stops; -100 for never."""
    names = [*characters(), "hello", "world", "nba"]
    config = {
        "model": "CTTransformerStreaming" if realtime else "CTTransformer",
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": 64,
            "att_unit": 64,
            "dropout_rate": 0.1,
            "punc_list": MARKS,
            "punc_weight": [1.0] * len(MARKS),
            "sentence_end_id": 3,
        },
        **encoder(
            "SANMVadEncoder" if realtime else "SANMEncoder",
            input_size=64,
            input_layer="pe",
            pos_enc_class="SinusoidalPositionEncoder",
            sanm_shfit=5 if realtime else 0,
        ),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }
    known = architecture(folder, config, PunctuationConfig)
    torch.manual_seed(seed)
    size = known.encoder_conf.size(64)
    network = PunctuationNetwork(len(names), size, len(MARKS), causal=realtime)
    with torch.no_grad():
        # Marks of which most are none, some a stop, and none is "unknown".
        network.decoder.weight.mul_(3)
        network.decoder.bias.copy_(torch.tensor([-100.0, 2.0, 0.5, stops, stops, 0.0]))
    return write(folder, config, network, names)


def vad(folder: Path, seed: int = 0) -> Path:
    """An fsmn-vad of the published size, with a normalisation of its features."""
    config = {
        "model": "FsmnVADStreaming",
        "model_conf": {"sample_rate": 16000, "silence_pdf_num": 1, "sil_pdf_ids": [0]},
        "encoder": "FSMN",
        "encoder_conf": {
            "input_dim": 400,
            "input_affine_dim": 140,
            "fsmn_layers": 4,
            "linear_dim": 250,
            "proj_dim": 128,
            "lorder": 20,
            "rorder": 0,
            "lstride": 1,
            "rstride": 0,
            "output_affine_dim": 140,
            "output_dim": 248,
        },
        **frontend("WavFrontendOnline", 5, 1),
    }
    known = architecture(folder, config, VadConfig)
    torch.manual_seed(seed)
    network = VadNetwork(known.encoder_conf)
    with torch.no_grad():
        # Silence gets a share that moves with the sound.
        for name, weight in network.named_parameters():
            if name.endswith("weight") and "out_linear2" not in name:
                weight.mul_(2)
        network.encoder.out_linear2.linear.weight[0].mul_(15)
        network.encoder.out_linear2.linear.bias[0] = 5.0
    write(folder, config, network, None)
    normalisation(folder, 400, seed)
    return folder


def normalisation(folder: Path, width: int, seed: int = 0) -> None:
    """am.mvn, as Kaldi writes it."""
    rng = np.random.default_rng(seed)
    shift, scale = rng.normal(-8, 1, width), rng.uniform(0.15, 0.25, width)
    lines = ["<Nnet>", f"<Splice> {width} {width}", "[ 0 ]"]
    for name, numbers in (("<AddShift>", shift), ("<Rescale>", scale)):
        text = " ".join(f"{number:.6f}" for number in numbers)
        lines += [f"{name} {width} {width}", f"<LearnRateCoef> 0 [ {text} ]"]
    (folder / "am.mvn").write_text("\n".join([*lines, "</Nnet>", ""]), "utf-8")


def write(
    folder: Path, config: dict[str, Any], network: nn.Module, names: Sequence[str] | None
) -> Path:
    """A folder as the hub has it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")
    if names is not None:
        text = json.dumps(list(names), ensure_ascii=False)
        (folder / "tokens.json").write_text(text, "utf-8")
    torch.save(network.state_dict(), folder / "model.pt")
    return folder
