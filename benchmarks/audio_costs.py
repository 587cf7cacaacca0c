"""What a second of audio costs on its way in and out: decoding, resampling, the gate, rate and
pitch, encoding. In this process, without a server."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

import numpy as np

from app.audio.budget import Budget
from app.audio.container import decode_file
from app.audio.decode import Decoder, open_decoder
from app.audio.encode import open_encoder
from app.audio.gate import NearFieldGate
from app.audio.prosody import Prosody
from app.audio.resample import Resampler
from app.audio.sniff import FILES, LOCAL, Kind, what_is
from app.audio.streaming import open_streaming_decoder
from benchmarks.audio import RATE, Int16, example
from benchmarks.options import Options
from benchmarks.report import Figure
from tests.support.encoded import encoded

TITLE: Final = "Audio processing, ms of CPU time per second of audio"

UNIT: Final = "ms/s"
PART_S: Final = 0.3
"""CPU time of each row, at least; with ``--seconds`` so much more as that is."""

CLIENT_PIECES_PER_S: Final = 10
ENGINE_PIECE_MS: Final = 400
"""How a client sends, and how an engine speaks."""

NARROW: Final = 8_000
VOICE_RATE: Final = 24_000
"""Of most synthesis engines."""

INPUTS: Final = (
    ("pcm", "pcm"),
    ("wav-s16", "wav"),
    ("wav-mulaw", "wav"),
    ("wav-f32", "wav"),
    ("mp3", "mp3"),
    ("aac", "aac"),
    ("ogg-opus", "opus"),
    ("webm-opus", "webm"),
    ("opu", "opu"),
    ("m4a", "m4a"),
    ("flac", "flac"),
    ("amr", "amr"),
    ("wma", "wma"),
)
"""(name of the encoder in the tests, the format a client gives)."""

RESAMPLED: Final = (
    (8_000, 16_000),
    (44_100, 16_000),
    (48_000, 16_000),
    (24_000, 16_000),
    (24_000, 8_000),
    (24_000, 48_000),
)

SPOKEN: Final = (
    ("speed 1.5", 1.5, 1.0, 1.0),
    ("pitch 1.2", 1.0, 1.2, 1.0),
    ("speed 0.8, pitch 0.9, volume 1.5", 0.8, 0.9, 1.5),
    ("volume 0.5", 1.0, 1.0, 0.5),
)

OUTPUTS: Final = ("pcm", "wav", "mp3", "aac", "opus", "opu", "flac")

_UNLIMITED: Final = Budget(max_bytes=2**40, max_audio_ms=2**40, wall_s=1e9)

_Piece = TypeVar("_Piece", bytes, Int16)


async def measure(options: Options) -> list[Figure]:
    """A row for each format, pair of rates, and chain."""
    return await asyncio.to_thread(_measure, PART_S * (options.seconds or 1.0))


def _measure(part_s: float) -> list[Figure]:
    speech = example("three_sentences")
    seconds = speech.size / RATE

    def row(name: str, work: Callable[[], object]) -> Figure:
        return Figure(name, _cpu_s(work, part_s) * 1000 / seconds, UNIT)

    rows = []
    for encoder, format in INPUTS:
        rate = NARROW if encoder == "amr" else RATE
        data = encoded(encoder, resampled(speech, RATE, rate), rate)
        work = partial(decoded, data, format, rate, seconds)
        rows.append(row(f"decode {encoder}, {rate // 1000} kHz", work))
    for source, target in RESAMPLED:
        sound = resampled(speech, RATE, source)
        rows.append(row(f"resample {source} → {target}", partial(resampled, sound, source, target)))
    rows.append(row("near-field gate, 20 ms pieces", partial(gated, speech, 20)))
    rows.append(row("near-field gate, 100 ms pieces", partial(gated, speech, 100)))
    voice = resampled(speech, RATE, VOICE_RATE)
    for name, *factors in SPOKEN:
        rows.append(row(f"{name}, {VOICE_RATE // 1000} kHz", partial(changed, voice, *factors)))
    for format in OUTPUTS:
        name = f"encode {format}, {VOICE_RATE // 1000} kHz"
        rows.append(row(name, partial(encoded_out, voice, format)))
    return rows


def _cpu_s(work: Callable[[], object], part_s: float) -> float:
    """CPU seconds of one call: the mean over ``part_s``, after a first that loads libraries."""
    work()
    calls, began = 0, time.process_time()
    while time.process_time() - began < part_s:
        work()
        calls += 1
    return (time.process_time() - began) / calls


def _pieces(whole: _Piece, size: int) -> Iterator[_Piece]:
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def decoded(data: bytes, format: str, rate: int, seconds: float) -> Int16:
    """As its kind is decoded in the server: in the client's pieces, or as a whole file."""
    kind = what_is(data, format)
    if kind is None:
        raise ValueError(f"too little {format}")
    if kind in FILES:
        blocks = decode_file(io.BytesIO(data), kind, _UNLIMITED)
        return np.concatenate([block.samples for block in blocks])
    decoder = _decoder(kind, format, rate)
    size = max(1, round(len(data) / seconds / CLIENT_PIECES_PER_S))
    return np.concatenate([*map(decoder.feed, _pieces(data, size)), decoder.flush()])


def _decoder(kind: Kind, format: str, rate: int) -> Decoder:
    return open_decoder(format, rate) if kind in LOCAL else open_streaming_decoder(kind, rate)


def resampled(samples: Int16, source: int, target: int) -> Int16:
    """By the stream resampler, in pieces of 100 ms."""
    resampler = Resampler(source, target)
    parts = [resampler.feed(piece) for piece in _pieces(samples, source // CLIENT_PIECES_PER_S)]
    return np.concatenate([*parts, resampler.flush()])


def gated(samples: Int16, piece_ms: int) -> Int16:
    """By the near-field gate with its default threshold."""
    gate = NearFieldGate(0.01, 800)
    parts = [gate.feed(piece) for piece in _pieces(samples, RATE * piece_ms // 1000)]
    return np.concatenate([*parts, gate.flush()])


def changed(samples: Int16, speed: float, pitch: float, volume: float) -> Int16:
    """By the chain for rate, pitch and volume."""
    chain = Prosody(VOICE_RATE, speed, pitch, volume)
    parts = [chain.feed(piece) for piece in _pieces(samples, VOICE_RATE * ENGINE_PIECE_MS // 1000)]
    return np.concatenate([*parts, chain.flush()])


def encoded_out(samples: Int16, format: str) -> bytes:
    """By an encoder, as for a client whose audio is not finished yet."""
    encoder = open_encoder(format, VOICE_RATE)
    parts = [encoder.header(None)]
    parts += map(encoder.encode, _pieces(samples, VOICE_RATE * ENGINE_PIECE_MS // 1000))
    return b"".join([*parts, encoder.finish()])
