"""Decoders for compressed audio that arrives in pieces: MP3, AAC, and Opus in Ogg, in WebM, in
NLS's frames or bare.

The samples do not depend on how the bytes were cut, with one exception: bare Opus packets have
nothing around them, so there one call of ``feed`` is one packet. PyAV is imported when the first
decoder needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.audio import ebml, mpeg_audio, ogg, opus_frames
from app.audio.channels import Channel
from app.audio.damage import Damage
from app.audio.decode import Checkpoint, StreamingDecoder, check_sample_rate
from app.audio.packets import Codec, PacketDecoder
from app.audio.pcm import EMPTY, Int16, joined
from app.audio.sniff import Kind
from app.core.errors import BadAudio, UnsupportedFormat

MAX_UNPARSED_BYTES: Final = 64 * 1024
"""Bytes of MP3 or AAC in which no frame is found. FFmpeg's parser keeps them all."""

_BLOCK_BYTES: Final = 32
"""What goes to the parser at once, counted from the beginning: where it finds frames in damaged
bytes depends on how they are cut. At 32 kbit/s this is 8 ms."""

_NS: Final = 1_000_000_000

_MPEG_PORTION_BYTES: Final = 2_048
_OPUS_PORTION_BYTES: Final = 512
"""Silence takes 2 or 3 bytes for 120 ms."""


class MpegStream:
    """MP3, or AAC with ADTS headers; an ID3v2 tag in front is passed over.

    What LAME's tag tells of an MP3 file's beginning and end is cut off. Without one nothing is
    known: then there are about 1,105 samples of an encoder's delay in front, and with AAC 1,024.
    """

    def __init__(self, codec: Codec, channel: Channel = None) -> None:
        self._damage = Damage()
        self._decoder = PacketDecoder(codec, self._damage, channel=channel)
        self._tags = mpeg_audio.TagSkipper()
        self._has_priming = codec == "mp3float"
        self._priming = _Cut(mpeg_audio.Priming(0, 0, 0))
        self._received = 0
        self._block = b""
        self._unparsed = 0
        self._ended = False

    @property
    def sample_rate(self) -> int | None:
        """See :class:`~app.audio.decode.Decoder`: of the first frame."""
        return self._decoder.sample_rate

    @property
    def channels(self) -> int:
        """See :class:`~app.audio.decode.Decoder`."""
        return self._decoder.channels

    def feed(self, data: bytes) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        self._received += len(data)
        return self._blocks(self._tags.feed(data))

    def flush(self) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        if self._ended or not self._received:
            return EMPTY
        self._ended = True
        out = [self._blocks(self._tags.flush()), self._parsed(self._block)]
        out += [self._decoded(packet) for packet in self._decoder.parse(b"")]
        if not self._damage.good and not self._tags.found:
            raise _no_audio()
        out.append(self._priming.apply(self._decoder.flush()))
        return joined(out)

    def portion(self, message: bytes) -> int:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        return _MPEG_PORTION_BYTES

    def resume(self, preamble: bytes) -> None:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        self.feed(preamble)

    def checkpoint(self) -> Checkpoint:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        kept = self._tags.pending + len(self._block) + self._unparsed
        return Checkpoint(self._received - kept, self._tags.preamble())

    def _blocks(self, data: bytes) -> Int16:
        data = self._block + data
        usable = len(data) - len(data) % _BLOCK_BYTES
        self._block = data[usable:]
        blocks = (data[start : start + _BLOCK_BYTES] for start in range(0, usable, _BLOCK_BYTES))
        return joined([self._parsed(block) for block in blocks])

    def _parsed(self, block: bytes) -> Int16:
        if not block:
            return EMPTY  # to the parser it would mean the end of the stream
        self._unparsed += len(block)
        out = []
        for packet in self._decoder.parse(block):
            self._unparsed -= len(packet)
            out.append(self._decoded(packet))
        if self._unparsed > MAX_UNPARSED_BYTES:
            raise _no_audio()
        return joined(out)

    def _decoded(self, packet: bytes) -> Int16:
        # Not only in front: files are played one behind the other as one stream.
        found = mpeg_audio.priming(packet) if self._has_priming else None
        if found is not None:
            self._priming = _Cut(found)
            return EMPTY
        return self._priming.apply(self._decoder.decode(packet))


class _Cut:
    """Cuts off what an encoder has added."""

    def __init__(self, priming: mpeg_audio.Priming) -> None:
        self._priming = priming
        self._position = 0

    def apply(self, samples: Int16) -> Int16:
        """The next samples, without those that are none of the audio's."""
        first = self._position
        self._position += samples.size
        if first >= self._priming.total:
            return samples
        start, end, total = (
            max(0, place - first)
            for place in (self._priming.start, self._priming.end, self._priming.total)
        )
        return joined([samples[start:end], samples[total:]])


