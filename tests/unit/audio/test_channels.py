"""One channel of a recording, by every way that audio is decoded."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from app.audio.channels import heard
from app.audio.decode import Decoder, open_decoder
from app.audio.pcm import Int16, joined
from app.audio.sniff import Kind
from app.audio.streaming import open_streaming_decoder
from tests.support.encoded import muxed, opus_packets
from tests.support.sound import main_frequency, silence, tone

RATE = 16_000
LEFT_HZ, RIGHT_HZ = 400, 900


def stereo() -> Int16:
    """Two tones of a second each, one behind the other, each in a channel of its own."""
    left = np.concatenate([tone(1_000, RATE, LEFT_HZ), silence(1_000, RATE)])
    right = np.concatenate([silence(1_000, RATE), tone(1_000, RATE, RIGHT_HZ)])
    return np.stack([left, right], axis=1)


def wav(samples: Int16) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as header:
        header.setnchannels(samples.shape[1])
        header.setsampwidth(2)
        header.setframerate(RATE)
        header.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def mp3(samples: Int16) -> bytes:
    return muxed(samples, RATE, "mp3", "libmp3lame", layout="stereo")


def aac(samples: Int16) -> bytes:
    return muxed(samples, RATE, "adts", "aac", seekable=False, layout="stereo")


def opus(container: str, samples: Int16) -> bytes:
    return muxed(samples, RATE, container, "libopus", seekable=False, layout="stereo")


def opened(name: str, channel: int | None) -> tuple[Decoder, bytes]:
    match name:
        case "wav":
            return open_decoder("wav", RATE, channel), wav(stereo())
        case "mp3":
            return open_streaming_decoder(Kind.MP3, RATE, channel), mp3(stereo())
        case "aac":
            return open_streaming_decoder(Kind.AAC, RATE, channel), aac(stereo())
        case "ogg":
            decoder = open_streaming_decoder(Kind.OGG_OPUS, RATE, channel)
            return decoder, opus("ogg", stereo())
        case _:
            decoder = open_streaming_decoder(Kind.WEBM, RATE, channel)
            return decoder, opus("webm", stereo())


def decoded(decoder: Decoder, data: bytes, step: int = 1_000) -> Int16:
    parts = [decoder.feed(data[at : at + step]) for at in range(0, len(data), step)]
    return joined([*parts, decoder.flush()])


def level(samples: Int16) -> float:
    return float(np.sqrt((samples.astype(np.float64) ** 2).mean()))


def test_the_mean_one_channel_or_silence() -> None:
    frames = np.array([[1, 3], [-32_768, -32_768], [32_767, 32_767]], np.int16)
    assert heard(frames, None).tolist() == [2, -32_768, 32_767]
    assert heard(frames, 0).tolist() == [1, -32_768, 32_767]
    assert heard(frames, 1).tolist() == [3, -32_768, 32_767]
    assert heard(frames, 2).tolist() == [0, 0, 0]
    assert heard(frames[:, :1], None).tolist() == [1, -32_768, 32_767]


@pytest.mark.parametrize("channel", [None, 0, 1])
def test_nothing_of_the_other_channels_is_kept_in_memory(channel: int | None) -> None:
    assert heard(np.zeros((100, 2), np.int16), channel).base is None


@pytest.mark.parametrize("name", ["wav", "mp3", "aac", "ogg", "webm"])
def test_each_channel_by_itself_and_both_mixed(name: str) -> None:
    """A second of one is loud where the other is silent, so what is heard tells the channel."""
    found = {}
    for channel in (None, 0, 1, 2):
        decoder, data = opened(name, channel)
        samples = decoded(decoder, data)
        assert decoder.channels == 2
        assert decoder.sample_rate is not None
        second = decoder.sample_rate
        # The middles of both seconds: what coders smear is at their edges.
        found[channel] = (
            samples[second // 4 : second * 3 // 4],
            samples[second * 5 // 4 :][: second // 2],
        )
    assert main_frequency(found[0][0], second) == pytest.approx(LEFT_HZ, abs=5)
    assert main_frequency(found[1][1], second) == pytest.approx(RIGHT_HZ, abs=5)
    for quiet in (found[0][1], found[1][0], *found[2]):
        assert level(quiet) < 30
    for mixed, alone in ((found[None][0], found[0][0]), (found[None][1], found[1][1])):
        assert level(mixed) == pytest.approx(level(alone) / 2, rel=0.1)


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_a_channel_of_wav_is_the_same_however_it_is_cut(step: int) -> None:
    samples = stereo()[:2_000]
    decoder = open_decoder("wav", RATE, 1)
    assert np.array_equal(decoded(decoder, wav(samples), step), samples[:, 1])


def test_raw_samples_are_one_channel() -> None:
    for channel, expected in ((0, [1, 2]), (1, [0, 0])):
        decoder = open_decoder("pcm", RATE, channel)
        assert decoded(decoder, np.array([1, 2], "<i2").tobytes()).tolist() == expected
        assert decoder.channels == 1
        called_wav = open_decoder("wav", RATE, channel)
        assert decoded(called_wav, np.array([1, 2], "<i2").tobytes()).tolist() == expected
        assert called_wav.channels == 1


def test_how_many_there_are_is_not_known_before_it_is_told() -> None:
    assert open_decoder("wav", RATE).channels == 0
    for kind in (Kind.MP3, Kind.AAC, Kind.OGG_OPUS, Kind.WEBM, Kind.OPU, Kind.OPUS_PACKETS):
        assert open_streaming_decoder(kind, RATE).channels == 0


def test_packets_without_a_container_are_one_channel() -> None:
    samples = np.stack([tone(500, RATE), silence(500, RATE)], axis=1)
    packets = opus_packets(samples, RATE, layout="stereo")
    decoder = open_streaming_decoder(Kind.OPU, RATE, 0)
    decoded(decoder, b"".join(bytes([len(packet)]) + packet for packet in packets))
    assert decoder.channels == 1


def test_a_stream_that_is_mono_in_parts_keeps_its_times() -> None:
    """Files are played one behind the other as one stream; in its mono part nobody speaks in the
    second channel."""
    plain = {"write_xing": "0", "id3v2_version": "0"}
    mono = muxed(tone(1_000), RATE, "mp3", "libmp3lame", seekable=False, options=plain)
    both = muxed(
        stereo(), RATE, "mp3", "libmp3lame", seekable=False, options=plain, layout="stereo"
    )
    second = open_streaming_decoder(Kind.MP3, RATE, 1)
    found = decoded(second, mono + both)
    whole = decoded(open_streaming_decoder(Kind.MP3, RATE), mono + both)
    assert second.channels == 2
    assert len(found) == len(whole)
    assert level(found[: RATE * 3 // 4]) == 0
    assert level(found[-RATE * 3 // 4 :][: RATE // 2]) > 1_000
