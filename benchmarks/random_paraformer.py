"""Streaming Paraformers with random weights, in the folders that the hub's models have.

The weights are drawn for our own module and saved under the published names, so FunASR loads the
same folder. The predictor is calibrated so that tokens fire as in speech: at any width a token
every 240 ms, whatever the noise of the weights. The tests use the same models, shrunken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from app.audio.pcm import Float32
from app.engines.funasr import checkpoint
from app.engines.funasr.executor import Chunking, Executor
from app.engines.funasr.features import WIDTH
from app.engines.funasr.streaming import Architecture, StreamingParaformer

Sounds = NDArray[np.float32]
"""Shape (streams, samples)."""

SAMPLE_RATE: Final = 16_000
TOKENS_PER_ROW: Final = 0.25
"""2.5 in a chunk of 600 ms."""

HEIGHT_SPREAD: Final = 1.5
"""Standard deviation of what the predictor's sigmoid is taken of."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is shrunk for tests."""

    width: int
    heads: int
    hidden: int
    encoder_blocks: int
    decoder_blocks: int
    vocabulary: int


FULL: Final = Size(512, 4, 2048, 50, 16, 8404)
"""The published model."""

SMALL: Final = Size(64, 4, 128, 4, 3, 300)
"""Built in a second."""


def config(size: Size) -> dict[str, Any]:
    """config.yaml of ``paraformer-zh-streaming``, the parts that are read."""
    dropouts = {"dropout_rate": 0.1, "positional_dropout_rate": 0.1}
    return {
        "model": "ParaformerStreaming",
        "model_conf": {
            "ctc_weight": 0.0,
            "lsm_weight": 0.1,
            "length_normalized_loss": True,
            "predictor_weight": 1.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.75,
        },
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            "output_size": size.width,
            "attention_heads": size.heads,
            "linear_units": size.hidden,
            "num_blocks": size.encoder_blocks,
            **dropouts,
            "attention_dropout_rate": 0.1,
            "input_layer": "pe_online",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
            "chunk_size": [12, 15],
            "stride": [8, 10],
            "pad_left": [0, 0],
            "encoder_att_look_back_factor": [4, 4],
            "decoder_att_look_back_factor": [1, 1],
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": size.heads,
            "linear_units": size.hidden,
            "num_blocks": size.decoder_blocks,
            "att_layer_num": size.decoder_blocks,
            **dropouts,
            "self_attention_dropout_rate": 0.1,
            "src_attention_dropout_rate": 0.1,
            "kernel_size": 11,
            "sanm_shfit": 5,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": size.width,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
        },
        "frontend": "WavFrontendOnline",
        "frontend_conf": {
            "fs": 16000,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }


def token_names(count: int) -> list[str]:
    """Chinese characters, a few Latin syllables, and the special tokens where they are
    published."""
    latin = ["hel@@", "lo", "a", "b", "good"]
    characters = [chr(0x4E00 + i) for i in range(count - 4 - len(latin))]
    return ["<blank>", "<s>", "</s>", *latin, *characters, "<unk>"]


def write_streaming(
    folder: Path,
    size: Size = SMALL,
    seed: int = 0,
    *,
    sounds: Sequence[Float32] = (),
    skipped: int = 1,
) -> Path:
    """A model's folder, as the hub has it. ``sounds``: what it is calibrated with, equally long, in
    place of some noise; ``skipped``: their first chunks that do not count. The first begins with
    rows of nothing, and fewer tokens fire once the look-back is full, after five."""
    sounds = sounds or [noise(k, 6 * Chunking().samples) for k in range(2)]
    folder.mkdir(parents=True, exist_ok=True)
    found = config(size)
    (folder / "config.yaml").write_text(yaml.safe_dump(found, allow_unicode=True), "utf-8")
    names = json.dumps(token_names(size.vocabulary), ensure_ascii=False)
    (folder / "tokens.json").write_text(names, "utf-8")
    _write_normalisation(folder / "am.mvn")
    architecture = checkpoint.architecture(folder, found, Architecture)
    with _seeded(seed):
        model = StreamingParaformer(architecture, size.vocabulary).eval()
        with torch.no_grad():
            model.decoder.output_layer.weight.normal_(0, 0.2)
            normalisation = checkpoint.read_normalisation(folder, WIDTH)
            executor = Executor(
                model, len(sounds), chunking=Chunking(), normalisation=normalisation
            )
            _calibrate(executor, np.stack(sounds), skipped)
    torch.save(model.state_dict(), folder / "model.pt")
    return folder


