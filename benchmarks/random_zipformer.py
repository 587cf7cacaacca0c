"""Streaming zipformer2 transducers with random weights, in the folders that sherpa-onnx takes: in
fp32, and in int8 by onnxruntime's ``quantize_dynamic``, which the publishers use. What they hear
means nothing; what it costs does not depend on that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnxruntime import (  # type: ignore[import-untyped]  # it has no py.typed marker
    InferenceSession,
    SessionOptions,
)
from onnxruntime.quantization import (  # type: ignore[import-untyped]  # it has no py.typed marker
    QuantType,
    quantize_dynamic,
)

from app.audio.pcm import Float32
from benchmarks.asr_speech import heard
from benchmarks.zipformer_encoder import (
    CHUNK,
    FRAMES,
    MELS,
    Encoder,
    RandomLayers,
    Spread,
    Stack,
    states,
)
from tests.support.sherpa.graphs import FLOAT, INT64, made, write_tokens

_CONTEXT: Final = 2
"""Tokens that the decoder sees."""
TOKENS_PER_FRAME: Final = 0.3
"""Of 40 ms, without a search. With it about one comes out of a chunk, as Chinese is spoken."""
_STREAMS: Final = 3
_SECONDS: Final = 6.0
_SKIPPED: Final = 8
"""Chunks until all that attention sees is speech. These three: of what a model is calibrated
with."""
_QUANTISED: Final = {"encoder": ["MatMul"], "decoder": ["MatMul", "Gather"], "joiner": ["MatMul"]}
"""What becomes int8 in each file (icefall, egs/librispeech/ASR/zipformer/
export-onnx-streaming.py)."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is shrunk for tests. ``joined``: width of what encoder and decoder give the joiner."""

    stacks: tuple[Stack, ...]
    joined: int
    vocabulary: int


LARGE: Final = Size(
    (
        Stack(2, 192, 512, 4, 31, 1),
        Stack(2, 256, 768, 4, 31, 2),
        Stack(3, 384, 1024, 4, 15, 4),
        Stack(4, 512, 1536, 8, 15, 8),
        Stack(3, 384, 1024, 4, 15, 4),
        Stack(2, 256, 768, 4, 31, 2),
    ),
    joined=512,
    vocabulary=2000,
)
"""66 million parameters: sherpa-onnx-streaming-zipformer-multi-zh-hans-2023-12-12."""

SMALL: Final = Size(
    (
        Stack(2, 192, 512, 4, 31, 1),
        Stack(2, 256, 768, 4, 31, 2),
        Stack(2, 256, 768, 4, 15, 4),
        Stack(2, 256, 768, 8, 15, 8),
        Stack(2, 256, 768, 4, 15, 4),
        Stack(2, 256, 768, 4, 31, 2),
    ),
    joined=512,
    vocabulary=2000,
)
"""24 million: sherpa-onnx-streaming-zipformer-small-ctc-zh-int8-2025-04-01, as a transducer."""

TINY: Final = Size((Stack(1, 32, 48, 2, 15, 1), Stack(1, 48, 64, 2, 7, 2)), 32, 60)
"""Built in a blink."""


def write_transducer(folder: Path, size: Size, seed: int = 0) -> Path:
    """encoder.onnx, decoder.onnx, joiner.onnx and tokens.txt in a folder, which is returned.

    They are calibrated with the benchmarks' speech: about ``TOKENS_PER_FRAME`` come out of it, and
    which ones depends on what is heard.
    """
    made(folder)
    characters = [chr(0x4E00 + number) for number in range(1, size.vocabulary)]
    write_tokens(folder / "tokens.txt", ["<blk>", *characters])
    path = folder / "encoder.onnx"
    _encoder(size, seed).save(path)
    found = _encoded(path, size)
    spread = Spread(found.mean(0), found.std(0) + np.float32(1e-3))
    _encoder(size, seed, spread).save(path)
    _write_decoder(folder / "decoder.onnx", size, seed + 1)
    path = folder / "joiner.onnx"
    _write_joiner(path, size, seed + 2, blank=0.0)
    margins = _margins(folder, (found - spread.mean) / spread.deviation, size)
    blank = float(np.quantile(margins, 1 - TOKENS_PER_FRAME))
    _write_joiner(path, size, seed + 2, blank=blank)
    return folder


