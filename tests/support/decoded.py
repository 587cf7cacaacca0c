"""What synthesis sends, as samples again: by PyAV, which is not what made the containers."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Final

import av
import numpy as np
from av import CodecContext, Packet
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

Int16 = NDArray[np.int16]

CONTAINERS: Final = {
    "wav": "wav",
    "mp3": "mp3",
    "opus": "ogg",
    "ogg": "ogg",
    "aac": "aac",
    "flac": "flac",
}
"""FFmpeg's names for the formats that have one."""


def decoded(format: str, data: bytes, sample_rate: int) -> tuple[Int16, int]:
    """A whole stream or file as mono samples, and their rate (Hz): that of ``pcm`` is given, that
    of Opus is always 48,000."""
    if format == "pcm":
        return np.frombuffer(data, "<i2"), sample_rate
    if format == "opu":
        return _joined(_opu_frames(data)), 48_000
    with av.open(io.BytesIO(data), "r", format=CONTAINERS[format]) as container:
        (stream,) = container.streams.audio
        return _joined(container.decode(stream)), stream.rate


def opu_packets(data: bytes) -> list[bytes]:
    """The packets of a stream that consists of nothing but length and packet."""
    packets = []
    while data:
        end = 1 + data[0]
        assert 1 < end <= len(data)
        packets.append(data[1:end])
        data = data[end:]
    return packets


def _opu_frames(data: bytes) -> Iterator[AudioFrame]:
    decoder = CodecContext.create("opus", "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.sample_rate = 48_000
    decoder.layout = "mono"
    for packet in opu_packets(data):
        yield from decoder.decode(Packet(packet))


def _joined(frames: Iterable[AudioFrame]) -> Int16:
    parts = []
    for frame in frames:
        values = frame.to_ndarray().reshape(-1)
        if values.dtype.kind == "f":
            values = np.clip(np.rint(values * 32768), -32768, 32767)
        parts.append(values.astype(np.int16))
    return np.concatenate(parts)
