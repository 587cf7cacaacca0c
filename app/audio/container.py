"""Whole files in a container: m4a, flac, amr, speex, wma and whatever else is not decoded as it
comes.

FFmpeg parses these bytes, and they are not trusted. The container is named to it, never guessed by
it (an SDP body would open sockets, a playlist other files), no protocol is allowed, the codec must
be one that belongs into the container, and it gets an object to read from, never a path. Only a
process that may crash, hang or be killed should call this; PyAV is imported when the first file is
decoded.
"""

from __future__ import annotations

import io
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from app.audio.budget import Budget, Clock, Spending, too_slow
from app.audio.channels import Channel
from app.audio.ffmpeg_frames import check_frame, frame_samples
from app.audio.ffmpeg_memory import bound_allocations
from app.audio.pcm import Int16
from app.audio.sniff import Kind
from app.core.errors import BadAudio, SpeechError, UnsupportedFormat

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

BLOCK_SAMPLES: Final = 16_384
"""Frames are joined to blocks of at least so many samples: some have 160, and a block costs its
consumer the same however short it is."""

MAX_PADDING: Final = 4096
"""Samples that an encoder may have added behind the end: two frames of HE-AAC."""

_READ_BYTES: Final = 4096
"""Of one read(): time is looked at in each."""

_MAX_STREAMS: Final = 8


@dataclass(frozen=True, slots=True)
class Container:
    """A container that is read: its name for clients, FFmpeg's name of its demuxer, and those of
    the decoders that may be used inside."""

    name: str
    demuxer: str
    codecs: frozenset[str]


def _container(name: str, demuxer: str, codecs: str) -> Container:
    return Container(name, demuxer, frozenset(codecs.split()))


_WAV: Final = _container(
    "wav",
    "wav",
    "pcm_u8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_mulaw pcm_alaw"
    " adpcm_ms adpcm_ima_wav gsm_ms mp3float",
)
_OGG: Final = _container("ogg", "ogg", "opus vorbis flac speex")
_MP4: Final = _container("m4a", "mov", "aac alac mp3float opus flac amrnb amrwb")

CONTAINERS: Final[dict[str, Container]] = {
    Kind.WAV: _WAV,
    Kind.WAV_FILE: _WAV,
    Kind.MP3: _container("mp3", "mp3", "mp3float"),
    Kind.AAC: _container("aac", "aac", "aac"),
    Kind.OGG_OPUS: _OGG,
    Kind.OGG: _OGG,
    Kind.SPEEX: _OGG,
    Kind.WEBM: _container("webm", "matroska", "opus vorbis pcm_f32le"),
    Kind.M4A: _MP4,
    Kind.FLAC: _container("flac", "flac", "flac"),
    Kind.AMR: _container("amr", "amr", "amrnb amrwb"),
    Kind.WMA: _container("wma", "asf", "wmav1 wmav2 wmapro wmavoice wmalossless"),
}
"""What :func:`decode_file` reads: everything but raw PCM and Opus packets without a container."""


@dataclass(frozen=True, slots=True)
class Block:
    """Decoded audio, shape (n,).

    ``sample_rate`` (Hz) is the file's own, and may change from one block to the next.
    ``channels``: the most that the file has had at a time so far.
    """

    samples: Int16
    sample_rate: int
    channels: int = 1


def decode_file(
    file: BinaryIO,
    kind: str,
    budget: Budget,
    *,
    channel: Channel = None,
    clock: Clock = time.monotonic,
) -> Generator[Block, None, None]:
    """Decode the first audio track of ``file``, which must be seekable and stays open.

    ``kind`` is a :class:`~app.audio.sniff.Kind` of :data:`CONTAINERS`; ``channel``: the
    one to hear. What the container tells of an encoder's padding is cut off
    at both ends. Blocking work: call it in a thread. Close the iterator if it is not used up.

    Raises:
        UnsupportedFormat: not such a kind.

    While iterating:
        UnsupportedFormat: a codec that is not read in such a file.
        BadAudio: not a file of that kind, no audio in it, damaged beyond the budget, or more work
            than the budget. The last is noticed at the next read or packet: what loops in FFmpeg
            without either has to be ended from outside.
        AudioTooLong: more bytes or more decoded audio than the budget.
        OSError: ``file`` itself cannot be read.
    """
    container = CONTAINERS.get(kind)
    if container is None:
        names = sorted({each.name for each in CONTAINERS.values()})
        raise UnsupportedFormat(f"Invalid format! Accepted: {', '.join(names)}.")
    return _File(file, container, Spending(budget, clock), channel).blocks()


