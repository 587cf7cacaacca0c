"""The API process's end of one engine worker: a connection that comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import structlog

from app.core.errors import EngineLost, EngineUnavailable, from_wire
from app.core.speech import RecognitionOptions, Role, Utterance
from app.serving.handles import RecognitionHandle, SpeechHandle
from app.serving.link import Link, stay_connected
from app.serving.protocol import (
    PROTOCOL_VERSION,
    Done,
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
    Speech,
    ToApi,
    ToWorker,
)

log = structlog.get_logger(__name__)


H = TypeVar("H", RecognitionHandle, SpeechHandle)


class Replica:
    """One worker, seen from an API process. :meth:`run` keeps the connection up. ``model``: a label
    of MODELS_FILE, "" for the server's own."""

    def __init__(self, name: str, role: Role, socket_path: str, model: str = "") -> None:
        self.name = name
        self.role = role
        self.model = model
        self._socket_path = socket_path
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._greeted = False
        self.hello: Hello | None = None
        self.on_hello: Callable[[Hello], None] = lambda hello: None
        self.load = 0  # as the worker said
        self.asking = 0  # tasks that it has been asked for and has not answered about
        self.ready = asyncio.Event()  # it takes new tasks
        self.ready_since = 0.0  # by the event loop's clock
        self.is_mute = False  # it has not answered, and said nothing since
        self._tasks: dict[int, RecognitionHandle | SpeechHandle] = {}
        self._next_number = 0

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        try:
            await stay_connected(self._connect_once, self.name)
        finally:
            if self._link is not None:
                self._link.close()

    async def _connect_once(self) -> bool:
        """Hold one connection until it is lost. Returns whether the worker got to greet."""
        self._lost = asyncio.Event()
        self._greeted = False
        # Before it is connected: the greeting may come in the same moment.
        self._link = Link(ToApi, self._receive, self._on_lost)
        link = self._link
        await asyncio.get_running_loop().create_unix_connection(lambda: link, self._socket_path)
        await self._lost.wait()
        return self._greeted

    def _on_lost(self) -> None:
        self.hello = None
        self.ready.clear()
        self.load = 0
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.end(EngineLost() if task.is_open else EngineUnavailable())
        self._lost.set()

    def send(
        self,
        message: ToWorker,
        *,
        within_s: float = 0.0,
    ) -> None:
        """Send; a lost connection drops it (its tasks have ended then)."""
        if self._link is not None:
            self._link.send(message, within_s=within_s)

    def forget(self, number: int) -> None:
        """A task is over."""
        self._tasks.pop(number, None)

    async def open_recognition(
        self,
        options: RecognitionOptions,
        log_id: str,
        *,
        accepted: bool = False,
        answer_s: float | None = None,
    ) -> RecognitionHandle:
        """Start a recognition task here. ``accepted``: see :class:`OpenRecognition`; ``answer_s``:
        in place of ``OPEN_TIMEOUT_S``.

        Raises:
            Overloaded: the worker is full.
            EngineUnavailable: it is not ready, or does not answer.
        """
        capabilities = self.hello.recognizer if self.hello is not None else None
        if capabilities is None:
            raise EngineUnavailable
        task = RecognitionHandle(self, self._number(), capabilities.sample_rate)
        self._tasks[task.number] = task
        self.send(OpenRecognition(task.number, options, log_id, accepted))
        return await self._wait_granted(task, answer_s)

    async def open_synthesis(
        self, utterance: Utterance, log_id: str, lead_s: float | None = None
    ) -> SpeechHandle:
        """Start an utterance here (``lead_s`` as in ``OpenSynthesis``). Raises as
        :meth:`open_recognition`, and what the engine says of the utterance."""
        capabilities = self.hello.synthesizer if self.hello is not None else None
        if capabilities is None:
            raise EngineUnavailable
        task = SpeechHandle(self, self._number(), capabilities.sample_rate)
        self._tasks[task.number] = task
        self.send(OpenSynthesis(task.number, utterance, log_id, lead_s))
        return await self._wait_granted(task)

    async def _wait_granted(self, task: H, answer_s: float | None = None) -> H:
        self.asking += 1
        try:
            await task.granted(answer_s)
        except BaseException as error:
            if isinstance(error, EngineUnavailable) and self._greeted:
                self.is_mute = True
            task.cancel()
            raise
        finally:
            self.asking -= 1
        return task

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number

    def _receive(self, message: ToApi) -> None:
        self.is_mute = False
        match message:
            case Hello():
                self._greet(message)
            case Load(active):
                self.load = active
            case Leaving():
                self._leave()
            case _:
                task = self._tasks.get(message.task)
                if task is not None:
                    self._dispatch(task, message)

    def _greet(self, hello: Hello) -> None:
        if hello.version != PROTOCOL_VERSION:
            log.error("worker speaks another protocol version", replica=self.name)
            if self._link is not None:
                self._link.close()
            return
        self._greeted = True
        self.hello = hello
        self.on_hello(hello)
        self.ready_since = asyncio.get_running_loop().time()
        self.ready.set()

    def _leave(self) -> None:
        self.ready.clear()
        for task in self._tasks.values():
            if isinstance(task, RecognitionHandle):
                task.leave()

    def _dispatch(self, task: RecognitionHandle | SpeechHandle, message: ToApi) -> None:
        match message:
            case Recognized(_, event) if isinstance(task, RecognitionHandle):
                task.recognized(event)
            case Processed(_, samples) if isinstance(task, RecognitionHandle):
                task.processed(samples)
            case Speech(_, pcm, marks) if isinstance(task, SpeechHandle):
                task.speech(pcm, marks)
            case Granted():
                task.grant()
            case Done():
                self.forget(task.number)
                task.end(None)
            case Refused(_, error, text) | Failed(_, error, text):
                self.forget(task.number)
                task.end(from_wire(error, text))
            case _:
                log.error("worker sent a message of the wrong kind", replica=self.name)


@contextlib.asynccontextmanager
async def running(replicas: list[Replica]) -> AsyncIterator[None]:
    """Keep the replicas' connections up inside the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(replica.run()) for replica in replicas]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
