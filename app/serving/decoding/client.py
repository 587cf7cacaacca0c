"""The API process's end of the decode process: tasks that outlive it.

What a task has sent and the process has not yet done with is kept, so that the next process can go
on from there. When one dies, all its tasks are opened again as suspects; the one whose turn it was
at the next death has killed it, and fails with BadAudio. The others notice a delay.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from app.audio.pcm import Int16
from app.core import metrics
from app.core.errors import BadAudio, DeadlineExceeded, EngineUnavailable, SpeechError, from_wire
from app.serving.decoding.kept import KeptBytes
from app.serving.decoding.protocol import (
    DATA_CREDIT_BYTES,
    Cancel,
    Credit,
    Data,
    Discard,
    Done,
    End,
    Failed,
    FromDecoder,
    Open,
    Pcm,
    Taken,
    ToDecoder,
    Turn,
    Welcome,
)
from app.serving.link import Link, stay_connected

log = structlog.get_logger(__name__)

AWAY_TIMEOUT_S: Final = 30.0
"""For a process that died to be replaced."""

MAX_LOSSES: Final = 5
"""Deaths of the process in a row that a task survives without getting any further."""

MAX_KEPT_BYTES: Final = 4 * 1024 * 1024
"""Of a task. Only odd streams need more (Ogg whose packets never end where a page does); such a one
goes on, but does not survive the process."""

MAX_ABANDONED: Final = 1_000
"""Files to be removed by the next process; it finds older ones by itself, later."""

SILENT_TIMEOUT_S: Final = 60.0
"""After the end of the bytes: for the next piece of audio. The process has its own, shorter limits;
this is for one that is stopped, until the supervisor has replaced it."""


@dataclass(frozen=True, slots=True)
class Undecoded:
    """What is to be decoded.

    ``kind``: a value of :class:`app.audio.sniff.Kind` that is not local; ``is_file``: it can be
    decoded only as a whole. ``sample_rate`` (Hz): what the client says. ``max_bytes``,
    ``max_audio_ms``: limits, None for none. ``channel``: the one to hear, from 0; None: all, mixed.
    """

    kind: str
    is_file: bool
    sample_rate: int
    max_bytes: int | None = None
    max_audio_ms: int | None = None
    log_id: str = ""
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class _Block:
    """Audio that waits for its reader, and the credit for it at the process that was opened as
    ``opening``."""

    samples: Int16
    sample_rate: int
    pcm_bytes: int
    opening: int


class DecodingTask:
    """Bytes in, audio out. One coroutine sends, another reads :meth:`blocks`."""

    def __init__(self, decoding: Decoding, number: int, what: Undecoded) -> None:
        self._decoding = decoding
        self.number = number
        self._what = what
        self.spool = secrets.token_hex(16) if what.is_file else ""
        self._ended = False
        self._kept = KeptBytes()  # what the next process would need
        self._preamble = b""
        self._sent = 0
        self._consumed = 0
        self._in_file = 0  # bytes that the file has
        # Samples are counted from the first of the task on.
        self._heard = 0  # those that came, each once
        self._base = 0  # where the present process began
        self._received = 0  # from the present process
        self._restart_at = 0  # where the next process would begin
        self._opened = 0  # how often
        self._losses = 0  # processes that died under it since it got any further
        self._unrepeatable = False  # too much would have to be kept
        self._blocks: deque[_Block] = deque()
        self._changed = asyncio.Event()
        self._room_came = asyncio.Event()
        self._error: SpeechError | None = None
        self._done = False
        self.has_turn = False
        self.channels = 0
        """Of the audio; 0 until all of it is decoded."""

    @property
    def was_opened(self) -> bool:
        """Whether a process has had it."""
        return self._opened > 0

    @property
    def log_id(self) -> str:
        """The task's id, for the log."""
        return self._what.log_id

    # Bytes

    @property
    def has_room(self) -> bool:
        """Whether bytes may be sent now."""
        return self._sent - self._consumed < DATA_CREDIT_BYTES or self._done

    async def wait_for_room(self) -> None:
        """Wait until bytes may be sent. Raises SpeechError when the task has failed."""
        while not self.has_room:
            self._room_came.clear()
            await self._room_came.wait()
        if self._error is not None:
            raise self._error

    def send(self, data: bytes) -> None:
        """The client's next message. The last one may overdraw the credit."""
        if self._done:
            return
        if not self._unrepeatable:
            self._kept.add(data)
            if self._kept.size > MAX_KEPT_BYTES and self._opened and self._decoding.is_connected:
                self._unrepeatable = True
                self._kept.clear()
        self._send(data)

    def finish(self) -> None:
        """No more bytes."""
        self._ended = True
        self._decoding.send(End(self.number))
        self._changed.set()

    # Audio

    async def blocks(self) -> AsyncGenerator[tuple[Int16, int], None]:
        """Audio with its sample rate (Hz), as it comes: mono, shape (n,), none empty. The rate may
        change. Asking for more returns the credit.

        Raises:
            SpeechError: it cannot be decoded.
            EngineUnavailable: the process died, and none came back in time.
            DeadlineExceeded: after the end of the bytes, nothing came for a long time.
        """
        while True:
            while self._blocks:
                block = self._blocks.popleft()
                yield block.samples, block.sample_rate
                if block.opening == self._opened:
                    self._decoding.send(Credit(self.number, block.pcm_bytes))
            if self._error is not None:
                raise self._error
            if self._done:
                return
            self._changed.clear()
            await self._wait_for_change()

    def cancel(self) -> None:
        """Forget the task, here and in the process."""
        if not self._done:
            self._decoding.discard(self)
            self.end(BadAudio())
        self._decoding.forget(self)

    async def _wait_for_change(self) -> None:
        if not self._ended:
            # The client has the turn; whoever serves it limits its silence.
            await self._changed.wait()
            return
        try:
            async with asyncio.timeout(SILENT_TIMEOUT_S):
                await self._changed.wait()
        except TimeoutError:
            raise DeadlineExceeded from None

    # What the process says

    def taken(self, message: Taken) -> None:
        """See ``protocol.py``."""
        self._consumed = message.consumed
        self._room_came.set()
        if self._unrepeatable:
            return
        if self._what.is_file:
            self._in_file += message.restart - self._kept.position
        self._preamble = message.preamble
        restart_at = self._base + message.samples
        if restart_at > self._restart_at or message.restart > self._kept.position:
            self._losses = 0  # it gets on
        self._restart_at = restart_at
        self._kept.drop_before(message.restart)

    def pcm(self, message: Pcm) -> None:
        """See ``protocol.py``. What came from a process that died already is dropped."""
        samples = np.frombuffer(message.pcm, dtype="<i2").astype(np.int16, copy=False)
        known = max(self._heard - self._base - self._received, 0)
        self._received += len(samples)
        size, samples = samples.nbytes, samples[known:]
        if not len(samples):
            self._decoding.send(Credit(self.number, size))
            return
        self._heard += len(samples)
        self._blocks.append(_Block(samples, message.sample_rate, size, self._opened))
        self._changed.set()

    def end(self, error: SpeechError | None) -> None:
        """Done, or failed. The task's waiters wake up."""
        self._done = True
        self._error = self._error or error
        self._kept.clear()
        self._changed.set()
        self._room_came.set()

    def open(self) -> None:
        """Open the task at a new process, or for the first time."""
        if self._opened:
            self._losses += 1
        if self._losses > MAX_LOSSES or (self._opened and self._unrepeatable):
            log.error("the decoder died under this task, giving it up", task_id=self.log_id)
            self._decoding.discard(self)
            self.end(EngineUnavailable())
            return
        self.has_turn = False
        # A file is decoded anew from its beginning; what is known of it is dropped when it comes.
        self._base, self._received = self._restart_at, 0
        messages = self._kept.messages
        self._kept.begin_anew()
        self._sent = self._consumed = 0
        self._decoding.send(
            Open(
                task=self.number,
                kind=self._what.kind,
                sample_rate=self._what.sample_rate,
                max_bytes=self._what.max_bytes,
                max_audio_ms=self._what.max_audio_ms,
                spool=self.spool,
                taken=self._in_file,
                preamble=self._preamble,
                suspect_bytes=max(sum(map(len, messages)), 1) if self._opened else 0,
                log_id=self._what.log_id,
                channel=self._what.channel,
            )
        )
        self._opened += 1
        for data in messages:
            self._send(data)
        if self._ended:
            self._decoding.send(End(self.number))

    def _send(self, data: bytes) -> None:
        self._sent += len(data)
        self._decoding.send(Data(self.number, data))


