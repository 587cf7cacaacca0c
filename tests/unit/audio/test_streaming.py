"""The decoders of streams against audio that FFmpeg's encoders made."""

import struct

import numpy as np
import pytest

from app.audio import ogg, opus_frames
from app.audio.decode import StreamingDecoder
from app.audio.gate import NearFieldGate
from app.audio.resample import Resampler
from app.audio.sniff import STREAMING, Kind, what_is
from app.audio.streaming import MAX_UNPARSED_BYTES, open_streaming_decoder
from app.core.errors import BadAudio, UnsupportedFormat, UnsupportedSampleRate
from tests.support.encoded import encoded, muxed, opus_packets
from tests.support.sound import Int16, joined, main_frequency, silence, tone

FORMATS = ("mp3", "mp3-lame", "aac", "ogg-opus", "webm-opus", "webm-opus-file", "opu")
# Formats that cut off what their encoder put in front and behind.
EXACT = ("mp3-lame", "ogg-opus", "webm-opus", "webm-opus-file")
LOUD = 1_000


def sound(rate: int) -> Int16:
    return joined(silence(300, rate), tone(1_500, rate, hz=700), silence(300, rate))


def opened(name: str, stream: bytes) -> StreamingDecoder:
    kind = what_is(stream[:64], name.split("-")[0])
    assert kind is not None
    return open_streaming_decoder(kind, 16_000)


def pieces(stream: bytes, step: int) -> list[bytes]:
    return [stream[i : i + step] for i in range(0, len(stream), step)]


def fed(decoder: StreamingDecoder, parts: list[bytes]) -> Int16:
    out = [decoder.feed(part) for part in parts]
    out.append(decoder.flush())
    assert {samples.dtype for samples in out} == {np.dtype(np.int16)}
    return np.concatenate(out)


def decode(name: str, stream: bytes, step: int = 1 << 20) -> Int16:
    return fed(opened(name, stream), pieces(stream, step))


