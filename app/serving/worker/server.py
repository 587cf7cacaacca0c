"""The worker's socket: one connection per API process, and the tasks that each of them owns."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol, cast

import msgspec
import numpy as np
import structlog

from app.core import metrics
from app.core.errors import (
    EngineFailed,
    EngineUnavailable,
    SpeechError,
    StreamsFull,
)
from app.core.speech import Mark, RecognitionEvent, RecognitionOptions
from app.engines.base import (
    EndpointingRecognizer,
    Progress,
    Recognizer,
    RecognizerCapabilities,
    RecognizerParts,
    SentenceRecognizer,
    Synthesizer,
    VoiceDetector,
)
from app.serving.link import Link
from app.serving.protocol import (
    PROTOCOL_VERSION,
    Audio,
    Cancel,
    Configure,
    Credit,
    Done,
    EndOfAudio,
    Failed,
    Granted,
    Hello,
    Leaving,
    Load,
    OpenRecognition,
    OpenSynthesis,
    Processed,
    Recognized,
    Refused,
    SourceRate,
    Speech,
    ToWorker,
)
from app.serving.worker.calibration import OFFLINE_STREAMS, Measured, carried, streaming_part
from app.serving.worker.endpointing import EndpointingRecognition
from app.serving.worker.refining import SECOND_PASS_BUDGET_S
from app.serving.worker.stepper import Stepper
from app.serving.worker.synthesis import SpeakingTask, Synthesis

log = structlog.get_logger(__name__)

ACCEPTED_SHARE: Final = 2
"""Streams of a replica that ended are taken in up to so many times the capacity: better late than
lost, and the balance between the replicas mends it later."""

TICK_S: Final = 0.02
"""Streams that get ready within this time share a step."""


class RecognitionStream(Protocol):
    """What a recognition service returns for a task."""

    def feed(self, samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
        """More audio."""

    def end(self) -> None:
        """No more audio."""

    def configure(self, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence."""

    def tell_source_rate(self, source_rate: int) -> None:
        """The audio that follows is made from what came at this rate (Hz)."""

    def cancel(self) -> None:
        """Forget the task."""


class RecognitionRunner(Protocol):
    """A recognition service: with the engine's own endpointing, or with ours."""

    @property
    def stepper(self) -> Stepper[Any]:
        """Runs the engine's steps."""

    async def run(self) -> None:
        """Serve until cancelled."""

    def work(self) -> dict[Hashable, int]:
        """What is outstanding, and how far it is. Any thread."""

    def open(self, options: RecognitionOptions, sink: _Task, log_id: str) -> RecognitionStream:
        """Start a task."""


def recognition_runner(
    engine: Recognizer, *, second_pass_budget_s: float = SECOND_PASS_BUDGET_S, yields: bool = True
) -> RecognitionRunner:
    """The service that composes what ``engine`` lacks. The VAD is imported only if it is needed.

    ``second_pass_budget_s``, ``yields``: see :class:`app.serving.worker.refining.Refiner`; for
    engines in parts.
    """
    if isinstance(engine, RecognizerParts):
        parts = engine
    elif engine.capabilities.own_endpointing:
        return EndpointingRecognition(cast(EndpointingRecognizer, engine), TICK_S)
    else:
        parts = RecognizerParts(engine.capabilities, cast(SentenceRecognizer, engine))
    from app.serving.worker.segmenting import SegmentingRecognition

    return SegmentingRecognition(
        parts,
        parts.detector or _own_vad(),
        TICK_S,
        second_pass_budget_s=second_pass_budget_s,
        yields=yields,
    )


def _own_vad() -> VoiceDetector:
    from app.audio.vad import SileroVad

    return SileroVad()


def _streams(capabilities: RecognizerCapabilities, wanted: int) -> int:
    """How many streams to accept: as many as the owner wants, if he wants any number. An engine
    whose streams are whole tasks keeps its own limit, which it was promised; of another one only
    sentences are open, and those are limited apart."""
    most = capabilities.max_sessions
    if most is None:
        return wanted or OFFLINE_STREAMS
    if wanted > most and capabilities.own_endpointing:
        log.warning("MAX_STREAMS is more than the engine can carry", asked_for=wanted, used=most)
        return most
    return wanted or most