def quantised(source: Path, folder: Path) -> Path:
    """The model of ``source`` in int8, as it would be published: encoder.int8.onnx … in a folder,
    which is returned."""
    made(folder)
    with _without_advice():
        for part, operators in _QUANTISED.items():
            quantize_dynamic(
                source / f"{part}.onnx",
                folder / f"{part}.int8.onnx",
                op_types_to_quantize=operators,
                weight_type=QuantType.QInt8,
            )
    (folder / "tokens.txt").write_bytes((source / "tokens.txt").read_bytes())
    return folder


def _encoder(size: Size, seed: int, spread: Spread | None = None) -> Encoder:
    return Encoder(np.random.default_rng(seed), size.stacks, size.joined, spread)


def _write_decoder(path: Path, size: Size, seed: int) -> None:
    """The last tokens (N, _CONTEXT) → (N, joined)."""
    layers, width = RandomLayers(np.random.default_rng(seed)), size.joined
    graph = layers.graph
    tokens = graph.input("y", INT64, ["N", _CONTEXT])
    rows = graph.op("Gather", layers.weights(size.vocabulary, width, deviation=1.0), tokens)
    columns = graph.op("Transpose", rows, perm=[0, 2, 1])
    joined = layers.convolution(columns, (width, 4, _CONTEXT), group=width // 4)
    row = graph.op("Relu", graph.op("Squeeze", joined, graph.integers(2)))
    graph.output(layers.linear(row, width, width, 0.3), "decoder_out", FLOAT, ["N", width])
    graph.save(path, {"vocab_size": size.vocabulary, "context_size": _CONTEXT})


def _write_joiner(path: Path, size: Size, seed: int, *, blank: float) -> None:
    """What encoder and decoder found, both (N, joined), → logits (N, vocabulary)."""
    layers, width = RandomLayers(np.random.default_rng(seed)), size.joined
    graph = layers.graph
    heard = graph.input("encoder_out", FLOAT, ["N", width])
    said = graph.input("decoder_out", FLOAT, ["N", width])
    both = graph.op("Tanh", graph.op("Add", heard, said))
    logits = layers.linear(both, width, size.vocabulary, 2.0)
    more = np.zeros(size.vocabulary, np.float32)
    more[0] = blank
    graph.output(
        graph.op("Add", logits, graph.floats(more)), "logit", FLOAT, ["N", size.vocabulary]
    )
    graph.save(path, {"joiner_dim": width})


# Calibration


def _encoded(encoder: Path, size: Size) -> Float32:
    """All frames (n, joined) that come out of it for speech."""
    session = _session(encoder)
    sounds = np.stack([heard(stream, _SECONDS) for stream in range(_STREAMS)])
    mels = np.stack([log_mels(sound) for sound in sounds])
    state: dict[str, NDArray[np.generic]] = {
        name: np.zeros([_STREAMS if length == "N" else int(length) for length in shape], np.float32)
        for name, shape in states(size.stacks).items()
    }
    state["processed_lens"] = np.zeros(_STREAMS, np.int64)
    found: list[Float32] = []
    for begin in range(0, mels.shape[1] - FRAMES + 1, 2 * CHUNK):
        frames, *kept = session.run(None, {"x": mels[:, begin : begin + FRAMES], **state})
        state = dict(zip(state, kept, strict=True))
        found.append(frames.reshape(-1, size.joined))
    return np.concatenate(found[_SKIPPED:])


def _margins(folder: Path, frames: Float32, size: Size) -> Float32:
    """By how much the likeliest token is ahead of the blank in each frame, after any tokens."""
    tokens = np.random.default_rng(0).integers(1, size.vocabulary, (len(frames), _CONTEXT))
    (said,) = _session(folder / "decoder.onnx").run(None, {"y": tokens})
    (logits,) = _session(folder / "joiner.onnx").run(
        None, {"encoder_out": frames, "decoder_out": said}
    )
    margins: Float32 = logits[:, 1:].max(1) - logits[:, 0]
    return margins


def _session(path: Path) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


def log_mels(samples: Float32) -> Float32:
    """16 kHz → log energies of 80 mel bands every 10 ms, shape (frames, 80): about what the
    runtime computes."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(windows, 512)) ** 2
    low, high = _mel(np.array([20.0, 7600.0]))
    edges = np.linspace(low, high, MELS + 2)
    at = _mel(np.arange(257) * 16_000 / 512)[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    bands = power @ np.clip(np.minimum(rising, falling), 0.0, None)
    energies: Float32 = np.log(np.maximum(bands, 1e-7)).astype(np.float32)
    return energies


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127 * np.log1p(hertz / 700)


@contextmanager
def _without_advice() -> Iterator[None]:
    """onnxruntime advises to prepare each file first, which publishers do not do either."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
