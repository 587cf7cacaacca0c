"""The streaming engine on a GPU: chunks per second, the time of a step, memory, share of the peak.

Nothing is taken from data sheets: the peak is what a large matrix product reaches on the same card
in the same arithmetic, measured here. Steps are timed by the clock, results on the host included.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from app.core.speech import RecognitionOptions
from app.engines.base import Feed
from app.engines.funasr.dtypes import TORCH_DTYPES
from app.engines.funasr.executor import Executor
from app.engines.funasr.graphs import SIZES
from app.engines.funasr.recognizer import StreamingRecognizer, load_streaming
from app.engines.funasr.settings import Dtype, FunasrOptions
from benchmarks.asr_engine import CHUNK_S, CHUNKING, Loaded
from benchmarks.asr_speech import heard
from benchmarks.measure import MIB, percentile
from benchmarks.report import Figure
from benchmarks.turns import WARM_UPS

PUBLISHED: Final = "FunASR's Triton recipe, one A10, 100 streams: 473 chunks/s, p50 206, p99 463 ms"
"""Not measured here: FunASR's own figure for paraformer-large online, 600 ms chunks."""

DTYPES: Final[tuple[Dtype, ...]] = ("fp32", "bf16", "fp16")

_DEVICE: Final = "cuda:0"
_STEPS: Final = 50
_AUDIO_CHUNKS: Final = 8
_MATRIX: Final = 8192
_PRODUCTS: Final = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Steps of ``size`` streams, ms. ``real_time``: streams that so many chunks a second are,
    which is not yet what a server sustains."""

    size: int
    chunks_per_s: float
    p50_ms: float
    p99_ms: float
    real_time: float
    share_of_peak: float

    def figures(self) -> list[Figure]:
        """For the table."""
        name = f"  batch {self.size}: "
        return [
            Figure(f"{name}chunks", self.chunks_per_s, "/s"),
            Figure(f"{name}step p50", self.p50_ms, "ms"),
            Figure(f"{name}step p99", self.p99_ms, "ms"),
            Figure(f"{name}share of that product's speed", self.share_of_peak * 100, "%"),
        ]


@dataclass(frozen=True, slots=True)
class Card:
    """One arithmetic on one card. ``memory_mib``: taken from the card by the model, the slots and
    the graphs; ``peak_tflops``: of the large product."""

    card: str
    dtype: str
    memory_mib: float
    peak_tflops: float
    gflop_per_chunk: float
    batches: tuple[Batch, ...]

    def figures(self) -> list[Figure]:
        """For the table."""
        return [
            Figure(f"{self.card}, {self.dtype}: memory", self.memory_mib, "MiB"),
            Figure("  a large matrix product", self.peak_tflops, "TFLOP/s"),
            *(row for batch in self.batches for row in batch.figures()),
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def cards(folder: Path) -> list[Card]:
    """All arithmetics; empty where there is no GPU.

    Raises:
        EngineNotUsable: the model in ``folder`` is not usable.
    """
    if not torch.cuda.is_available():
        return []
    flop = linear_flop(Loaded.of(folder, "fp32"))
    return [_card(folder, dtype, flop) for dtype in DTYPES]


def linear_flop(loaded: Loaded) -> float:
    """Of the linear layers for a chunk of one stream, with as many tokens as can fire, as the
    graphs have it. Attention and memory blocks, some per cent, are left out."""
    total = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Linear)
        total += 2.0 * inputs[0].numel() * module.out_features

    linear = [module for module in loaded.model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(count) for module in linear]
    executor = Executor(loaded.model, 1, chunking=CHUNKING, normalisation=loaded.normalisation)
    executor.step(
        torch.tensor([0]),
        torch.from_numpy(heard(0, CHUNK_S))[None],
        torch.tensor([CHUNKING.samples]),
        torch.tensor([False]),
        CHUNKING.most_tokens[0],
    )
    for hook in hooks:
        hook.remove()
    return total


def timed(engine: StreamingRecognizer, size: int, steps: int) -> list[float]:
    """Seconds of each of so many steps, after a warm-up; the streams are closed then."""
    streams = [engine.open(RecognitionOptions()) for _ in range(size)]
    audio = [heard(k, CHUNK_S * _AUDIO_CHUNKS) for k in range(size)]
    whole, seconds = CHUNKING.samples, []
    for k in range(WARM_UPS + steps):
        start = k % _AUDIO_CHUNKS * whole
        feeds = [
            Feed(stream, samples[start : start + whole], last=False)
            for stream, samples in zip(streams, audio, strict=True)
        ]
        began = time.perf_counter()
        engine.step(feeds)
        seconds.append(time.perf_counter() - began)
    for stream in streams:
        engine.close(stream)
    return seconds[WARM_UPS:]


def batch_of(size: int, seconds: list[float], flop: float, peak: float) -> Batch:
    """What these steps come to; ``peak``: FLOP a second."""
    rate = size * len(seconds) / sum(seconds)
    return Batch(
        size,
        rate,
        percentile(seconds, 50) * 1000,
        percentile(seconds, 99) * 1000,
        rate * CHUNK_S,
        rate * flop / peak,
    )


def _card(folder: Path, dtype: Dtype, flop: float) -> Card:
    peak = _peak(dtype)
    torch.cuda.empty_cache()
    free_before, _ = torch.cuda.mem_get_info()
    options = FunasrOptions(dtype=dtype, slots=SIZES[-1], max_batch=SIZES[-1])
    engine = load_streaming(folder, _DEVICE, options, lambda _: None)
    batches = tuple(batch_of(size, timed(engine, size, _STEPS), flop, peak) for size in SIZES)
    free_after, _ = torch.cuda.mem_get_info()
    memory = (free_before - free_after) / MIB
    name = torch.cuda.get_device_name()
    return Card(name, dtype, memory, peak / 1e12, flop / 1e9, batches)


def _peak(dtype: Dtype) -> float:
    """FLOP a second of a large product."""
    shape = (_MATRIX, _MATRIX)
    left, right = (torch.randn(shape, device=_DEVICE, dtype=TORCH_DTYPES[dtype]) for _ in range(2))
    for _ in range(_PRODUCTS):  # the clock of the card goes up
        left @ right
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(_PRODUCTS):
        left @ right
    torch.cuda.synchronize()
    return 2.0 * _MATRIX**3 * _PRODUCTS / (time.perf_counter() - began)
