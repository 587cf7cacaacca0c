"""The formats that an encoder of FFmpeg makes, decoded again."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import numpy as np
import pytest

from app.audio.encode import ENCODABLE, SAMPLE_RATES, open_encoder
from app.audio.mpeg_audio import priming
from app.audio.pcm import Int16
from tests.support.decoded import decoded, opu_packets
from tests.support.sound import main_frequency, tone

FORMATS = sorted({*ENCODABLE} - {"ogg"})
COMPRESSED = sorted({*FORMATS} - {"pcm", "wav"})
OPUS_MS = 20
HZ = 700.0

# Samples that a decoder gives too many: what the format has no place to tell of.
LATEST = {"mp3": 2 * 1_152, "aac": 1_024 + 1_023 + 64}

every_format = pytest.mark.parametrize("format", FORMATS)
every_compressed = pytest.mark.parametrize("format", COMPRESSED)
every_rate = pytest.mark.parametrize("rate", SAMPLE_RATES)


def cut(samples: Int16, size: int) -> list[Int16]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def cut_at_random(samples: Int16, longest: int) -> list[Int16]:
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, longest, len(samples))
    return np.split(samples, np.cumsum(sizes)[np.cumsum(sizes) < len(samples)])


def streamed(format: str, rate: int, parts: Iterable[Int16]) -> bytes:
    encoder = open_encoder(format, rate)
    return b"".join([encoder.header(None), *map(encoder.encode, parts), encoder.finish()])


def whole(format: str, rate: int, parts: list[Int16]) -> bytes:
    encoder = open_encoder(format, rate)
    body = b"".join([*map(encoder.encode, parts), encoder.finish()])
    return encoder.header(sum(map(len, parts))) + body


def lag(original: Int16, later: Int16) -> int:
    """Samples by which ``later`` is behind."""
    size = 1 << (len(original) + len(later)).bit_length()
    spectrum = np.fft.rfft(later, size) * np.conj(np.fft.rfft(original, size))
    found = int(np.argmax(np.fft.irfft(spectrum, size)))
    return found if found < size // 2 else found - size


def chirp(rate: int, seconds: float = 1.0) -> Int16:
    t = np.arange(round(rate * seconds)) / rate
    return (12_000 * np.sin(2 * np.pi * (300 + 500 * t) * t)).astype(np.int16)


@every_format
@every_rate
def test_duration_rate_and_tone(format: str, rate: int) -> None:
    samples = tone(1_500, rate, HZ)[:-7]
    audio, decoded_rate = decoded(format, streamed(format, rate, cut(samples, rate // 7)), rate)
    opus = format in ("opus", "opu")
    assert decoded_rate == (48_000 if opus else rate)
    extra = len(audio) - len(samples) * decoded_rate / rate
    if format == "opu":
        assert 0 <= extra <= 48 * 2 * OPUS_MS
    else:
        assert -1 <= extra <= LATEST.get(format, 1)
    middle = audio[decoded_rate // 4 : decoded_rate * 5 // 4]
    assert abs(main_frequency(middle, decoded_rate) - HZ) < 2
    level = np.sqrt(np.mean(middle.astype(float) ** 2))
    assert level == pytest.approx(0.3 * 32767 / np.sqrt(2), rel=0.1)


@every_format
@every_rate
def test_first_bytes(format: str, rate: int) -> None:
    """Of the audio, after so much of it; counted in audio, not in time."""
    encoder = open_encoder(format, rate)
    encoder.header(None)
    pushed_ms = 0
    step = tone(1_000, rate, HZ)
    for part in cut(step, rate // 100):
        pushed_ms += 10
        if encoder.encode(part):
            break
    assert pushed_ms <= (250 if format in ("mp3", "aac") else 100)


@every_format
@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_how_the_samples_are_cut_does_not_matter(
    format: str, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.getrandbits", lambda bits: 1)  # the number of an Ogg stream
    samples = chirp(rate)
    expected = streamed(format, rate, [samples])
    assert streamed(format, rate, cut_at_random(samples, rate // 5)) == expected
    assert streamed(format, rate, cut(samples[: rate // 10], 1)) == streamed(
        format, rate, [samples[: rate // 10]]
    )


@every_format
@pytest.mark.parametrize("size", [1, 2, 319, 320, 321])
def test_very_short_audio(format: str, size: int) -> None:
    samples = tone(100)[:size]
    for data in (streamed(format, 16_000, [samples]), whole(format, 16_000, [samples])):
        audio, rate = decoded(format, data, 16_000)
        assert len(audio) / rate >= size / 16_000


@every_compressed
def test_no_audio_at_all(format: str) -> None:
    encoder = open_encoder(format, 16_000)
    assert encoder.encode(np.empty(0, np.int16)) == b""
    assert encoder.finish() == b""
    encoder.header(0)


@pytest.mark.parametrize("format", ["mp3", "flac", "opus"])
@every_rate
def test_of_known_length_it_is_exact(format: str, rate: int) -> None:
    samples = chirp(rate)[:-77]
    audio, decoded_rate = decoded(format, whole(format, rate, cut(samples, 1_111)), rate)
    # Opus counts at one of its own rates.
    slack = 0 if decoded_rate == rate else 2
    assert abs(len(audio) - round(len(samples) * decoded_rate / rate)) <= slack
    if decoded_rate == rate:
        assert abs(lag(samples, audio)) <= 1


@every_rate
def test_streamed_mp3_and_aac_are_late_by_what_is_documented(rate: int) -> None:
    samples = chirp(rate)
    mp3, _ = decoded("mp3", streamed("mp3", rate, [samples]), rate)
    assert lag(samples, mp3) == 1_105
    aac, _ = decoded("aac", streamed("aac", rate, [samples]), rate)
    assert lag(samples, aac) == (1_088 if rate == 8_000 else 1_024)


@every_rate
def test_the_info_frame_of_mp3(rate: int) -> None:
    samples = chirp(rate)
    data = whole("mp3", rate, [samples])
    body = streamed("mp3", rate, [samples])
    frame = data[: len(data) - len(body)]
    assert data.endswith(body)
    found = priming(frame)
    assert found is not None
    assert found.end - found.start == len(samples)
    assert found.start == 1_105
    at = 4 + (17 if rate >= 32_000 else 9)
    magic, flags, frames, size = struct.unpack_from(">4sIII", frame, at)
    assert (magic, flags, size) == (b"Info", 15, len(data))
    assert frames * (1_152 if rate >= 32_000 else 576) == found.total
    # The checksum that the tag ends with makes that of the whole zero.
    assert crc16(frame[: at + 156]) == 0
    with av.open(io.BytesIO(data), "r", format="mp3") as container:
        assert container.duration == pytest.approx(len(samples) / rate * 1_000_000, abs=150_000)


def crc16(data: bytes) -> int:
    """CRC-16/ARC with the checksum behind the data, high byte first: 0 where it is right."""
    crc = 0
    for byte in data[:-2]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc ^ int.from_bytes(data[-2:], "big")


@every_rate
def test_the_header_of_flac(rate: int) -> None:
    samples = chirp(rate)
    data = whole("flac", rate, cut(samples, 999))
    assert data[:8] == b"fLaC\x80\x00\x00\x22"
    numbers = int.from_bytes(data[18:26], "big")
    assert (numbers >> 44, numbers & 0xFFFFFFFFF) == (rate, len(samples))
    assert data[26:42] == hashlib.md5(samples.tobytes()).digest()
    live = streamed("flac", rate, cut(samples, 999))
    assert live[42:] == data[42:]
    assert int.from_bytes(live[18:26], "big") & 0xFFFFFFFFF == 0
    for each in (data, live):
        assert np.array_equal(decoded("flac", each, rate)[0], samples)


@dataclass(frozen=True)
class Page:
    flags: int
    granule: int
    serial: int
    number: int
    packet: bytes


def ogg_pages(data: bytes) -> Iterator[Page]:
    """The pages of a stream with one packet in each (RFC 3533 section 6)."""
    while data:
        magic, version, flags, granule, serial, number, checksum, segments = struct.unpack_from(
            "<4sBBqIIIB", data
        )
        assert (magic, version) == (b"OggS", 0)
        lacing = data[27 : 27 + segments]
        assert all(size == 255 for size in lacing[:-1]) and lacing[-1] < 255
        end = 27 + segments + sum(lacing)
        assert ogg_crc(data[:22] + bytes(4) + data[26:end]) == checksum
        yield Page(flags, granule, serial, number, data[27 + segments : end])
        data = data[end:]


def ogg_crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


@every_rate
def test_the_pages_of_ogg_opus(rate: int) -> None:
    samples = chirp(rate, 0.5)[:-11]
    head, tags, *pages = ogg_pages(streamed("opus", rate, [samples]))
    assert len({page.serial for page in [head, tags, *pages]}) == 1
    assert [page.number for page in [head, tags, *pages]] == list(range(len(pages) + 2))
    magic, version, channels, pre_skip, told_rate = struct.unpack_from("<8sBBHI", head.packet)
    assert (magic, version, channels, told_rate) == (b"OpusHead", 1, 1, rate)
    assert tags.packet == b"OpusTags\x09\0\0\0FunSpeech\0\0\0\0"
    assert head.granule == tags.granule == 0
    assert [page.granule for page in pages[:-1]] == [960 * n for n in range(1, len(pages))]
    begins, ends = 2, 4
    flags = [page.flags for page in [head, tags, *pages]]
    assert flags == [begins, 0, *[0] * (len(pages) - 1), ends]
    assert pages[-1].granule == pytest.approx(pre_skip + len(samples) * 48_000 / rate, abs=3)
    assert pages[-2].granule < pages[-1].granule <= 960 * len(pages)


def test_two_ogg_streams_one_behind_the_other_are_told_apart() -> None:
    part = [tone(100)]
    pages = ogg_pages(streamed("opus", 16_000, part) + streamed("opus", 16_000, part))
    assert len({page.serial for page in pages}) == 2


@every_rate
def test_packets_of_opu_are_20_ms_whatever_the_audio(rate: int) -> None:
    noise = np.random.default_rng(3).integers(-32_768, 32_768, 2 * rate).astype(np.int16)
    speech = np.concatenate([noise, chirp(rate), np.zeros(rate, np.int16), noise[:rate]])
    packets = opu_packets(streamed("opu", rate, [speech]))
    assert 5_000 // OPUS_MS <= len(packets) <= 5_000 // OPUS_MS + 2
    assert {frame_ms(packet) for packet in packets} == {OPUS_MS}
    # The C++ SDK's bit rate, less where there is silence.
    assert 15_000 < sum(map(len, packets)) * 8 / 5 < 40_000


def frame_ms(packet: bytes) -> float:
    """Of a packet with one frame (RFC 6716 section 3.1)."""
    config, frames = packet[0] >> 3, packet[0] & 3
    assert frames == 0
    if config < 16:
        return (10, 20, 40, 60)[config & 3] if config < 12 else (10, 20)[config & 1]
    return (2.5, 5, 10, 20)[config & 3]


@every_rate
def test_every_frame_of_aac_has_its_header(rate: int) -> None:
    data = streamed("aac", rate, cut(chirp(rate), rate // 30))
    frames, at = 0, 0
    while at < len(data):
        head = int.from_bytes(data[at : at + 7], "big")
        assert (head >> 40, head >> 38 & 3, head >> 30 & 7) == (0xFFF1, 1, 1)
        at += head >> 13 & 0x1FFF
        frames += 1
    assert at == len(data)
    assert frames * 1_024 >= rate + 1_024
