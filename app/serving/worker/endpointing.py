"""Recognition with an engine that finds the sentences itself: audio in, its events out."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import cast

import numpy as np

from app.audio.pcm import Float32, Int16, to_float
from app.core import metrics
from app.core.logs import log_ids
from app.core.speech import RecognitionEvent, RecognitionOptions, SentenceEnded
from app.engines.base import EndpointingRecognizer, Feed
from app.serving.batcher import Batcher
from app.serving.worker.stepper import Stepper
from app.serving.worker.tasks import RecognitionSink, client_error
from app.serving.worker.writing import Writer, writer, written_event


class EndpointingStream:
    """One task: its waiting audio and the engine's stream."""

    def __init__(
        self,
        owner: EndpointingRecognition,
        handle: object,
        sink: RecognitionSink,
        log_id: str,
        write: Writer | None = None,
    ) -> None:
        self._owner = owner
        self.handle = handle
        self.sink = sink
        self.log_id = log_id
        self.write = write
        self._waiting: list[Int16] = []
        self.waiting_samples = 0
        self.ended = False
        self.closed = False

    def feed(self, samples: Int16) -> None:
        """More audio."""
        self._waiting.append(samples)
        self.waiting_samples += len(samples)
        self._owner.audio_came(self)

    def end(self) -> None:
        """No more audio."""
        self.ended = True
        self._owner.audio_came(self)

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence."""
        self._owner.engine.configure(self.handle, max_sentence_silence_ms)

    def tell_source_rate(self, source_rate: int) -> None:
        """Such an engine gets its options once, when the stream is opened."""

    def cancel(self) -> None:
        """Forget the stream; its sink is called no more."""
        if not self.closed:
            self.closed = True
            self._owner.gone(self)

    def take(self, samples: int) -> Float32:
        """Remove up to ``samples`` from the front of the waiting audio."""
        whole = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        taken, rest = whole[:samples], whole[samples:]
        self._waiting = [rest] if len(rest) else []
        self.waiting_samples -= len(taken)
        return to_float(taken)


class EndpointingRecognition:
    """All streams of one :class:`EndpointingRecognizer`."""

    def __init__(self, engine: EndpointingRecognizer, tick_s: float) -> None:
        self.engine = engine
        capabilities = engine.capabilities
        self._step_samples = capabilities.sample_rate * capabilities.step_ms // 1000
        self.stepper: Stepper[EndpointingStream] = Stepper(
            Batcher(capabilities.max_batch, tick_s), self._step, "recognise"
        )
        self._stepping: set[EndpointingStream] = set()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self.stepper.run()

    def work(self) -> dict[Hashable, int]:
        """What is outstanding (``app/serving/control.py``)."""
        return self.stepper.work()

    def open(
        self, options: RecognitionOptions, sink: RecognitionSink, log_id: str
    ) -> EndpointingStream:
        """Start a task. Raises what the engine's ``open`` raises."""
        with log_ids(task_id=log_id):
            handle = self.engine.open(options)
        write = writer(options, self.engine.capabilities)
        return EndpointingStream(self, handle, sink, log_id, write)

    def audio_came(self, stream: EndpointingStream) -> None:
        """``stream`` has more audio, or its end."""
        if stream.closed or stream in self._stepping:
            return
        if stream.ended or stream.waiting_samples >= self._step_samples:
            # A stream that is behind (a file, a burst) does not wait for the tick.
            behind = stream.waiting_samples >= 2 * self._step_samples
            self.stepper.ready(stream, urgent=stream.ended or behind)

    def gone(self, stream: EndpointingStream) -> None:
        """``stream`` was cancelled."""
        self.stepper.discard(stream)
        if stream not in self._stepping:
            self.engine.close(stream.handle)

    async def _step(self, streams: list[EndpointingStream]) -> None:
        feeds = []
        for stream in streams:
            samples = (
                stream.take(self._step_samples)
                if stream.waiting_samples
                else np.zeros(0, dtype=np.float32)
            )
            feeds.append(Feed(stream.handle, samples, stream.ended and not stream.waiting_samples))
        self._stepping.update(streams)
        try:
            writers = [stream.write for stream in streams]
            results = await self.stepper.in_thread(self._recognise, feeds, writers)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            results = [error] * len(streams)
        self._stepping.clear()
        answers = cast("Sequence[Sequence[RecognitionEvent] | Exception]", results)
        for stream, feed, answer in zip(streams, feeds, answers, strict=True):
            if isinstance(answer, Exception):
                self._fail(stream, answer)
            else:
                self._deliver(stream, feed, answer)

    def _recognise(
        self, feeds: list[Feed], writers: list[Writer | None]
    ) -> list[Sequence[RecognitionEvent] | Exception]:
        """In the engine's thread: a step, and its texts as they are written."""
        found = self.engine.step(feeds)
        return [
            each
            if write is None or isinstance(each, Exception)
            else [written_event(write, event) for event in each]
            for write, each in zip(writers, found, strict=True)
        ]

    def _deliver(
        self, stream: EndpointingStream, feed: Feed, events: Sequence[RecognitionEvent]
    ) -> None:
        if stream.closed:
            self.engine.close(stream.handle)
            return
        for event in events:
            if isinstance(event, SentenceEnded):
                metrics.SENTENCES.labels("engine").inc()
                metrics.SPEECH.inc((event.end_ms - event.start_ms) / 1000)
            stream.sink.recognized(event)
        if len(feed.samples):
            stream.sink.processed(len(feed.samples))
        if feed.last:
            stream.closed = True
            stream.sink.done()
        else:
            self.audio_came(stream)

    def _fail(self, stream: EndpointingStream, error: Exception) -> None:
        self.engine.close(stream.handle)
        if not stream.closed:
            stream.closed = True
            stream.sink.failed(client_error(error, "recognition step", stream.log_id))