class WorkerServer:
    """Serves one engine on one listening Unix socket. ``active`` counts its tasks; ``measured`` is
    what :meth:`calibrate` found out."""

    def __init__(
        self,
        name: str,
        engine_name: str,
        device: str,
        *,
        recognizer: Recognizer | None = None,
        synthesizer: Synthesizer | None = None,
        max_streams: int = 0,
        threads: int = 0,
        second_pass_budget_ms: int = round(SECOND_PASS_BUDGET_S * 1000),
    ) -> None:
        """Give one of the two engines. ``max_streams`` overrides the number of streams that a
        recogniser accepts, as far as it can carry them; ``threads`` limits the utterances that a
        synthesiser speaks at the same time; 0 does neither. ``second_pass_budget_ms``: see
        :class:`app.serving.worker.refining.Refiner`."""
        self.active = 0
        self.measured: Measured = ()
        self._connections: set[_Connection] = set()
        self._drain: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._idle = asyncio.Event()
        self._max_streams = max_streams
        self._recognizer = recognizer
        self.recognition: RecognitionRunner | None = None
        self.synthesis: Synthesis | None = None
        if synthesizer is not None:
            self.synthesis = Synthesis(synthesizer, threads)
            self.capacity = self.synthesis.capacity
        else:
            assert recognizer is not None
            device = recognizer.capabilities.device or device
            self.recognition = recognition_runner(
                recognizer,
                second_pass_budget_s=second_pass_budget_ms / 1000,
                # On a GPU the host's work is small, and the device has priorities of its own.
                yields=device == "cpu",
            )
            self.capacity = _streams(recognizer.capabilities, max_streams)
        self._active_gauge = metrics.REPLICA_ACTIVE.labels(name)
        self._capacity_gauge = metrics.REPLICA_CAPACITY.labels(name)
        # Those that wait to be spoken have been accepted too, but are no use of the engine yet.
        self._capacity_gauge.set(self.synthesis.parallel if self.synthesis else self.capacity)
        self.hello = Hello(
            PROTOCOL_VERSION,
            name,
            "asr" if synthesizer is None else "tts",
            engine_name,
            device,
            self.capacity,
            recognizer=recognizer.capabilities if recognizer else None,
            synthesizer=synthesizer.capabilities if synthesizer else None,
        )

    async def calibrate(
        self,
        progress: Progress,
        clock: Callable[[], float] = time.perf_counter,
        known: Measured = (),
    ) -> None:
        """Measure how many streams this device carries, if the engine leaves that open. Once,
        before :meth:`serve`; ``clock`` gives the seconds that steps are measured in. ``known`` is
        what this worker's predecessor has measured, if it had one.

        Raises:
            EngineNotUsable: the engine fails at a step.
        """
        if self._recognizer is None or self._recognizer.capabilities.max_sessions is not None:
            return
        engine = streaming_part(self._recognizer)
        if engine is None:
            return
        assert self.recognition is not None
        self.capacity, self.measured = await carried(
            engine, self.recognition.stepper, self._max_streams, progress, clock, known
        )
        self._capacity_gauge.set(self.capacity)
        self.hello = msgspec.structs.replace(self.hello, capacity=self.capacity)

    def work(self) -> dict[Hashable, int]:
        """What is outstanding (``app/serving/control.py``). Any thread."""
        runner = self.recognition or self.synthesis
        assert runner is not None
        return runner.work()

    @property
    def leaving(self) -> bool:
        """Whether :meth:`drain` was called."""
        return self._drain.done()

    def drain(self, wait_s: float) -> None:
        """Take no new task, have the streams go elsewhere, and end :meth:`serve` once no task is
        left, or after ``wait_s``."""
        if not self.leaving:
            self._drain.set_result(wait_s)
            for connection in self._connections:
                connection.link.send(Leaving())

    async def serve(self, listener: socket.socket) -> None:
        """Accept API processes until cancelled, or drained."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self._accept, sock=listener)
        runner = self.recognition or self.synthesis
        assert runner is not None
        running = asyncio.ensure_future(runner.run())
        draining = asyncio.ensure_future(self._drained())
        try:
            await asyncio.wait([running, draining], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            for each in (running, draining):
                each.cancel()
            await asyncio.gather(running, draining, return_exceptions=True)
            server.close()
            for connection in list(self._connections):
                connection.link.close()

    async def _drained(self) -> None:
        wait_s = await self._drain
        log.info("draining", tasks=self.active)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self.active:
                    self._idle.clear()
                    await self._idle.wait()
        log.info("drained", tasks=self.active)

    def _accept(self) -> Link:
        connection = _Connection(self)
        self._connections.add(connection)
        return connection.link

    def forget(self, connection: _Connection) -> None:
        """``connection`` is closed and its tasks are cancelled."""
        self._connections.discard(connection)

    def check_room(self, *, accepted: bool) -> None:
        """Raise Overloaded if there is no room for a stream. Synthesis has a queue of its own."""
        capacity = self.capacity * ACCEPTED_SHARE if accepted else self.capacity
        if self.active >= capacity:
            raise StreamsFull

    def count(self, change: int) -> None:
        """A task began (1) or ended (-1)."""
        self.active += change
        self._active_gauge.set(self.active)

    def tell_load(self) -> None:
        """The load changed: tell the API processes that are not being written to anyway."""
        if not self.active:
            self._idle.set()
        for connection in self._connections:
            connection.tell_load()


class _Connection:
    """One API process and its tasks."""

    def __init__(self, server: WorkerServer) -> None:
        self._server = server
        self._tasks: dict[int, _Task] = {}
        self._told_load = -1
        self.link = Link(
            ToWorker,
            self.receive,
            self.lost,
            before_flush=self.load_to_tell,
            on_open=self.opened,
        )

    def opened(self) -> None:
        self.link.send(self._server.hello)
        if self._server.leaving:
            self.link.send(Leaving())

    def load_to_tell(self) -> msgspec.Struct | None:
        if self._told_load == self._server.active:
            return None
        self._told_load = self._server.active
        return Load(self._server.active)

    def tell_load(self) -> None:
        if self._told_load != self._server.active:
            self._told_load = self._server.active
            self.link.send(Load(self._server.active), within_s=0.05)

    def receive(self, message: ToWorker) -> None:
        match message:
            case Audio(number, pcm):
                if (task := self._tasks.get(number)) is not None and task.stream is not None:
                    task.stream.feed(np.frombuffer(pcm, dtype=np.int16))
            case Credit(number, samples):
                if (task := self._tasks.get(number)) is not None and task.speaking is not None:
                    task.speaking.credit(samples)
            case EndOfAudio(number):
                if (task := self._tasks.get(number)) is not None and task.stream is not None:
                    task.stream.end()
            case Configure(number, silence_ms):
                if (task := self._tasks.get(number)) is not None and task.stream is not None:
                    task.stream.configure(silence_ms)
            case SourceRate(number, source_rate):
                if (task := self._tasks.get(number)) is not None and task.stream is not None:
                    task.stream.tell_source_rate(source_rate)
            case Cancel(number):
                if (task := self._tasks.get(number)) is not None:
                    task.cancel()
            case OpenRecognition() | OpenSynthesis():
                self._open(message)

    def _open(self, message: OpenRecognition | OpenSynthesis) -> None:
        task = _Task(self, message.task)
        try:
            if self._server.leaving:
                raise EngineUnavailable
            if isinstance(message, OpenRecognition):
                self._server.check_room(accepted=message.accepted)
            if message.task in self._tasks:
                raise EngineFailed
            task.start(message, self._server)
        except SpeechError as error:
            self.link.send(Refused(message.task, type(error).__name__, error.text))
        except Exception:
            log.exception("cannot open a task", task_id=message.log_id)
            self.link.send(Refused(message.task, EngineFailed.__name__, EngineFailed.default_text))

    def add(self, task: _Task) -> None:
        self._tasks[task.number] = task
        self._server.count(1)
        self.link.send(Granted(task.number))

    def remove(self, task: _Task) -> None:
        if self._tasks.pop(task.number, None) is not None:
            self._server.count(-1)
            self._server.tell_load()

    def lost(self) -> None:
        self._server.forget(self)
        for task in list(self._tasks.values()):
            task.cancel()


class _Task:
    """A running task: turns what the services report into messages."""

    def __init__(self, connection: _Connection, number: int) -> None:
        self._connection = connection
        self._link = connection.link
        self.number = number
        self.stream: RecognitionStream | None = None
        self.speaking: SpeakingTask | None = None

    def start(self, message: OpenRecognition | OpenSynthesis, server: WorkerServer) -> None:
        if isinstance(message, OpenRecognition):
            if server.recognition is None:
                raise EngineFailed
            self.stream = server.recognition.open(message.options, self, message.log_id)
        else:
            if server.synthesis is None:
                raise EngineFailed
            self.speaking = server.synthesis.open(
                message.utterance, self, message.log_id, message.lead_s
            )
        self._connection.add(self)

    def cancel(self) -> None:
        if self.stream is not None:
            self.stream.cancel()
        if self.speaking is not None:
            self.speaking.cancel()
        self._connection.remove(self)

    def recognized(self, event: RecognitionEvent) -> None:
        self._link.send(Recognized(self.number, event))

    def processed(self, samples: int) -> None:
        self._link.send(Processed(self.number, samples))

    def speech(self, pcm: bytes, marks: tuple[Mark, ...]) -> None:
        self._link.send(Speech(self.number, pcm, marks))

    def done(self) -> None:
        self._connection.remove(self)
        self._link.send(Done(self.number))

    def failed(self, error: SpeechError) -> None:
        self._connection.remove(self)
        self._link.send(Failed(self.number, type(error).__name__, error.text))
