"""Test audio in every format that recognition reads and that an encoder is at hand for.

``encoded("mp3", samples, 16_000)`` is a whole stream or file. None is at hand for amr-wb and
speex; streams of these have to be put together by hand.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Final

import av
import numpy as np
from av import AudioResampler, CodecContext
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from app.audio.resample import Resampler

Int16 = NDArray[np.int16]

OPUS_RATES: Final = (8_000, 12_000, 16_000, 24_000, 48_000)


class _Sink:
    """A file that can only be appended to: what a network looks like to a muxer."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def _frames(samples: Int16, rate: int) -> Iterator[AudioFrame]:
    step = rate // 50
    layout = "mono" if samples.ndim == 1 else "stereo"
    for start in range(0, len(samples), step):
        packed = np.ascontiguousarray(samples[start : start + step]).reshape(1, -1)
        frame = AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = rate
        frame.pts = start
        frame.time_base = Fraction(1, rate)
        yield frame


def muxed(
    samples: Int16,
    rate: int,
    container: str,
    codec: str,
    *,
    seekable: bool = True,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    layout: str = "mono",
) -> bytes:
    """``samples`` by an encoder and a muxer of FFmpeg, named as FFmpeg names them. Mono ones go
    to each channel of ``layout``, to those of stereo at -3 dB; those of two channels have the
    shape (n, 2). Not ``seekable``: as it would go over a network."""
    sink: io.BytesIO | _Sink = io.BytesIO() if seekable else _Sink()
    with av.open(sink, "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=codec_options or {}, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        for frame in [*_frames(samples, rate), None]:
            output.mux(stream.encode(frame))
    return bytes(sink.data) if isinstance(sink, _Sink) else sink.getvalue()


def opus_packets(
    samples: Int16, rate: int, frame_ms: float = 20, layout: str = "mono"
) -> list[bytes]:
    """Bare Opus packets as devices make them: speech, variable bit rate, 27.8 kbit/s."""
    samples, rate = _at_opus_rate(samples, rate)
    encoder = CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate = rate
    encoder.format = "s16"
    encoder.layout = layout
    encoder.bit_rate = 27_800
    encoder.options = {"application": "voip", "frame_duration": f"{frame_ms:g}"}
    encoder.open()
    resampler = AudioResampler(
        format="s16", layout=layout, rate=rate, frame_size=encoder.frame_size
    )
    packets: list[bytes] = []
    for frame in [*_frames(samples, rate), None]:
        for part in resampler.resample(frame):
            packets += [bytes(packet) for packet in encoder.encode(part)]
    return packets + [bytes(packet) for packet in encoder.encode(None)]


def _at_opus_rate(samples: Int16, rate: int) -> tuple[Int16, int]:
    if rate in OPUS_RATES:
        return samples, rate
    resampler = Resampler(rate, 48_000)
    return np.concatenate([resampler.feed(samples), resampler.flush()]), 48_000


def _wav(codec: str) -> Callable[[Int16, int], bytes]:
    return lambda samples, rate: muxed(samples, rate, "wav", codec)


def _mp3(samples: Int16, rate: int) -> bytes:
    """Without a tag, as a streaming encoder makes it."""
    options = {"write_xing": "0", "id3v2_version": "0"}
    return muxed(samples, rate, "mp3", "libmp3lame", seekable=False, options=options)


def _mp3_tagged(samples: Int16, rate: int) -> bytes:
    """With ID3v2 in front and the LAME tag that tells the encoder's delay and padding."""
    return muxed(samples, rate, "mp3", "libmp3lame")


def _aac(samples: Int16, rate: int) -> bytes:
    options = {"aac_coder": "fast"}
    return muxed(samples, rate, "adts", "aac", seekable=False, codec_options=options)


def _m4a(samples: Int16, rate: int) -> bytes:
    return muxed(samples, rate, "ipod", "aac")


def _flac(samples: Int16, rate: int) -> bytes:
    return muxed(samples, rate, "flac", "flac")


def _ogg_flac(samples: Int16, rate: int) -> bytes:
    return muxed(samples, rate, "ogg", "flac")


def _ogg_opus(samples: Int16, rate: int) -> bytes:
    samples, rate = _at_opus_rate(samples, rate)
    options = {"page_duration": "20000"}
    return muxed(samples, rate, "ogg", "libopus", seekable=False, options=options)


def _webm_opus(samples: Int16, rate: int) -> bytes:
    """As a browser records it: sizes unknown, clusters of 100 ms."""
    samples, rate = _at_opus_rate(samples, rate)
    options = {"live": "1", "cluster_time_limit": "100"}
    return muxed(samples, rate, "webm", "libopus", seekable=False, options=options)


def _webm_file(samples: Int16, rate: int) -> bytes:
    """With sizes, an index and a known end."""
    samples, rate = _at_opus_rate(samples, rate)
    return muxed(samples, rate, "webm", "libopus")


def _amr(samples: Int16, rate: int) -> bytes:
    """AMR-NB: 8 kHz only."""
    return muxed(samples, rate, "amr", "libopencore_amrnb", seekable=False)


def _wma(samples: Int16, rate: int) -> bytes:
    return muxed(samples, rate, "asf", "wmav2", bit_rate=32_000)


def _opu(samples: Int16, rate: int) -> bytes:
    """Opus packets, each behind one byte with its length."""
    packets = opus_packets(samples, rate)
    return b"".join(bytes([len(packet)]) + packet for packet in packets)


_ENCODERS: Final[dict[str, Callable[[Int16, int], bytes]]] = {
    "pcm": lambda samples, rate: samples.astype("<i2").tobytes(),
    "wav-u8": _wav("pcm_u8"),
    "wav-s16": _wav("pcm_s16le"),
    "wav-s24": _wav("pcm_s24le"),
    "wav-s32": _wav("pcm_s32le"),
    "wav-f32": _wav("pcm_f32le"),
    "wav-f64": _wav("pcm_f64le"),
    "wav-mulaw": _wav("pcm_mulaw"),
    "wav-alaw": _wav("pcm_alaw"),
    "wav-adpcm-ms": _wav("adpcm_ms"),
    "wav-adpcm-ima": _wav("adpcm_ima_wav"),
    "mp3": _mp3,
    "mp3-lame": _mp3_tagged,
    "aac": _aac,
    "m4a": _m4a,
    "flac": _flac,
    "ogg-flac": _ogg_flac,
    "ogg-opus": _ogg_opus,
    "webm-opus": _webm_opus,
    "webm-opus-file": _webm_file,
    "amr": _amr,
    "wma": _wma,
    "opu": _opu,
}

FORMATS: Final = tuple(_ENCODERS)
"""The names that :func:`encoded` takes."""


def encoded(format: str, samples: Int16, sample_rate: int) -> bytes:
    """Mono ``samples`` at ``sample_rate`` (Hz) as a stream or file of the format: one of
    :data:`FORMATS`. Opus is resampled to 48 kHz where the rate is not one of its own."""
    return _ENCODERS[format](samples, sample_rate)
