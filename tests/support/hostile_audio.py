"""Audio that means harm, or that is only broken: as (format name, bytes)."""

from __future__ import annotations

import functools
import io
import random
import struct
from typing import Final

import av
import numpy as np

from app.audio.sniff import Kind
from tests.support import fuzz_container
from tests.support.encoded import encoded, opus_packets
from tests.support.sound import joined, silence, tone

MB: Final = 1_000_000

_NAMES: Final = {
    Kind.WAV_FILE: "wav",
    Kind.OGG_OPUS: "opus",
}
"""What clients call the kinds whose names are only ours."""

Sample = tuple[str, bytes]


def name_of(kind: Kind) -> str:
    """The format name of a client for audio of this kind."""
    return _NAMES.get(kind, kind.value)


@functools.cache
def healthy() -> tuple[Sample, ...]:
    """A second in every format, of files and of streams."""
    sound = joined(silence(200), tone(600), silence(200))
    files = [(name_of(kind), data) for kind, data in fuzz_container.healthy()]
    streams = [
        ("pcm", encoded("pcm", sound, 16_000)),
        ("opu", encoded("opu", sound, 16_000)),
        ("opus", opus_packets(sound, 16_000)[0]),
    ]
    return (*files, *streams)


def mutation(number: int) -> Sample:
    """A damaged stream or file; the same number is always the same damage."""
    if number % 20 == 19:
        return "opu", _damaged_opu(random.Random(number))
    kind, data = fuzz_container.mutation(number)
    return name_of(kind), data


def _damaged_opu(chance: random.Random) -> bytes:
    data = bytearray(dict(healthy())["opu"])
    for _ in range(chance.randint(1, 30)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randrange(1, len(data))])


def truncated() -> list[Sample]:
    """Every format, ended early: in its header, and later."""
    return [
        (name, data[: len(data) * sixteenths // 16])
        for name, data in healthy()
        for sixteenths in (1, 5, 11)
    ]


@functools.cache
def ten_hours() -> bytes:
    """FLAC: 36,000 s of silence in less than 7 MB."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=16_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        minute = np.zeros((1, 960_000), np.int16)
        for i in range(600):
            frame = av.AudioFrame.from_ndarray(minute, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 960_000 * i
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return sink.getvalue()


def lying() -> list[Sample]:
    """Headers that promise what nothing can hold, and bodies of rubbish behind a good magic."""
    rubbish = np.random.default_rng(0).bytes(2 * MB)
    return [
        ("flac", _flac_head(655_350, 8, 32, 2**36 - 1) + rubbish),
        ("flac", _flac_head(0, 1, 16, 0) + rubbish),
        ("wav", _wav_head(1, 65_535, 16_000, 16) + rubbish),
        ("wav", _wav_head(1, 1, 4_000_000_000, 16) + rubbish),
        ("wav", _wav_head(1, 0, 16_000, 16) + rubbish),
        ("wav", b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f" + rubbish),
        ("wav", b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\x7f" + rubbish),
        ("mp3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + rubbish),
        ("mp3", b"\xff\xfb" * MB),
        ("mp3", bytes(2 * MB)),
        ("aac", b"\xff\xf1" * MB),
        ("amr", b"#!AMR\n" + rubbish),
        ("amr", b"#!AMR\n" + b"\x7c" * MB),
        ("amr-wb", b"#!AMR-WB\n" + rubbish),
        ("ogg", b"OggS" + bytes(2 * MB)),
        ("opus", rubbish),
        ("opu", bytes(2 * MB)),
        ("flac", b"fLaC" + bytes(2 * MB)),
        ("webm", b"\x1a\x45\xdf\xa3" + bytes(2 * MB)),
        ("webm", b"\x1a\x45\xdf\xa3" + rubbish),
        ("wma", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + rubbish),
        ("m4a", b"\0\0\0\x18ftypM4A \0\0\0\0" + bytes(8) + rubbish),
    ]


def _flac_head(rate: int, channels: int, bits: int, total: int) -> bytes:
    info = struct.pack(">HH", 4096, 65535) + bytes(6)
    info += (rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | total).to_bytes(8, "big")
    return b"fLaC\x00\x00\x00\x22" + info + bytes(16)


def _wav_head(codec: int, channels: int, rate: int, bits: int) -> bytes:
    align = channels * bits // 8 % 65_536
    chunk = struct.pack("<HHIIHH", codec, channels, rate, rate * align % 2**32, align, bits)
    riff = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", len(chunk)) + chunk
    return riff + b"data\xff\xff\xff\xff"


def luring(url: str) -> list[bytes]:
    """Bodies that make a library fetch ``url``, if it is let to."""
    host = url.split("/")[2]
    port = int(host.split(":")[1])
    return [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{url}\n#EXT-X-ENDLIST\n".encode(),
        f"ffconcat version 1.0\nfile '{url}'\n".encode(),
        (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0\r\na=control:rtsp://{host}/a\r\n"
        ).encode(),
        (
            "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'>"
            "<Period><AdaptationSet mimeType='audio/mp4'><Representation id='1'>"
            f"<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>"
        ).encode(),
        url.encode(),
    ]