def loud_ms(samples: Int16, rate: int) -> tuple[float, float]:
    """Where the tone begins and how long it is."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > LOUD)
    return loud[0] / rate * 1_000, (loud[-1] - loud[0]) / rate * 1_000


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("name", FORMATS)
def test_the_tone_comes_out_whole(name: str, rate: int) -> None:
    stream = encoded(name, sound(rate), rate)
    decoder = opened(name, stream)
    samples = fed(decoder, pieces(stream, 1_000))
    out_rate = decoder.sample_rate
    assert out_rate == (rate if name in ("mp3", "mp3-lame", "aac") else 48_000)
    assert abs(main_frequency(samples, out_rate) - 700) < 2
    start, length = loud_ms(samples, out_rate)
    assert abs(length - 1_500) < 12
    if name in EXACT:
        assert len(samples) == 2_100 * out_rate // 1_000
        assert abs(start - 300) < 3
    else:
        assert 300 <= start < 300 + 2_500 / rate * 1_000 + 8  # the encoder's delay


@pytest.mark.parametrize("name", FORMATS)
def test_any_split_is_the_same(name: str) -> None:
    stream = encoded(name, sound(16_000), 16_000)
    whole = decode(name, stream)
    for step in (1, 7, 333, 1_000):
        assert np.array_equal(decode(name, stream, step), whole)


@pytest.mark.parametrize("name", FORMATS)
def test_any_split_is_the_same_behind_the_gate(name: str) -> None:
    stream = encoded(name, joined(sound(16_000), tone(500, level=0.005)), 16_000)

    def gated(step: int) -> Int16:
        decoder, gate = opened(name, stream), NearFieldGate(0.01, 800)
        resampler: Resampler | None = None
        out = []
        for piece in pieces(stream, step):
            samples = decoder.feed(piece)
            if samples.size:
                assert decoder.sample_rate is not None
                resampler = resampler or Resampler(decoder.sample_rate, 16_000)
                out.append(gate.feed(resampler.feed(samples)))
        assert resampler is not None
        out.append(gate.feed(joined(resampler.feed(decoder.flush()), resampler.flush())))
        return joined(*out, gate.flush())

    whole = gated(1 << 20)
    assert np.array_equal(gated(17), whole)
    assert not whole[-6_000:].any()
    assert np.abs(whole).max() > LOUD


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_samples_come_with_the_first_bytes(name: str) -> None:
    stream = encoded(name, sound(16_000), 16_000)
    decoder = opened(name, stream)
    need = 0
    while not decoder.feed(stream[need : need + 50]).size:
        need += 50
    assert need < len(stream) / 5


@pytest.mark.parametrize("name", FORMATS)
def test_another_decoder_goes_on_from_every_checkpoint(name: str) -> None:
    stream = encoded(name, sound(16_000), 16_000)
    whole = decode(name, stream)
    for done in range(0, len(stream), 479):
        first = opened(name, stream)
        before = joined(*[first.feed(piece) for piece in pieces(stream[:done], 100)], silence(0))
        checkpoint = first.checkpoint()
        assert len(checkpoint.preamble) <= 64 * 1024
        assert done - 2_000 <= checkpoint.position <= done
        second = opened(name, stream)
        if checkpoint.preamble:
            second.resume(checkpoint.preamble)
        after = fed(second, pieces(stream[checkpoint.position :], 333))
        rate = second.sample_rate or first.sample_rate
        assert rate is not None
        # At worst a frame is lost at the seam, or the padding at the end is not known any more.
        assert abs(len(before) + len(after) - len(whole)) <= 0.15 * rate
        assert abs(main_frequency(joined(before, after), rate) - 700) < 2


@pytest.mark.parametrize("name", FORMATS)
def test_checkpoints_count_the_preamble(name: str) -> None:
    stream = encoded(name, sound(16_000), 16_000)
    first = opened(name, stream)
    first.feed(stream[:3_000])
    one = first.checkpoint()
    second = opened(name, stream)
    second.resume(one.preamble)
    second.feed(stream[one.position : 5_000])
    two = second.checkpoint()
    third = opened(name, stream)
    first.feed(stream[3_000:5_000])
    assert one.position - len(one.preamble) + two.position == first.checkpoint().position
    third.resume(two.preamble)
    assert third.checkpoint().position == len(two.preamble)


def test_checkpoint_inside_a_tag() -> None:
    stream = b"ID3\4\0\0\0\0\x7f\x7f" + bytes(16_383) + encoded("mp3", sound(16_000), 16_000)
    whole = decode("mp3", stream)
    first = opened("mp3", stream)
    first.feed(stream[:9_000])
    checkpoint = first.checkpoint()
    assert checkpoint.position == 9_000
    second = open_streaming_decoder(Kind.MP3, 16_000)
    second.resume(checkpoint.preamble)
    assert np.array_equal(fed(second, [stream[9_000:]]), whole)


def test_tagged_files_one_behind_the_other() -> None:
    stream = encoded("mp3-lame", sound(16_000), 16_000)
    bare = stream[10 + (stream[8] << 7 | stream[9]) :]
    samples = decode("mp3", stream + bare, 999)
    assert abs(len(samples) - 2 * 33_600) <= 1_152
    assert abs(main_frequency(samples, 16_000) - 700) < 2


def test_aac_behind_a_tag() -> None:
    stream = encoded("aac", sound(16_000), 16_000)
    tagged = b"ID3\4\0\0\0\0\0\5" + b"apple" + stream
    assert what_is(tagged[:64], "aac") is Kind.AAC
    assert np.array_equal(decode("aac", tagged, 77), decode("aac", stream))


@pytest.mark.parametrize("name", ["mp3", "aac"])
def test_rate_changes_in_mid_stream(name: str) -> None:
    one = encoded(name, tone(1_000, 16_000, hz=700), 16_000)
    two = encoded(name, tone(1_000, 48_000, hz=700), 48_000)
    samples = decode(name, one + two, 500)
    assert abs(len(samples) - 2 * 16_000) < 0.3 * 16_000
    assert abs(main_frequency(samples[:14_000], 16_000) - 700) < 2
    assert abs(main_frequency(samples[-12_000:], 16_000) - 700) < 2
    assert np.array_equal(decode(name, one + two, 13), samples)


@pytest.mark.parametrize("name", ["mp3", "aac", "ogg-opus", "webm-opus"])
def test_channels_are_mixed_down(name: str) -> None:
    container, codec = {
        "mp3": ("mp3", "libmp3lame"),
        "aac": ("adts", "aac"),
        "ogg-opus": ("ogg", "libopus"),
        "webm-opus": ("webm", "libopus"),
    }[name]
    stream = muxed(sound(48_000), 48_000, container, codec, layout="stereo")
    samples = decode(name, stream, 999)
    assert abs(loud_ms(samples, 48_000)[1] - 1_500) < 12
    assert 0.19 < np.abs(samples).max() / 32_768 < 0.24  # 0.3 at -3 dB


def test_opus_of_many_channels() -> None:
    stream = muxed(sound(48_000), 48_000, "ogg", "libopus", layout="5.1")
    assert abs(len(decode("ogg", stream)) - 2_100 * 48) <= 1


@pytest.mark.parametrize("name", ["mp3", "aac", "opu"])
def test_holes_cost_only_what_is_in_them(name: str) -> None:
    stream = encoded(name, sound(16_000), 16_000)
    whole = decode(name, stream)
    damaged = bytearray(stream)
    for at in (len(stream) // 3, len(stream) // 2):
        damaged[at : at + 60] = bytes(60)
    if name == "opu":
        # Keep the lengths: only what is in the packets is damaged.
        packets = opus_packets(sound(16_000), 16_000)
        packets[30:34] = [b"\x0b\x00junk"] * 4
        damaged = bytearray(b"".join(map(opus_frames.frame, packets)))
    samples = decode(name, bytes(damaged), 333)
    assert 0.75 * len(whole) < len(samples) <= len(whole)


@pytest.mark.parametrize("name", ["ogg-opus", "webm-opus"])
def test_truncated(name: str) -> None:
    stream = encoded(name, sound(16_000), 16_000)
    samples = decode(name, stream[: len(stream) // 2])
    assert 0.3 < len(samples) / (2_100 * 48) < 0.7


# Ogg


def ogg_stream(
    rate: int = 16_000, *, serial: int = 0, first_granule: int = 0, padding: int = 0
) -> bytes:
    """As NLS's clients make it: a page per packet, and granule positions that may go on from
    somewhere."""
    head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 312, rate, 0, 0)
    tags = b"OpusTags" + struct.pack("<I4sI", 4, b"test", 0)
    pages = [
        ogg.make_page(head, serial=serial, begin=True),
        ogg.make_page(tags, serial=serial, number=1),
    ]
    packets = opus_packets(sound(rate), rate)
    granule = first_granule
    for number, packet in enumerate(packets):
        granule += 960
        end = number == len(packets) - 1
        pages.append(
            ogg.make_page(
                packet,
                serial=serial,
                number=number + 2,
                granule=granule - (padding if end else 0),
                end=end,
            )
        )
    return b"".join(pages)


def opus_samples(stream: bytes, step: int = 333) -> Int16:
    return fed(open_streaming_decoder(Kind.OGG_OPUS, 16_000), pieces(stream, step))


PLAIN = opus_samples(ogg_stream())


def test_pre_skip_and_end() -> None:
    packets = len(opus_packets(sound(16_000), 16_000))
    assert len(PLAIN) == packets * 960 - 312
    for padding in (1, 500, 960):
        assert np.array_equal(opus_samples(ogg_stream(padding=padding)), PLAIN[:-padding])


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_end_of_a_decoder_that_is_behind(rate: int) -> None:
    whole = opus_samples(ogg_stream(rate))
    assert np.array_equal(opus_samples(ogg_stream(rate, padding=400)), whole[:-400])


@pytest.mark.parametrize("padding", [-5_000, -1, 961, 10**9])
def test_impossible_ends_are_ignored(padding: int) -> None:
    assert np.array_equal(opus_samples(ogg_stream(padding=padding)), PLAIN)


@pytest.mark.parametrize("first_granule", [960 * 1_000, 2**62])
def test_granules_are_no_clock(first_granule: int) -> None:
    assert np.array_equal(opus_samples(ogg_stream(first_granule=first_granule)), PLAIN)


@pytest.mark.parametrize("serial", [0, 5])
def test_headers_again_at_a_soft_restart(serial: int) -> None:
    chained = ogg_stream() + ogg_stream(serial=serial, first_granule=123 * 960, padding=100)
    expected = joined(PLAIN, PLAIN[:-100])
    assert np.array_equal(opus_samples(chained), expected)
    assert np.array_equal(opus_samples(chained, 1), expected)
    cut = ogg_stream()[:-150]  # without its end
    assert len(opus_samples(cut + ogg_stream(serial=serial))) >= 2 * len(PLAIN) - 6 * 960


def test_second_track_is_left_out() -> None:
    stream = ogg_stream()
    first = stream.index(b"OggS", 4)
    other = ogg_stream(serial=9)
    second = other.index(b"OggS", 4)
    mixed = stream[:first] + other[:second] + stream[first:] + other[second:]
    assert np.array_equal(opus_samples(mixed), PLAIN)


def test_headers_without_audio_are_no_error() -> None:
    stream = ogg_stream()
    third = stream.index(b"OggS", stream.index(b"OpusTags"))
    assert opus_samples(stream[:third]).size == 0


def test_large_tags() -> None:
    stream = ogg_stream()
    begin = stream.index(b"OggS", 4)
    end = stream.index(b"OggS", begin + 4)
    tags = ogg.make_page(b"OpusTags" + bytes(60_000), serial=0, number=1)
    assert np.array_equal(opus_samples(stream[:begin] + tags + stream[end:]), PLAIN)


@pytest.mark.parametrize("name", ["ogg-flac", "flac"])
def test_ogg_without_opus(name: str) -> None:
    decoder = open_streaming_decoder(Kind.OGG_OPUS, 16_000)
    with pytest.raises(BadAudio, match="Ogg"):
        for piece in pieces(encoded(name, sound(48_000), 48_000) * 3, 1_000):
            decoder.feed(piece)


# Packets


@pytest.mark.parametrize("frame_ms", [20, 60])
def test_bare_packets_are_messages(frame_ms: int) -> None:
    packets = opus_packets(sound(16_000), 16_000, frame_ms)
    bare = fed(open_streaming_decoder(Kind.OPUS_PACKETS, 16_000), packets)
    assert len(bare) == len(packets) * frame_ms * 48
    assert abs(loud_ms(bare, 48_000)[1] - 1_500) < 12


def test_bare_packets_are_what_framed_ones_are() -> None:
    packets = opus_packets(sound(16_000), 16_000)
    framed = b"".join(map(opus_frames.frame, packets))
    bare = fed(open_streaming_decoder(Kind.OPUS_PACKETS, 16_000), packets)
    assert np.array_equal(bare, fed(open_streaming_decoder(Kind.OPU, 16_000), pieces(framed, 1)))


def test_opus_that_is_framed_after_all() -> None:
    packets = opus_packets(sound(16_000), 16_000)
    first, rest = packets[:3], b"".join(map(opus_frames.frame, packets[3:]))
    messages = [b"".join(map(opus_frames.frame, first)), *pieces(rest, 7)]
    expected = fed(open_streaming_decoder(Kind.OPU, 16_000), messages)
    assert len(expected) == 960 * len(packets)
    assert np.array_equal(
        fed(open_streaming_decoder(Kind.OPUS_PACKETS, 16_000), messages), expected
    )


@pytest.mark.parametrize("bare", [True, False])
def test_checkpoint_says_how_packets_are_framed(bare: bool) -> None:
    packets = opus_packets(sound(16_000), 16_000)
    messages = packets if bare else [opus_frames.frame(packet) for packet in packets]
    first = open_streaming_decoder(Kind.OPUS_PACKETS, 16_000)
    before = joined(*[first.feed(message) for message in messages[:40]])
    checkpoint = first.checkpoint()
    assert checkpoint.position == sum(map(len, messages[:40]))
    second = open_streaming_decoder(Kind.OPUS_PACKETS, 16_000)
    second.resume(checkpoint.preamble)
    # Framed packets may go on in the middle of a message.
    rest = messages[40:] if bare else pieces(b"".join(messages[40:]), 5)
    after = fed(second, rest)
    assert len(before) + len(after) == 960 * len(packets)


def test_empty_packets_are_counted_and_never_decoded() -> None:
    packets = [opus_frames.frame(p) for p in opus_packets(sound(16_000), 16_000)]
    expected = fed(open_streaming_decoder(Kind.OPU, 16_000), packets)
    holes = [*packets[:20], bytes(10), *packets[20:]]
    assert np.array_equal(fed(open_streaming_decoder(Kind.OPU, 16_000), holes), expected)
    with pytest.raises(BadAudio, match="damaged"):
        fed(open_streaming_decoder(Kind.OPU, 16_000), [*packets[:20], bytes(40), *packets[20:]])


def test_nothing_fed_is_no_packet() -> None:
    decoder = open_streaming_decoder(Kind.OPUS_PACKETS, 16_000)
    assert not decoder.feed(b"").size
    assert decoder.checkpoint().position == 0


# All


@pytest.mark.parametrize("kind", sorted(STREAMING))
def test_nothing_at_all(kind: Kind) -> None:
    decoder = open_streaming_decoder(kind, 16_000)
    assert fed(decoder, []).size == 0
    assert fed(open_streaming_decoder(kind, 16_000), [b"", b""]).size == 0
    assert decoder.flush().size == 0


@pytest.mark.parametrize("kind", sorted(STREAMING - {Kind.OPUS_PACKETS}))
@pytest.mark.parametrize("stream", [b'{"error": "no audio"}', b"<html>" * 1_000, bytes(300_000)])
def test_what_is_no_audio(kind: Kind, stream: bytes) -> None:
    for step in (1_000, 1 << 20):
        with pytest.raises(BadAudio):
            fed(open_streaming_decoder(kind, 16_000), pieces(stream, step))


def test_bare_packets_that_are_none() -> None:
    """Nearly any bytes are one, so only their number and their lengths tell."""
    with pytest.raises(BadAudio):
        fed(open_streaming_decoder(Kind.OPUS_PACKETS, 16_000), [bytes(300_000)])
    with pytest.raises(BadAudio):
        fed(open_streaming_decoder(Kind.OPUS_PACKETS, 16_000), [b"\x03"] * 30)


@pytest.mark.parametrize("kind", [Kind.MP3, Kind.AAC])
def test_no_frame_for_too_long(kind: Kind) -> None:
    decoder = open_streaming_decoder(kind, 16_000)
    taken = 0
    with pytest.raises(BadAudio, match="format parameter"):
        while taken < 1 << 24:
            decoder.feed(bytes(1_000))
            taken += 1_000
    assert taken <= MAX_UNPARSED_BYTES


def test_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="flac"):
        open_streaming_decoder(Kind.FLAC, 16_000)
    with pytest.raises(UnsupportedSampleRate):
        open_streaming_decoder(Kind.MP3, 7_999)


def _padded(packet: bytes, size: int) -> bytes:
    """The same packet of one frame with padding (RFC 6716 section 3.2.5)."""
    assert packet[0] & 3 == 0
    padding = size - len(packet) - 2
    return bytes([packet[0] | 3, 0x41, padding]) + packet[1:] + bytes(padding)


def test_a_length_of_255_is_no_preamble() -> None:
    packets = [_padded(packet, 255) for packet in opus_packets(sound(16_000), 16_000)]
    stream = b"".join(map(opus_frames.frame, packets))
    whole = fed(open_streaming_decoder(Kind.OPU, 16_000), [stream])
    assert len(whole) == 960 * len(packets)
    cut = fed(open_streaming_decoder(Kind.OPU, 16_000), pieces(stream, 1))
    assert np.array_equal(cut, whole)
