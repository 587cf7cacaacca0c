import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.audio.frame import AudioFrame

from app.audio.damage import MAX_BAD, Damage
from app.audio.packets import PacketDecoder
from app.audio.pcm import EMPTY, joined
from app.core.errors import BadAudio
from tests.support.encoded import opus_packets
from tests.support.sound import tone


class StubContext:
    """In place of FFmpeg's decoder: gives the frames it is told to, or raises."""

    def __init__(self) -> None:
        self.next: list[AudioFrame] | Exception = []
        self.packets = 0

    def decode(self, packet: object) -> list[AudioFrame]:
        self.packets += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


def stubbed(damage: Damage) -> tuple[PacketDecoder, StubContext]:
    decoder = PacketDecoder("aac", damage)
    context = StubContext()
    decoder._context = context  # type: ignore[assignment]  # a stub
    return decoder, context


def frame(rate: int, samples: int = 160, layout: str = "mono") -> AudioFrame:
    made = AudioFrame(format="fltp", layout=layout, samples=samples)
    for plane in made.planes:
        plane.update(np.full(samples, 0.5, np.float32).tobytes().ljust(plane.buffer_size, b"\0"))
    made.sample_rate = rate
    made.time_base = Fraction(1, rate)
    return made


def test_good_packets() -> None:
    damage = Damage()
    decoder = PacketDecoder("libopus", damage)
    found = opus_packets(tone(1_000), 16_000)
    samples = joined([*(decoder.decode(packet) for packet in found), decoder.flush()])
    assert samples.size == 960 * len(found)
    assert decoder.sample_rate == 48_000
    assert (damage.good, damage.bad) == (len(found), 0)


def test_an_empty_packet_does_not_end_the_stream() -> None:
    damage = Damage()
    decoder, context = stubbed(damage)
    assert decoder.decode(b"") is EMPTY
    assert context.packets == 0
    assert damage.bad == 1


@pytest.mark.parametrize(
    "error", [ValueError(), OSError(), NotImplementedError(), AttributeError(), EOFError()]
)
def test_whatever_a_bad_packet_raises_is_counted(error: Exception) -> None:
    damage = Damage()
    decoder, context = stubbed(damage)
    context.next = error
    for _ in range(MAX_BAD):
        assert not decoder.decode(b"x").size
    with pytest.raises(BadAudio):
        decoder.decode(b"x")


def test_a_packet_without_frames_is_neither_good_nor_bad() -> None:
    damage = Damage()
    decoder, _ = stubbed(damage)
    assert not decoder.decode(b"x").size
    assert (damage.good, damage.bad) == (0, 0)


def test_another_rate_is_resampled_to_the_first() -> None:
    decoder, context = stubbed(Damage())
    parts = []
    for rate in (16_000, 48_000, 8_000, 16_000):
        context.next = [frame(rate, rate // 10)] * 5
        parts.append(decoder.decode(b"x"))
    context.next = []
    parts.append(decoder.flush())
    assert decoder.sample_rate == 16_000
    assert joined(parts).size == 4 * 8_000


@pytest.mark.parametrize("rate", [7_999, 192_001, 1_700_000_000])
def test_impossible_rates(rate: int) -> None:
    decoder, context = stubbed(Damage())
    context.next = [frame(16_000)]
    decoder.decode(b"x")
    context.next = [frame(rate)]
    with pytest.raises(BadAudio, match="sample rate"):
        decoder.decode(b"x")


def test_channels_are_mixed_down_and_clipped() -> None:
    decoder, context = stubbed(Damage())
    context.next = [frame(16_000, layout="5.1")]
    assert set(decoder.decode(b"x").tolist()) == {16_384}


def test_the_library_is_imported_late() -> None:
    """It takes 90 ms and 18 MB."""
    code = "import sys, app.audio.streaming, app.audio.sniff; sys.exit('av' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
