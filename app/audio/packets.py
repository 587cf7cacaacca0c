"""The codecs of streams: packets in, samples out. The only place that hands a client's bytes to
FFmpeg's decoders packet by packet.

Packets are pushed in, because a container reader that pulls would need a thread per stream, and
loses frames depending on how the bytes were cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from app.audio import opus_frames
from app.audio.channels import Channel
from app.audio.damage import Damage
from app.audio.ffmpeg_frames import check_frame, frame_samples
from app.audio.pcm import EMPTY, Int16, joined
from app.audio.resample import Resampler

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.packet import Packet
    from av.stream import Stream

Codec = Literal["mp3float", "aac", "libopus"]
"""FFmpeg's names. Its own Opus decoder gives other samples for the same damaged packets each time,
so it reads memory that it has not written; libopus does not, and is twice as fast (measured)."""


class PacketDecoder:
    """One stream of packets of one codec, to mono.

    ``head``: the codec's header, if the stream has one. ``channel``: the one to hear. Bad packets
    are left out and counted in ``damage``. The samples have the rate of the first frame; if the
    stream changes its rate, the rest is resampled to that. Blocking work. Not for use by two
    threads at once.
    """

    def __init__(
        self,
        codec: Codec,
        damage: Damage,
        head: bytes | None = None,
        channel: Channel = None,
    ) -> None:
        from av import CodecContext
        from av.audio.codeccontext import AudioCodecContext

        context = CodecContext.create(codec, "r")
        assert isinstance(context, AudioCodecContext)
        self._context = context
        self._context.thread_count = 1
        if codec == "libopus":
            self._context.sample_rate = opus_frames.SAMPLE_RATE
            if head is None:
                # Decodes packets of two channels to one as well.
                self._context.layout = "mono"
        if head is not None:
            self._context.extradata = head
        self._damage = damage
        self._channel = channel
        self._resampler: Resampler | None = None
        self.sample_rate: int | None = None
        """Of all samples (Hz); None before the first."""
        self.channels = 0
        """The most that a frame had so far."""

    def parse(self, data: bytes) -> list[bytes]:
        """Cut a stream without container into packets; no bytes at all ask for the last one.

        All bytes come out again in some packet, rubbish before a packet as a part of it.
        """
        return [bytes(packet) for packet in self._context.parse(data)]

    def decode(self, packet: bytes) -> Int16:
        """The samples of a packet, shape (n,); none if it is bad.

        Raises:
            BadAudio: a bad packet too many, or frames with a rate or channels that no audio has.
        """
        from av.packet import Packet

        if not packet:
            # To FFmpeg it would mean the end of the stream.
            self._damage.count_bad()
            return EMPTY
        return self._decoded(Packet(packet))

    def flush(self) -> Int16:
        """The stream has ended: what is still inside. The object is used up."""
        tail = self._decoded(None)
        if self._resampler is None:
            return tail
        return joined([tail, self._resampler.flush()])

    def _decoded(self, packet: Packet[Stream] | None) -> Int16:
        frames: list[AudioFrame] | None
        try:
            frames = self._context.decode(packet)
        except Exception:
            # Damaged packets were seen to raise twelve classes, some of which have nothing in
            # common (ValueError, OSError, NotImplementedError, ...), and their texts are of no
            # use to a client.
            frames = None
        if frames is None:
            self._damage.count_bad()
            return EMPTY
        if frames and packet is not None:
            self._damage.count_good()
        return joined([self._samples(frame) for frame in frames])

    def _samples(self, frame: AudioFrame) -> Int16:
        check_frame(frame)
        self.channels = max(self.channels, frame.layout.nb_channels)
        samples = frame_samples(frame, self._channel)
        rate = frame.sample_rate
        if self._resampler is None or self._resampler.in_rate != rate:
            rest = EMPTY if self._resampler is None else self._resampler.flush()
            self.sample_rate = self.sample_rate or rate
            self._resampler = Resampler(rate, self.sample_rate)
            return joined([rest, self._resampler.feed(samples)])
        return self._resampler.feed(samples)