class _Opus:
    """The packets of one Opus stream after the other, at 48 kHz."""

    def __init__(self, channel: Channel = None) -> None:
        self.damage = Damage()
        self.channels = 0
        self._channel = channel
        self._decoder: PacketDecoder | None = None
        self._head: bytes | None = None

    def begin(self, head: bytes) -> Int16:
        """A stream with this header begins: what the one before still had inside."""
        rest = self.flush()
        self._head = head
        return rest

    def decode(self, packet: bytes) -> Int16:
        """The samples of a packet; none if it is bad."""
        if opus_frames.packet_samples(packet) is None:
            self.damage.count_bad()
            return EMPTY
        if self._decoder is None:
            # Not before: a decoder takes 200 KB, and headers alone are cheap to send.
            self._decoder = PacketDecoder("libopus", self.damage, self._head, self._channel)
        samples = self._decoder.decode(packet)
        self.channels = max(self.channels, self._decoder.channels)
        return samples

    def flush(self) -> Int16:
        """The stream has ended: what is still inside."""
        decoder, self._decoder = self._decoder, None
        return EMPTY if decoder is None else decoder.flush()


class OggOpusStream:
    """Opus in Ogg (RFC 7845), also with its headers again in mid-stream, as NLS's clients send
    them at a soft restart.

    The decoder cuts off the pre-skip. Granule positions are believed only in the last page, and
    only to cut off padding: those of NLS's clients go on from the task before.
    """

    def __init__(self, channel: Channel = None) -> None:
        self._opus = _Opus(channel)
        self._pages = ogg.PageReader(self._opus.damage)
        self._serial = 0
        self._head: bytes | None = None
        self._begun = False
        self._granule = 0
        self._received = 0
        self._samples = 0  # returned
        self._resume_samples = 0  # of those, from before the checkpoint
        self.sample_rate: int | None = opus_frames.SAMPLE_RATE

    @property
    def channels(self) -> int:
        """See :class:`~app.audio.decode.Decoder`."""
        return self._opus.channels

    def feed(self, data: bytes) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        self._received += len(data)
        return joined([self._counted(page) for page in self._pages.feed(data)])

    def flush(self) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        if self._received and self._head is None:
            raise _no_audio()
        return self._opus.flush()

    def portion(self, message: bytes) -> int:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        return _OPUS_PORTION_BYTES

    def resume(self, preamble: bytes) -> None:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        self.feed(preamble)

    def checkpoint(self) -> Checkpoint:
        """See :class:`~app.audio.decode.StreamingDecoder`: a page."""
        if self._head is None:
            return Checkpoint(self._pages.position, b"", self._resume_samples)
        head = opus_frames.without_pre_skip(self._head)
        preamble = ogg.make_page(head, serial=self._serial, begin=True)
        return Checkpoint(self._pages.position, preamble, self._resume_samples)

    def _counted(self, page: ogg.Page) -> Int16:
        samples = self._page(page)
        self._samples += samples.size
        if page.resume_at is not None:
            self._resume_samples = self._samples
        return samples

    def _page(self, page: ogg.Page) -> Int16:
        out = []
        for packet in page.packets:
            if packet.startswith(opus_frames.HEAD_MAGIC):
                out.append(self._begin(page, packet))
        if self._head is None:
            if not page.begin:
                raise BadAudio("The audio is no Ogg stream with Opus.")
            return EMPTY
        if page.serial != self._serial:
            return joined(out)
        decoded = joined([self._opus.decode(packet) for packet in _audio(page.packets)])
        return joined([*out, self._trimmed(page, decoded)])

    def _begin(self, page: ogg.Page, head: bytes) -> Int16:
        if self._head is not None and page.serial != self._serial and not self._begun:
            return EMPTY  # a second track, beside the first
        self._head = opus_frames.checked_head(head)
        self._serial = page.serial
        self._begun = False
        self._granule = 0
        return self._opus.begin(self._head)

    def _trimmed(self, page: ogg.Page, decoded: Int16) -> Int16:
        """Without the padding at the end of the last page (RFC 7845 section 4.4)."""
        if page.end:
            # The decoder is up to 1 ms behind; the padding is at the very end.
            decoded = joined([decoded, self._opus.flush()])
        packets = _audio(page.packets)
        self._begun = self._begun or bool(packets)
        if page.granule == ogg.NO_GRANULE or not packets:
            return decoded
        total = sum(opus_frames.packet_samples(packet) or 0 for packet in packets)
        padding = total - (page.granule - self._granule)
        self._granule = page.granule
        return _without_end(decoded, padding) if page.end and padding <= total else decoded


def _audio(packets: list[bytes]) -> list[bytes]:
    """Without the headers."""
    return [
        p for p in packets if not p.startswith((opus_frames.HEAD_MAGIC, opus_frames.TAGS_MAGIC))
    ]


