"""Recognition: a client's bytes in, sentences out.

    bytes ─► decode ─► 16 kHz (the engine's rate) ─► near-field gate ─► replica ─► events

Knows neither NLS nor HTTP. What is done here per frame is a few microseconds of numpy on at most a
second of audio, so it may run on the event loop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from app.audio.decode import open_decoder
from app.audio.gate import NearFieldGate
from app.audio.pcm import Int16
from app.audio.resample import Resampler
from app.core import metrics
from app.core.errors import AudioTooLong
from app.core.speech import AudioProcessed, RecognitionEvent, RecognitionRequest
from app.services.replay import ReplayedRecognition
from app.serving.leases import TaskLease, unlimited
from app.serving.pool import Pool

log = structlog.get_logger(__name__)

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of a client that are decoded at once (2 s at 16 kHz): a frame of a megabyte is taken in
pieces, with the event loop in between."""


class RecognitionTask:
    """A running task. One coroutine feeds it, another reads its events."""

    def __init__(
        self,
        request: RecognitionRequest,
        handle: ReplayedRecognition,
        gate: NearFieldGate | None,
        *,
        log_gate: bool,
    ) -> None:
        self._log_gate = log_gate
        self._request = request
        self._handle = handle
        self._decoder = open_decoder(request.format, request.sample_rate)
        self._resampler: Resampler | None = None
        self._gate = gate
        self._decoded_samples = 0
        self._counted_samples = 0
        self._counted_gate = (0, 0, 0)  # passed_ms, gated_ms, openings
        self._finished_at: float | None = None

    def takes(self, data: bytes) -> bool:
        """Whether :meth:`feed` may be called with ``data`` now: the worker keeps up, and the piece
        is small enough for the event loop."""
        return len(data) <= _CHUNK_BYTES and self._handle.has_credit

    def feed(self, data: bytes) -> None:
        """More of the client's bytes, cut anywhere; see :meth:`takes`.

        Raises:
            BadAudio: the bytes are not what the format promises, or (AudioTooLong) too many.
        """
        self._send(self._prepared(self._decoder.feed(data)))

    async def feed_all(self, data: bytes) -> None:
        """As :meth:`feed`, for any amount; waits while the worker is behind.

        Raises:
            BadAudio: as :meth:`feed`.
            SpeechError: the task has failed.
        """
        for start in range(0, len(data), _CHUNK_BYTES):
            await self._handle.wait_for_credit()
            self.feed(data[start : start + _CHUNK_BYTES])

    def finish(self) -> None:
        """No more bytes: the rest is recognised, however short. Raises as :meth:`feed`."""
        self._send(self._prepared(self._decoder.flush()))
        if self._resampler is not None:
            self._send(self._gated(self._resampler.flush()))
        if self._gate is not None:
            self._send(self._gate.flush())
        self._handle.finish()
        self._count()
        self._finished_at = time.monotonic()

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence of the running task."""
        self._handle.configure(max_sentence_silence_ms)
        if self._gate is not None:
            self._gate.configure(max_sentence_silence_ms)

    async def events(self) -> AsyncIterator[RecognitionEvent | AudioProcessed]:
        """What was recognised; ends when everything is delivered. Raises SpeechError."""
        async for event in self._handle.events(progress=self._request.progress):
            if isinstance(event, int):
                yield AudioProcessed(event * 1000 // self._handle.sample_rate)
            else:
                yield event
        if self._finished_at is not None:
            metrics.FINAL.observe(time.monotonic() - self._finished_at)

    def close(self) -> None:
        """The task is over, complete or not; the worker forgets it."""
        self._handle.cancel()
        self._count()
        if self._log_gate and self._gate is not None and self._gate.gated_ms:
            log.info(
                "near-field gate",
                task_id=self._request.task_id,
                gated_ms=self._gate.gated_ms,
                passed_ms=self._gate.passed_ms,
            )

    def _prepared(self, samples: Int16) -> Int16:
        rate = self._decoder.sample_rate
        if rate is None or not len(samples):
            return samples
        self._decoded_samples += len(samples)
        limit = self._request.max_audio_ms
        if limit is not None and self._decoded_samples * 1000 > limit * rate:
            raise AudioTooLong(f"more than {limit / 1000:g} s of audio in one task")
        if self._decoded_samples - self._counted_samples >= rate:
            self._count()  # once a second: a counter costs more than the frame
        if self._resampler is None:
            self._resampler = Resampler(rate, self._handle.sample_rate)
        return self._gated(self._resampler.feed(samples))

    def _count(self) -> None:
        new, self._counted_samples = (
            self._decoded_samples - self._counted_samples,
            self._decoded_samples,
        )
        metrics.AUDIO_IN.inc(new / (self._decoder.sample_rate or self._request.sample_rate))
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
    ``log_gate``: log how much it took out of each task; ``lease``: each runs under one."""

    def __init__(
        self,
        pool: Pool,
        gate_threshold: float | None,
        *,
        log_gate: bool,
        lease: TaskLease = unlimited,
    ) -> None:
        self._pool = pool
        self._lease = lease
        self._log_gate = log_gate
        self._gate_threshold = gate_threshold

    @asynccontextmanager
    async def open(self, request: RecognitionRequest) -> AsyncIterator[RecognitionTask]:
        """A task that lives as long as the block; leaving it leaves nothing running.

        Raises:
            UnsupportedFormat, UnsupportedSampleRate: see ``app/audio/decode.py``.
            Overloaded: no replica has room, or the appkey runs as many tasks as it may.
            EngineUnavailable: none is ready.
        """
        open_decoder(request.format, request.sample_rate)  # refuse before a slot is taken
        async with self._lease(request.appkey):
            handle = await self._pool.open_recognition(request.options, request.task_id)
            gate = self._new_gate(request)
            stream = ReplayedRecognition(self._pool, request.options, request.task_id, handle)
            task = RecognitionTask(request, stream, gate, log_gate=self._log_gate)
            try:
                yield task
            finally:
                task.close()

    def _new_gate(self, request: RecognitionRequest) -> NearFieldGate | None:
        if self._gate_threshold is None or not request.near_field_gate:
            return None
        return NearFieldGate(self._gate_threshold, request.options.max_sentence_silence_ms)