class _File:
    """One file on its way to blocks."""

    def __init__(
        self, file: BinaryIO, container: Container, spending: Spending, channel: Channel
    ) -> None:
        self._source = _Source(file, spending)
        self._file = file
        self._container = container
        self._spending = spending
        self._channel = channel
        self._channels = 0

    def blocks(self) -> Generator[Block, None, None]:
        """Everything in the file."""
        self._spending.resume()
        self._spending.check_size(self._file.seek(0, io.SEEK_END))
        self._file.seek(0)
        bound_allocations()
        with self._errors_translated(), self._opened() as opened:
            stream = self._audio_stream(opened)
            joiner = _Joiner(_stated_end(stream) if self._container is _MP4 else None)
            for frame in self._frames(opened, stream):
                samples = self._samples(frame)
                for block in joiner.add(samples, frame.sample_rate):
                    yield from self._given(block)
            if joiner.empty:
                raise self._no_audio()
            for block in joiner.finish():
                yield from self._given(block)

    def _given(self, block: Block) -> Iterator[Block]:
        """The block, while the consumer's time is not ours."""
        self._spending.pause()
        yield replace(block, channels=self._channels)
        self._spending.resume()

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """All errors as the few that this module promises.

        Damaged files make PyAV raise nearly everything: its own errors, UnicodeDecodeError,
        AttributeError. Their texts may quote the file, so they are not passed on.
        """
        try:
            yield
        except SpeechError:
            raise
        except Exception:
            if self._source.failure is not None:
                raise self._source.failure from None
            name = self._container.name
            raise BadAudio(
                f"The audio cannot be decoded as {name}: check the file and its format."
            ) from None

    def _no_audio(self) -> BadAudio:
        name = self._container.name
        return BadAudio(f"There is no audio in the {name} file: check the file and its format.")

    def _opened(self) -> InputContainer:
        import av

        demuxer = self._container.demuxer
        return av.open(
            self._source,
            "r",
            format=demuxer,
            metadata_errors="replace",
            buffer_size=_READ_BYTES,
            options={
                "protocol_whitelist": "none",
                "format_whitelist": demuxer,
                # Binds only the decoders that look at the first packets of each track while the
                # file is opened: no video decoder gets to see any.
                "codec_whitelist": ",".join(sorted(self._container.codecs)),
                "max_streams": str(_MAX_STREAMS),
            },
        )

    def _audio_stream(self, opened: InputContainer) -> AudioStream:
        from av.stream import Discard

        if not opened.streams.audio:
            raise self._no_audio()
        stream = opened.streams.audio[0]
        codec: AudioCodecContext | None = stream.codec_context
        # None where FFmpeg does not know the codec at all.
        if codec is None or codec.name not in self._container.codecs:
            name = self._container.name
            raise UnsupportedFormat(f"Unsupported codec inside {name}: convert it to wav or mp3.")
        codec.thread_count = 1
        for other in opened.streams:
            if other.index != stream.index:
                other.discard = Discard.all  # a film's pictures need not even be read
        return stream

    def _frames(self, opened: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        for packet in opened.demux(stream):
            self._source.check()
            # Nothing at all is end of stream to a decoder; PyAV puts such a packet behind the
            # last, and a file may contain one anywhere.
            if packet.size:
                yield from self._decoded(stream, packet)
        self._source.check()
        yield from self._decoded(stream, None)

    def _decoded(self, stream: AudioStream, packet: Packet[AudioStream] | None) -> list[AudioFrame]:
        from av.error import FFmpegError

        try:
            frames = stream.codec_context.decode(packet)
        except FFmpegError:
            self._spending.damage.count_bad()
            return []
        if frames:
            self._spending.damage.count_good()
        return frames

    def _samples(self, frame: AudioFrame) -> Int16:
        check_frame(frame)
        self._spending.count_audio(frame.samples, frame.sample_rate)
        self._channels = max(self._channels, frame.layout.nb_channels)
        return frame_samples(frame, self._channel)


class _Source:
    """What FFmpeg reads from: ``file`` without its name and without its descriptor."""

    def __init__(self, file: BinaryIO, spending: Spending) -> None:
        self._file = file
        self._spending = spending
        self.failure: Exception | None = None

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end.

        An exception is the only way to stop FFmpeg, which goes on working after an end of file.
        Raised once: PyAV keeps it until FFmpeg returns, and prints those that it has no place for.
        """
        if self.failure is not None:
            return b""
        try:
            if self._spending.expired:
                raise too_slow()
            return self._file.read(size)
        except (SpeechError, OSError) as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Never raises: what a damaged file asks for may not exist, and PyAV would drop and print
        the exception."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def tell(self) -> int:
        """Where the next read begins."""
        return self._file.tell()

    def check(self) -> None:
        """Raises what ended the reading, or BadAudio when the time is used up: FFmpeg may
        take it for the end of the file."""
        if self.failure is not None:
            raise self.failure
        self._spending.check_time()


class _Joiner:
    """Joins frames to blocks, and cuts off what lies behind ``end`` (seconds), where one is known.

    The last samples are held back until it is clear whether they are the last. A file with more
    than :data:`MAX_PADDING` samples behind its stated end has stated a wrong one.
    """

    def __init__(self, end: Fraction | None) -> None:
        self._end = end
        self._parts: list[Int16] = []
        self._size = 0
        self._rate = 0
        self._given = 0
        self.empty = True

    def add(self, samples: Int16, rate: int) -> Iterator[Block]:
        """Take in a frame at ``rate``, and give what is complete by now."""
        if self._parts and rate != self._rate:
            self._end = None
            yield from self.finish()
        self._rate = rate
        self._parts.append(samples)
        self._size += samples.size
        self.empty = self.empty and not self._size
        if self._size >= BLOCK_SAMPLES + MAX_PADDING:
            joined = np.concatenate(self._parts)
            yield self._block(joined[:-MAX_PADDING])
            self._parts, self._size = [joined[-MAX_PADDING:].copy()], MAX_PADDING

    def finish(self) -> Iterator[Block]:
        """The audio has ended: the rest."""
        if not self._size:
            return
        rest = np.concatenate(self._parts)
        if self._end is not None:
            excess = self._given + self._size - round(self._end * self._rate)
            if 0 < excess <= MAX_PADDING:
                rest = rest[: max(0, self._size - excess)]
        self._parts, self._size = [], 0
        if rest.size:
            yield self._block(rest)

    def _block(self, samples: Int16) -> Block:
        self._given += samples.size
        return Block(samples, self._rate)


def _stated_end(stream: AudioStream) -> Fraction | None:
    """The duration in an MP4's track header, in seconds: AAC comes in frames of 1,024 samples, and
    the last one is cut there."""
    if stream.duration is None or stream.time_base is None:
        return None
    return stream.duration * stream.time_base
