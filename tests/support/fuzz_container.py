"""Damaged files against ``decode_file``, in a process of their own: a crash is then seen as one.

    python -m tests.support.fuzz_container FIRST COUNT

decodes the seeded mutations FIRST to FIRST + COUNT - 1 and prints a :class:`Verdict` as JSON. The
same number is always the same damage, as long as the encoders do not change.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import json
import resource
import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.audio.budget import Budget
from app.audio.container import CONTAINERS, decode_file
from app.audio.sniff import Kind
from app.core.errors import SpeechError
from tests.support.encoded import encoded, muxed
from tests.support.handmade import amr_wb, gsm_wav, speex
from tests.support.sound import joined, silence, tone

BUDGET: Final = Budget(max_bytes=1 << 20, max_audio_ms=60_000, wall_s=10)

_FRAGMENTED: Final = {"movflags": "empty_moov+frag_every_frame+default_base_moof"}


@dataclasses.dataclass
class Verdict:
    """What came of a number of damaged files. ``growth_bytes`` is the growth of the process's
    peak memory since undamaged ones were decoded."""

    cases: int
    decoded: int
    errors: dict[str, int]
    unexpected: list[str]
    growth_bytes: int


@functools.cache
def healthy() -> tuple[tuple[Kind, bytes], ...]:
    """One second in every format, and in the ways of writing it that differ much."""
    narrow = joined(silence(200, 8_000), tone(600, 8_000), silence(200, 8_000))
    wide = joined(silence(200), tone(600), silence(200))
    return (
        (Kind.WAV, encoded("wav-s24", wide, 16_000)),
        (Kind.WAV, encoded("wav-mulaw", narrow, 8_000)),
        (Kind.WAV_FILE, encoded("wav-adpcm-ms", wide, 16_000)),
        (Kind.WAV_FILE, encoded("wav-adpcm-ima", wide, 16_000)),
        (Kind.WAV_FILE, gsm_wav(1000)),
        (Kind.MP3, encoded("mp3", wide, 16_000)),
        (Kind.MP3, encoded("mp3-lame", wide, 16_000)),
        (Kind.AAC, encoded("aac", wide, 16_000)),
        (Kind.M4A, encoded("m4a", wide, 16_000)),
        (Kind.M4A, muxed(wide, 16_000, "mp4", "aac", seekable=False, options=_FRAGMENTED)),
        (Kind.M4A, muxed(wide, 16_000, "mp4", "alac")),
        (Kind.FLAC, encoded("flac", wide, 16_000)),
        (Kind.OGG, encoded("ogg-flac", wide, 16_000)),
        (Kind.OGG_OPUS, encoded("ogg-opus", wide, 16_000)),
        (Kind.SPEEX, speex(1000)),
        (Kind.WEBM, encoded("webm-opus", wide, 16_000)),
        (Kind.WEBM, encoded("webm-opus-file", wide, 16_000)),
        (Kind.AMR, encoded("amr", narrow, 8_000)),
        (Kind.AMR, amr_wb(1000)),
        (Kind.WMA, encoded("wma", wide, 16_000)),
    )


def mutation(number: int) -> tuple[Kind, bytes]:
    """A damaged file: five ways of damage for every format in turn."""
    files = healthy()
    kind, data = files[number % len(files)]
    way = number // len(files) % 5
    damaged = _damaged(np.frombuffer(data, np.uint8), way, np.random.default_rng(number))
    return kind, damaged.tobytes()


def _damaged(data: NDArray[np.uint8], way: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    at = int(rng.integers(0, len(data)))
    match way:
        case 0:
            return _flipped(data, len(data), 30, rng)
        case 1:
            return _flipped(data, min(300, len(data)), 8, rng)
        case 2:
            return data[:at]
        case 3:
            noise = rng.integers(0, 256, int(rng.integers(1, 2000)), dtype=np.uint8)
            return np.concatenate([data[:at], noise, data[at:]])
        case _:
            return np.concatenate([data[:at], data[at + int(rng.integers(1, 2000)) :]])


def _flipped(
    data: NDArray[np.uint8], within: int, most: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    damaged = data.copy()
    count = int(rng.integers(1, most))
    damaged[rng.integers(0, within, count)] = rng.integers(0, 256, count)
    return damaged


def decoded_size(kind: str, data: bytes, budget: Budget = BUDGET) -> int:
    """Samples in the file."""
    return sum(block.samples.size for block in decode_file(io.BytesIO(data), kind, budget))


def peak_bytes() -> int:
    """The most memory that this process has had."""
    if sys.platform == "linux":
        # Not ru_maxrss: that is at least what the process had that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(first: int, count: int) -> Verdict:
    """Decode mutations ``first`` to ``first + count - 1``."""
    assert set(CONTAINERS) == {kind for kind, _ in healthy()}
    for kind, data in healthy():
        decoded_size(kind, data)
    before = peak_bytes()
    verdict = Verdict(count, 0, {}, [], 0)
    errors: collections.Counter[str] = collections.Counter()
    for number in range(first, first + count):
        try:
            decoded_size(*mutation(number))
            verdict.decoded += 1
        except SpeechError as error:
            errors[type(error).__name__] += 1
        except Exception as error:
            verdict.unexpected.append(f"{number}: {error!r}")
    verdict.errors = dict(errors)
    verdict.growth_bytes = peak_bytes() - before
    return verdict


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(run(int(sys.argv[1]), int(sys.argv[2])))))
