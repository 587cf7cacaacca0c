"""From the bytes of a client to samples, as they arrive: raw PCM and WAV, and the interface that
every other stream's decoder has too.

A decoder keeps what a frame left incomplete (half a sample, part of a header), so the result is
the same however the client cut its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from app.audio import wav
from app.audio.channels import Channel, heard
from app.audio.pcm import EMPTY, Int16
from app.audio.wav_samples import READABLE, S16, SampleFormat
from app.core.errors import BadAudio, UnsupportedFormat, UnsupportedSampleRate
from app.core.speech import format_name

MIN_SAMPLE_RATE: Final = 8_000
MAX_SAMPLE_RATE: Final = 192_000
MAX_CHANNELS: Final = 64

_SEND_PCM: Final = (
    "send 16-bit PCM (8, 24 and 32 bits, float, mu-law and A-law are understood too)."
)


class Decoder(Protocol):
    """One stream of encoded audio. Not for use by two threads at once."""

    @property
    def sample_rate(self) -> int | None:
        """Of the samples that ``feed`` returns; None until the stream has told."""
        ...

    @property
    def channels(self) -> int:
        """The most that the stream has had at a time so far; 0 until it has told."""
        ...

    def feed(self, data: bytes) -> Int16:
        """Take in the next bytes, and return what they complete: mono, shape (n,), maybe empty.

        Raises:
            BadAudio: the bytes are not what the format promises.
            UnsupportedSampleRate: the stream's own rate cannot be converted.
        """
        ...

    def flush(self) -> Int16:
        """The stream has ended: what is still inside. Half a sample is dropped.

        Raises:
            BadAudio: the stream was not what its format promises.
        """
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where another decoder of the same kind can go on, if this one is lost.

    ``position``: of all bytes fed so far, how many are done with; the other decoder needs those
    from there on. ``preamble``: what the other decoder must be given before by
    :meth:`StreamingDecoder.resume`, unless it is empty; at most 64 KiB. It counts in that decoder's
    own positions. ``samples``: of all returned so far, how many are from before it; None for all.
    """

    position: int
    preamble: bytes
    samples: int | None = None


class StreamingDecoder(Decoder, Protocol):
    """A decoder in another process, which can die under it."""

    def portion(self, message: bytes) -> int:
        """How many bytes of a client's message :meth:`feed` should be given at once, so that what
        it returns is no more than some megabytes."""
        ...

    def resume(self, preamble: bytes) -> None:
        """Before the first :meth:`feed`: go on from a checkpoint, whose preamble this is.

        Raises:
            BadAudio: it is not one.
        """
        ...

    def checkpoint(self) -> Checkpoint:
        """The newest place to go on from. All samples that ``feed`` has returned so far are from
        before it; at worst the packet behind it comes out differently."""
        ...


class PcmDecoder:
    """Raw little-endian samples, interleaved where there are several channels: 16-bit, or as
    ``sample_format`` says. ``channel``: the one to hear."""

    def __init__(
        self,
        sample_rate: int,
        channels: int = 1,
        sample_format: SampleFormat = S16,
        channel: Channel = None,
    ) -> None:
        self.sample_rate: int | None = sample_rate
        self.channels = channels
        self._channel = channel
        self._format = sample_format
        self._rest = b""

    def feed(self, data: bytes) -> Int16:
        """See :class:`Decoder`."""
        if self._rest:
            data = self._rest + data
        usable = len(data) - len(data) % (self._format.size * self.channels)
        self._rest = data[usable:]
        if not usable:
            return EMPTY
        samples = self._format.read(data[:usable])
        if self.channels == 1 and not self._channel:
            return samples
        return heard(samples.reshape(-1, self.channels), self._channel)

    def flush(self) -> Int16:
        """See :class:`Decoder`."""
        self._rest = b""
        return EMPTY