class Decoding:
    """The connection to the decode process, and this process' tasks there."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._welcomed = asyncio.Event()
        self._tasks: dict[int, DecodingTask] = {}
        self._next_number = 0
        # Files of tasks that ended here; the last process may not have known.
        self._abandoned: deque[str] = deque(maxlen=MAX_ABANDONED)
        self._giving_up: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected inside the block."""
        async with asyncio.TaskGroup() as group:
            connecting = group.create_task(self._stay_connected())
            try:
                yield
            finally:
                connecting.cancel()

    def open(self, what: Undecoded) -> DecodingTask:
        """Start a task; while the process is away, it waits."""
        self._next_number += 1
        task = DecodingTask(self, self._next_number, what)
        self._tasks[task.number] = task
        if self._welcomed.is_set():
            task.open()
        elif self._giving_up is None:
            self._give_up_later()
        return task

    @property
    def is_connected(self) -> bool:
        """Whether the process is there."""
        return self._link is not None and self._welcomed.is_set() and self._link.is_open

    def send(self, message: ToDecoder) -> None:
        """Send; a lost connection drops it, and the task is opened again at the next one."""
        if self._link is not None and self._welcomed.is_set():
            self._link.send(message)

    def forget(self, task: DecodingTask) -> None:
        """The task is over."""
        self._tasks.pop(task.number, None)

    def discard(self, task: DecodingTask) -> None:
        """The task is over on our side: the process must not go on, nor keep its file."""
        self.forget(task)
        self.send(Cancel(task.number))
        if task.spool:
            self._abandoned.append(task.spool)

    async def _stay_connected(self) -> None:
        try:
            await stay_connected(self._connect_once, "decode")
        finally:
            self._have_patience()
            if self._link is not None:
                self._link.close()

    async def _connect_once(self) -> bool:
        """Hold one connection until it is lost. Returns whether the process got to greet."""
        self._lost = asyncio.Event()
        self._link = link = Link(FromDecoder, self._receive, self._on_lost)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, self._socket_path)
        await self._lost.wait()
        greeted = self._welcomed.is_set()
        self._welcomed.clear()
        self._blame()
        if greeted:
            self._give_up_later()
        return greeted

    def _on_lost(self) -> None:
        self._lost.set()

    def _blame(self) -> None:
        """The process has died; whose turn it was has killed it."""
        for task in list(self._tasks.values()):
            if task.has_turn:
                log.error("this task ends the decoder, giving it up", task_id=task.log_id)
                self.discard(task)
                task.end(BadAudio())

    def _give_up_later(self) -> None:
        self._have_patience()
        loop = asyncio.get_running_loop()
        self._giving_up = loop.call_later(AWAY_TIMEOUT_S, self._give_up)

    def _have_patience(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        """No process came in time."""
        self._giving_up = None
        for task in list(self._tasks.values()):
            self.discard(task)
            task.end(EngineUnavailable())

    def _receive(self, message: FromDecoder) -> None:
        if isinstance(message, Welcome):
            self._greet()
            return
        task = self._tasks.get(message.task)
        if task is None:
            return
        match message:
            case Taken():
                task.taken(message)
            case Pcm():
                task.pcm(message)
            case Turn(_, running):
                task.has_turn = running
            case Done(_, channels):
                self.forget(task)
                task.channels = channels
                task.end(None)
            case Failed(_, error, text):
                self.forget(task)
                task.end(from_wire(error, text))

    def _greet(self) -> None:
        self._welcomed.set()
        self._have_patience()
        for spool in self._abandoned:
            self.send(Discard(spool))
        self._abandoned.clear()
        if again := sum(task.was_opened for task in self._tasks.values()):
            log.warning("decoder lost, repeating its tasks", tasks=again)
            metrics.REPEATED.labels("decode").inc(again)
        for task in list(self._tasks.values()):
            task.open()
