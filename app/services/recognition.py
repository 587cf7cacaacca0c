"""Recognition: a client's bytes in, sentences out.

    bytes ─► decode ─► 16 kHz (the engine's rate) ─► near-field gate ─► replica ─► wording ─► events

Knows neither NLS nor HTTP. What is done here per frame is a few microseconds of numpy on at most a
second of audio, so it may run on the event loop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec
import structlog

from app.audio.decode import check_sample_rate
from app.audio.gate import NearFieldGate
from app.audio.loudness import LoudnessMeter
from app.audio.pcm import Int16
from app.audio.resample import Resampler
from app.audio.sniff import Kind, hinted, what_is
from app.core import metrics
from app.core.errors import AudioTooLong, SpeechError
from app.core.speech import AudioProcessed, RecognitionEvent, RecognitionRequest
from app.core.usage import Account, Used, unrecorded
from app.services.replay import ReplayedRecognition
from app.services.sources import Source, open_source
from app.services.wording import wording
from app.serving.decoding.client import Decoding
from app.serving.leases import TaskLease, unlimited
from app.serving.pool import Pool

log = structlog.get_logger(__name__)

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of a client that are decoded at once (2 s at 16 kHz): a frame of a megabyte is taken in
pieces, with the event loop in between."""

_OPUS: Final = frozenset({Kind.OGG_OPUS, Kind.WEBM, Kind.OPU, Kind.OPUS_PACKETS})
"""Decoded at 48 kHz, whatever it was made from: here the client's word counts."""


