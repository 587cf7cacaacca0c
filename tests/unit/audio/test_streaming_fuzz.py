"""Damaged streams: whatever is done to them, they decode or are refused, and cost no memory."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from app.audio.sniff import STREAMING, Kind, what_is
from app.audio.streaming import open_streaming_decoder
from app.core.errors import SpeechError
from tests.support.encoded import encoded, opus_packets
from tests.support.sound import joined, silence, tone

SOUND = joined(silence(100), tone(600), silence(100))
STREAMS = {
    name: encoded(name, SOUND, 16_000)
    for name in ("mp3", "mp3-lame", "aac", "ogg-opus", "webm-opus", "webm-opus-file", "opu")
}
CASES = 200
ROOT = Path(__file__).parents[3]


def flips(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 30)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def header_flips(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(min(300, len(data)))] = rng.randrange(256)


def truncation(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def insertion(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.randint(1, 2_000))


def deletion(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 2_000)]


def repetition(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[: rng.randint(1, len(data))]


MUTATIONS = (flips, header_flips, truncation, insertion, deletion, repetition)


def mutated(name: str, seed: int) -> bytes:
    rng = random.Random(f"{name} {seed}")
    data = bytearray(STREAMS[name])
    MUTATIONS[seed % len(MUTATIONS)](data, rng)
    return bytes(data)


def outcome(kind: Kind, stream: bytes, step: int) -> tuple[bytes, bool]:
    """(samples, whether it was refused); only errors that a client may see are let pass."""
    decoder = open_streaming_decoder(kind, 16_000)
    out = bytearray()
    fed = 0
    try:
        for start in range(0, len(stream), step):
            out += decoder.feed(stream[start : start + step]).tobytes()
            fed += len(stream[start : start + step])
            checkpoint = decoder.checkpoint()
            # What is not done with yet is all that a decoder keeps.
            assert 0 <= fed - checkpoint.position <= 128 * 1024
            assert len(checkpoint.preamble) <= 64 * 1024
        out += decoder.flush().tobytes()
    except SpeechError:
        return bytes(out), True
    return bytes(out), False


@pytest.mark.parametrize("name", STREAMS)
def test_mutations_decode_or_are_refused(name: str) -> None:
    kind = what_is(STREAMS[name][:64], name.split("-")[0])
    assert kind is not None
    decoded = 0
    for seed in range(CASES):
        stream = mutated(name, seed)
        samples, refused = outcome(kind, stream, 700)
        decoded += bool(samples)
        # No byte is worth more than a packet of Opus.
        assert len(samples) <= 2 * 5_760 * (len(stream) + 2)
        if seed % 4 == 0 and not refused:
            again = outcome(kind, stream, 97)
            # FFmpeg's AAC decoder gives other samples for the same damaged frames each time.
            same = len(again[0]) == len(samples) if kind is Kind.AAC else again[0] == samples
            assert same and not again[1], seed
    assert decoded > CASES / 2


@pytest.mark.parametrize("kind", sorted(STREAMING))
def test_noise_under_every_kind(kind: Kind) -> None:
    for seed in range(30):
        outcome(kind, random.Random(seed).randbytes(20_000), 1_000)


@pytest.mark.parametrize("kind", sorted(STREAMING))
@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_under_every_kind(name: str, kind: Kind) -> None:
    outcome(kind, STREAMS[name], 1_000)


def test_mutated_bare_packets() -> None:
    for seed in range(CASES):
        rng = random.Random(seed)
        decoder = open_streaming_decoder(Kind.OPUS_PACKETS, 16_000)
        for packet in opus_packets(SOUND[:1_600], 16_000):
            data = bytearray(packet)
            MUTATIONS[seed % len(MUTATIONS)](data, rng)
            assert decoder.feed(bytes(data)).size <= 2 * 5_760


HOSTILE = """
import resource, sys
from app.audio.sniff import Kind
from app.audio.streaming import open_streaming_decoder
from app.core.errors import SpeechError

def peak_kb():
    scale = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // scale

noise = bytes(range(256)) * 256
starts = {
    Kind.MP3: [b"", b"\\xff\\xfb\\x90\\x00", b"ID3\\4\\0\\0\\x7f\\x7f\\x7f\\x7f"],
    Kind.AAC: [b"", b"\\xff\\xf1\\x50\\x80\\xff\\xff\\xfc"],
    Kind.OGG_OPUS: [b"", b"OggS\\0\\1" + bytes(20) + b"\\xff" * 256],
    Kind.WEBM: [bytes.fromhex("1a45dfa3") + size for size in (
        b"\\x80", b"\\x01\\xff\\xff\\xff\\xff\\xff\\xff\\xfe", b"\\xff")],
    Kind.OPU: [b"", b"\\xff"],
}
for rubbish in (bytes(65536), b"\\xff" * 65536, noise):  # warm up what is loaded once
    for kind, heads in starts.items():
        for head in heads:
            decoder = open_streaming_decoder(kind, 16000)
            try:
                decoder.feed(head + rubbish)
            except SpeechError:
                pass
before = peak_kb()
for rubbish in (bytes(65536), b"\\xff" * 65536, noise):
    for kind, heads in starts.items():
        for head in heads:
            decoder = open_streaming_decoder(kind, 16000)
            try:
                decoder.feed(head)
                for _ in range(160):
                    decoder.feed(rubbish)
            except SpeechError:
                pass
print(peak_kb() - before)
"""


def test_10_mb_of_rubbish_cost_no_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 10_000
    assert not done.stderr