class WebmOpusStream:
    """Opus in WebM, as a browser's MediaRecorder makes it; one recording may follow another."""

    def __init__(self, channel: Channel = None) -> None:
        self._opus = _Opus(channel)
        self._reader = ebml.WebmReader()
        self._received = 0
        self._begun = False
        self.sample_rate: int | None = opus_frames.SAMPLE_RATE

    @property
    def channels(self) -> int:
        """See :class:`~app.audio.decode.Decoder`."""
        return self._opus.channels

    def feed(self, data: bytes) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        self._received += len(data)
        return joined([self._event(event) for event in self._reader.feed(data)])

    def flush(self) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        if self._received and not self._begun:
            raise _no_audio()
        return self._opus.flush()

    def portion(self, message: bytes) -> int:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        return _OPUS_PORTION_BYTES

    def resume(self, preamble: bytes) -> None:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        self.feed(preamble)

    def checkpoint(self) -> Checkpoint:
        """See :class:`~app.audio.decode.StreamingDecoder`: an element."""
        return Checkpoint(self._reader.position, self._reader.preamble())

    def _event(self, event: ebml.Head | ebml.Packet) -> Int16:
        if isinstance(event, ebml.Head):
            self._begun = True
            return self._opus.begin(event.codec_private)
        padding = round(event.discard_ns * opus_frames.SAMPLE_RATE / _NS)
        return _without_end(self._opus.decode(event.data), padding)


class OpusPacketStream:
    """Opus packets without a container: framed (``opu``), or bare, one per call of ``feed``.

    ``framed`` None: the first calls tell, see :func:`~app.audio.opus_frames.framing`. Only framed
    packets come out the same however the stream is cut.
    """

    _FRAMED, _BARE = b"framed", b"bare"
    """Preambles."""

    def __init__(self, framed: bool | None, channel: Channel = None) -> None:
        self._opus = _Opus(channel)
        self._reader = opus_frames.FrameReader()
        self._framed = framed
        self._held: list[bytes] = []  # messages, until it is told
        self._received = 0
        self._resumed = 0  # bytes of the preamble
        self.sample_rate: int | None = opus_frames.SAMPLE_RATE

    @property
    def channels(self) -> int:
        """See :class:`~app.audio.decode.Decoder`."""
        return self._opus.channels

    def feed(self, data: bytes) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        if not data:
            return EMPTY
        self._received += len(data)
        if self._framed is None:
            self._framed = opus_frames.framing([*self._held, data])
            if self._framed is None:
                self._held.append(data)
                return EMPTY
        messages, self._held = [*self._held, data], []
        return joined([self._decoded(message) for message in messages])

    def portion(self, message: bytes) -> int:
        """See :class:`~app.audio.decode.StreamingDecoder`; of bare packets, a message."""
        if self._framed is None:
            framed = opus_frames.framing([*self._held, message])
            # Framed for sure, so that the pieces are read as that, too.
            self._framed = True if framed else None
        return _OPUS_PORTION_BYTES if self._framed else max(len(message), 1)

    def resume(self, preamble: bytes) -> None:
        """See :class:`~app.audio.decode.StreamingDecoder`."""
        self._framed = preamble == self._FRAMED
        self._resumed = self._received = len(preamble)

    def flush(self) -> Int16:
        """See :class:`~app.audio.decode.Decoder`."""
        held, self._held = self._held, []
        out = [self._opus.decode(packet) for packet in held]
        if self._received and not self._resumed and not self._opus.damage.good:
            raise _no_audio()
        return joined([*out, self._opus.flush()])

    def checkpoint(self) -> Checkpoint:
        """See :class:`~app.audio.decode.StreamingDecoder`: a packet."""
        if not self._received or self._held:
            return Checkpoint(0, b"")
        if not self._framed:
            return Checkpoint(self._received, self._BARE)
        return Checkpoint(self._reader.position + self._resumed, self._FRAMED)

    def _decoded(self, message: bytes) -> Int16:
        packets = self._reader.feed(message) if self._framed else [message]
        return joined([self._opus.decode(packet) for packet in packets])


def _without_end(samples: Int16, padding: int) -> Int16:
    return samples[: max(0, samples.size - padding)] if padding > 0 else samples


def _no_audio() -> BadAudio:
    return BadAudio("There is no audio of the given format: check the format parameter.")


_STREAMS: Final[dict[Kind, Callable[[Channel], StreamingDecoder]]] = {
    Kind.MP3: lambda channel: MpegStream("mp3float", channel),
    Kind.AAC: lambda channel: MpegStream("aac", channel),
    Kind.OGG_OPUS: OggOpusStream,
    Kind.WEBM: WebmOpusStream,
    Kind.OPU: lambda channel: OpusPacketStream(framed=True, channel=channel),
    Kind.OPUS_PACKETS: lambda channel: OpusPacketStream(framed=None, channel=channel),
}


def open_streaming_decoder(
    kind: Kind, sample_rate: int, channel: Channel = None
) -> StreamingDecoder:
    """A decoder for a kind of :data:`~app.audio.sniff.STREAMING`.

    ``sample_rate``: what the client says; all of these streams tell their own. ``channel``: the
    one to hear; packets without a container are decoded to one.

    Raises:
        UnsupportedFormat: no such kind.
        UnsupportedSampleRate: outside 8000 to 192000 Hz.
    """
    stream = _STREAMS.get(kind)
    if stream is None:
        raise UnsupportedFormat(f"Audio of the format {kind} cannot be decoded as it arrives.")
    check_sample_rate(sample_rate)
    return stream(channel)