class RecognitionTask:
    """A running task. One coroutine feeds it, another reads its events. It is the listener of its
    source (``sources.py``)."""

    def __init__(
        self,
        request: RecognitionRequest,
        handle: ReplayedRecognition,
        gate: NearFieldGate | None,
        open_source: Callable[[Kind, RecognitionTask], Source],
        *,
        log_gate: bool,
    ) -> None:
        self._log_gate = log_gate
        self._request = request
        self._wording = wording(request)
        self._handle = handle
        self._open_source = open_source
        self._source: Source | None = None
        self._kind: Kind | None = None
        self._head: list[bytes] = []  # messages, until they tell what they are
        self._resampler: Resampler | None = None
        self._gate = gate
        self._rate = request.sample_rate  # of the decoded samples
        self._decoded_s = 0.0
        self._uncounted_samples = 0
        self._counted_gate = (0, 0, 0)  # passed_ms, gated_ms, openings
        self._finished_at: float | None = None
        self.meter: LoudnessMeter | None = None
        """Fed with the audio as it is decoded."""

    # The client's bytes

    def takes(self, data: bytes) -> bool:
        """Whether :meth:`feed` may be called with ``data`` now: nobody is behind, and the piece is
        small enough for the event loop."""
        has_room = self.has_credit if self._source is None else self._source.has_room
        return len(data) <= _CHUNK_BYTES and has_room

    def feed(self, data: bytes) -> None:
        """More of the client's bytes, cut anywhere (but see ``opus_frames.py``); see :meth:`takes`.

        Raises:
            BadAudio: the bytes are not what the format promises, or (AudioTooLong) too many.
            UnsupportedSampleRate: a header in them tells of a rate that is not read. (What the
                decode process finds out is raised by :meth:`events`.)
        """
        if self._source is not None:
            self._source.feed(data)
            return
        self._head.append(data)
        kind = what_is(b"".join(self._head), self._request.format)
        if kind is not None:
            self._begin(kind)

    async def feed_all(self, data: bytes) -> None:
        """As :meth:`feed`, for any amount; waits while the worker is behind.

        Raises:
            BadAudio: as :meth:`feed`.
            SpeechError: the task has failed.
        """
        for start in range(0, len(data), _CHUNK_BYTES):
            if self._source is None:
                await self.wait_for_credit()
            else:
                await self._source.wait_for_room()
            self.feed(data[start : start + _CHUNK_BYTES])

    def finish(self) -> None:
        """No more bytes: the rest is recognised, however short. Raises as :meth:`feed`."""
        self._finished_at = time.monotonic()
        if self._source is None and self._head:
            self._begin(hinted(self._request.format))
        if self._source is None:
            self.ended()
        else:
            self._source.finish()

    def _begin(self, kind: Kind) -> None:
        """The first bytes have told what they are."""
        self._kind = kind
        self._source = self._open_source(kind, self)
        head, self._head = self._head, []
        for data in head:
            self._source.feed(data)

    # The samples: see Listener

    @property
    def has_credit(self) -> bool:
        """Whether the worker takes samples now."""
        return self._handle.has_credit

    async def wait_for_credit(self) -> None:
        """Wait until it does. Raises SpeechError when the task has failed."""
        await self._handle.wait_for_credit()

    def heard(self, samples: Int16, sample_rate: int) -> None:
        """Decoded samples, mono, at ``sample_rate`` (Hz)."""
        if sample_rate != self._rate:
            self._end_of_rate()
            self._rate = sample_rate
        if self._resampler is None:
            self._resampler = Resampler(sample_rate, self._handle.sample_rate)
            if self._kind not in _OPUS:
                self._handle.tell_source_rate(_source_rate(self._request, sample_rate))
        self._decoded_s += len(samples) / sample_rate
        if self.meter is not None:
            self.meter.feed(samples, sample_rate)
        limit_ms = self._request.max_audio_ms
        # A sample's time is no multiple of a millisecond: exactly the limit is not too long.
        if limit_ms is not None and self._decoded_s * 1000 > limit_ms + 0.01:
            raise AudioTooLong.lasting(limit_ms)
        self._uncounted_samples += len(samples)
        if self._uncounted_samples >= sample_rate:
            self._count()  # once a second: a counter costs more than the frame
        self._send(self._gated(self._resampler.feed(samples)))

    def ended(self) -> None:
        """There are no more samples."""
        self._end_of_rate()
        if self._gate is not None:
            self._send(self._gate.flush())
        self._handle.finish()

    def failed(self, error: SpeechError) -> None:
        """There are none that could be had: :meth:`events` raises ``error``."""
        self._handle.abort(error)

    def _end_of_rate(self) -> None:
        """Nothing more comes at this rate: what the resampler still holds is passed on."""
        if self._resampler is not None:
            self._send(self._gated(self._resampler.flush()))
            self._resampler = None
        self._count()

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence of the running task."""
        self._handle.configure(max_sentence_silence_ms)
        if self._gate is not None:
            self._gate.configure(max_sentence_silence_ms)

    @property
    def heard_as(self) -> dict[str, object]:
        """For the log: what the client's bytes were taken for, which its format name need not
        say, and the seconds of audio in them."""
        kind = "none" if self._kind is None else self._kind.value
        return {"audio": kind, "audio_s": round(self._decoded_s, 2)}

    @property
    def audio_ms(self) -> int:
        """Of the audio that was heard so far."""
        return round(self._decoded_s * 1000)

    @property
    def channels(self) -> int:
        """The most that the client's audio has at a time, whichever is heard; 0 until that is
        known, at the latest when the events have ended."""
        return 0 if self._source is None else self._source.channels

    def used(self, *, failed: bool) -> Used:
        """What the task has used until now."""
        return Used(kind="asr", audio_ms=round(self._decoded_s * 1000), failed=failed)

    async def events(self) -> AsyncIterator[RecognitionEvent | AudioProcessed]:
        """What was recognised; ends when everything is delivered. Raises SpeechError."""
        async for event in self._handle.events(progress=self._request.progress):
            if isinstance(event, int):
                yield AudioProcessed(event * 1000 // self._handle.sample_rate)
            else:
                yield event if self._wording is None else self._wording.worded(event)
        if self._finished_at is not None:
            metrics.FINAL.observe(time.monotonic() - self._finished_at)

    async def close(self) -> None:
        """The task is over, complete or not; the worker forgets it, and nothing runs on."""
        self._handle.cancel()
        self._count()
        if self._source is not None:
            await self._source.close()
        if self._log_gate and self._gate is not None and self._gate.gated_ms:
            log.info(
                "near-field gate",
                task_id=self._request.task_id,
                gated_ms=self._gate.gated_ms,
                passed_ms=self._gate.passed_ms,
            )

    def _count(self) -> None:
        metrics.AUDIO_IN.inc(self._uncounted_samples / self._rate)
        self._uncounted_samples = 0
        if self._gate is not None:
            gate, (passed_ms, gated_ms, openings) = self._gate, self._counted_gate
            self._counted_gate = (gate.passed_ms, gate.gated_ms, gate.openings)
            metrics.AUDIO_PASSED.inc((gate.passed_ms - passed_ms) / 1000)
            metrics.AUDIO_GATED.inc((gate.gated_ms - gated_ms) / 1000)
            metrics.GATE_OPENINGS.inc(gate.openings - openings)

    def _gated(self, samples: Int16) -> Int16:
        return samples if self._gate is None else self._gate.feed(samples)

    def _send(self, samples: Int16) -> None:
        second = self._handle.sample_rate
        for start in range(0, len(samples), second):
            self._handle.send(samples[start : start + second].tobytes())


class RecognitionService:
    """Opens tasks. ``gate_threshold`` is the near-field gate's RMS, None for no gate;
    ``log_gate``: log how much it took out of each task; ``max_file_bytes``: of audio that can be
    decoded only as a whole; ``lease``: each task runs under one; ``account``: is told what each has
    used, once, however it ended."""

    def __init__(
        self,
        pool: Pool,
        decoding: Decoding,
        gate_threshold: float | None,
        *,
        log_gate: bool,
        max_file_bytes: int,
        lease: TaskLease = unlimited,
        account: Account = unrecorded,
    ) -> None:
        self._account = account
        self._pool = pool
        self._decoding = decoding
        self._max_file_bytes = max_file_bytes
        self._lease = lease
        self._log_gate = log_gate
        self._gate_threshold = gate_threshold

    @asynccontextmanager
    async def open(
        self, request: RecognitionRequest, *, max_file_bytes: int | None = None
    ) -> AsyncIterator[RecognitionTask]:
        """A task that lives as long as the block; leaving it leaves nothing running.
        ``max_file_bytes`` replaces the service's own limit.

        Raises:
            UnsupportedFormat, UnsupportedSampleRate: see ``sniff.py``, ``decode.py``.
            NotOffered: this server has no recognition, or not the model that is asked for.
            Overloaded: no replica has room, or the appkey runs as many tasks as it may.
            EngineUnavailable: none is ready.
        """
        # Refuse before a slot is taken.
        hinted(request.format)
        check_sample_rate(request.sample_rate)
        async with self._lease(request.appkey):
            options = msgspec.structs.replace(
                request.options, source_rate=_source_rate(request, request.sample_rate)
            )
            handle = await self._pool.open_recognition(options, request.task_id)
            gate = self._new_gate(request)
            stream = ReplayedRecognition(self._pool, options, request.task_id, handle)
            source = partial(self._open_source, request, max_file_bytes or self._max_file_bytes)
            task = RecognitionTask(request, stream, gate, source, log_gate=self._log_gate)
            failed = False
            try:
                yield task
            except SpeechError:
                failed = True
                raise
            finally:
                self._account(request.appkey, task.used(failed=failed))
                await task.close()

    def _open_source(
        self, request: RecognitionRequest, max_file_bytes: int, kind: Kind, task: RecognitionTask
    ) -> Source:
        return open_source(kind, request, task, self._decoding, max_file_bytes)

    def _new_gate(self, request: RecognitionRequest) -> NearFieldGate | None:
        if self._gate_threshold is None or not request.near_field_gate:
            return None
        return NearFieldGate(self._gate_threshold, request.options.max_sentence_silence_ms)


def _source_rate(request: RecognitionRequest, sample_rate: int) -> int:
    """What the engine is told of the audio's rate (Hz): no more than the project allows."""
    return min(sample_rate, request.max_rate or sample_rate)