class WavDecoder:
    """A RIFF/WAVE stream: PCM of 8 to 32 bits, float, mu-law, A-law.

    Bytes without the RIFF magic are raw mono PCM at the requested rate: there are clients that
    label those as wav (nls-protocol.md 6.1). The rate in a header overrules the requested one.
    Chunks after the samples are ignored. ``channel``: the one to hear.
    """

    def __init__(self, requested_rate: int, channel: Channel = None) -> None:
        self.sample_rate: int | None = None
        self.channels = 0
        self._requested_rate = requested_rate
        self._channel = channel
        self._header = wav.HeaderReader()
        self._pcm: PcmDecoder | None = None
        self._left: int | None = None

    def feed(self, data: bytes) -> Int16:
        """See :class:`Decoder`."""
        if self._pcm is not None:
            return self._samples(self._pcm, data)
        header = self._header.feed(data)
        if self._header.riff is False:
            return self._begin(self._raw(), 0)
        if header is None:
            return EMPTY
        sample_format = _checked(header)
        self._left = header.data_bytes
        pcm = PcmDecoder(header.sample_rate, header.channels, sample_format, self._channel)
        return self._begin(pcm, header.size)

    def flush(self) -> Int16:
        """See :class:`Decoder`.

        Raises:
            BadAudio: the stream ended inside its header.
        """
        if self._pcm is not None or not self._header.received:
            return EMPTY
        if self._header.riff:
            raise BadAudio("Invalid wav header! The audio ends inside the header: send all of it.")
        return self._begin(self._raw(), 0)

    def _raw(self) -> PcmDecoder:
        return PcmDecoder(self._requested_rate, channel=self._channel)

    def _begin(self, pcm: PcmDecoder, skip: int) -> Int16:
        """The header is over: decode what came after its ``skip`` bytes."""
        rest = self._header.received[skip:]
        self._header = wav.HeaderReader()
        self._pcm = pcm
        self.sample_rate = pcm.sample_rate
        self.channels = pcm.channels
        return self._samples(pcm, rest)

    def _samples(self, pcm: PcmDecoder, data: bytes) -> Int16:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return pcm.feed(data)


def _checked(header: wav.WavHeader) -> SampleFormat:
    sample_format = READABLE.get((header.codec, header.bits))
    if sample_format is None:
        raise BadAudio(f"This codec or bit depth in wav is not supported: {_SEND_PCM}")
    if not 1 <= header.channels <= MAX_CHANNELS:
        raise BadAudio(f"Invalid wav header! Channels must be 1 to {MAX_CHANNELS}.")
    check_sample_rate(header.sample_rate)
    return sample_format


def check_sample_rate(sample_rate: int) -> None:
    """Refuse what the resampler is not meant for.

    Raises:
        UnsupportedSampleRate: outside 8000 to 192000 Hz.
    """
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise UnsupportedSampleRate(wrong_rate(sample_rate))


def wrong_rate(sample_rate: int) -> str:
    """What to tell a client about a rate that no audio has."""
    return (
        f"Invalid sample rate {sample_rate}! Accepted: {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz."
    )


_DECODERS: Final[dict[str, Callable[[int, Channel], Decoder]]] = {
    "pcm": lambda sample_rate, channel: PcmDecoder(sample_rate, channel=channel),
    "wav": WavDecoder,
}

DECODABLE: Final = tuple(_DECODERS)
"""The format names that :func:`open_decoder` takes."""


def open_decoder(format: str, sample_rate: int, channel: Channel = None) -> Decoder:
    """A decoder for a client's format name: any letter case, with or without a leading dot.

    ``sample_rate`` is what the client says; a header overrules it. ``channel``: the one to hear;
    raw PCM has only one.

    Raises:
        UnsupportedFormat: not one of :data:`DECODABLE`.
        UnsupportedSampleRate: outside 8000 to 192000 Hz.
    """
    decoder = _DECODERS.get(format_name(format))
    if decoder is None:
        raise UnsupportedFormat(f"Invalid format! Accepted: {', '.join(DECODABLE)}.")
    check_sample_rate(sample_rate)
    return decoder(sample_rate, channel)