def noise(seed: int, samples: int) -> Float32:
    """Noise whose colour and loudness wander: stationary noise would give one token for ever."""
    rng = np.random.default_rng(seed)
    step = SAMPLE_RATE // 10
    white = rng.standard_normal(samples + 2 * step)
    pieces = []
    for start in range(0, samples, step):
        taps = rng.standard_normal(24) * rng.uniform(0.01, 0.12)
        pieces.append(np.convolve(white[start : start + step], taps, "same"))
    joined = np.concatenate(pieces)[:samples] if pieces else np.empty(0)
    return np.clip(joined, -1, 1).astype(np.float32)


def _write_normalisation(path: Path) -> None:
    """Kaldi's network of two layers as text; about the published one's numbers."""
    shift = " ".join(f"{-10.0 - 0.01 * (i % 80):.4f}" for i in range(WIDTH))
    scale = " ".join(f"{0.17 + 0.0005 * (i % 80):.4f}" for i in range(WIDTH))
    path.write_text(
        "<Nnet>\n"
        f"<Splice> {WIDTH} {WIDTH}\n[ 0 ]\n"
        f"<AddShift> {WIDTH} {WIDTH}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {WIDTH} {WIDTH}\n<LearnRateCoef> 0 [ {scale} ]\n"
        "</Nnet>\n",
        "utf-8",
    )


def _calibrate(executor: Executor, sounds: Sounds, skipped: int) -> None:
    """Make rows weigh differently, and ``TOKENS_PER_ROW`` on average, and then every token of the
    vocabulary about as likely as any other."""
    model = executor.model
    weigher = model.predictor.cif_output
    weigher.bias.zero_()
    heights = torch.stack(_outputs(executor, weigher, sounds)[skipped:])[
        :, :, : executor.chunking.rows
    ]
    gain = HEIGHT_SPREAD / float(heights.std())
    weigher.weight.mul_(gain)
    weigher.bias.fill_(_bias_for(heights * gain, TOKENS_PER_ROW))
    speller = model.decoder.output_layer
    found = _outputs(executor, speller, sounds)[skipped:]
    logits = torch.cat([each.flatten(0, 1) for each in found])
    speller.bias.sub_(logits.mean(0))


def _outputs(executor: Executor, layer: torch.nn.Module, sounds: Sounds) -> list[torch.Tensor]:
    """What ``layer`` says to streams of these sounds, chunk by chunk."""
    seen: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, result: torch.Tensor) -> None:
        seen.append(result.clone())

    whole, streams = executor.chunking.samples, len(sounds)
    audio = torch.from_numpy(sounds)
    slots, length = torch.arange(streams), torch.full((streams,), whole)
    executor.reset(slots)
    hook = layer.register_forward_hook(keep)
    for start in range(0, audio.shape[1] - whole + 1, whole):
        piece = audio[:, start : start + whole]
        executor.step(slots, piece, length, torch.zeros(streams, dtype=torch.bool))
    hook.remove()
    return seen


def _bias_for(heights: torch.Tensor, mean: float) -> float:
    """What to add so that the sigmoids have this mean."""
    low, high = -60.0, 60.0
    for _ in range(50):
        bias = (low + high) / 2
        if torch.sigmoid(heights + bias).mean() < mean:
            low = bias
        else:
            high = bias
    return low


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from ``seed``, without a trace in those of others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
