"""The replicas that an API process may use, and the choice among them.

The worker is the authority on its load: the pool asks the lightest first and refuses the client
only when every ready replica said that it is full. A replica that has just started counts as
heavier than it is for its first seconds, so that it is not given everything at once. A stream on a
heavy replica may go to a lighter one between two of its sentences (``services/replay.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from app.core.errors import EngineUnavailable, NotOffered, Overloaded, StreamsFull
from app.core.speech import RecognitionOptions, Role, Utterance
from app.engines.base import RecognizerCapabilities, SynthesizerCapabilities
from app.serving.handles import RecognitionHandle, SpeechHandle
from app.serving.protocol import Hello
from app.serving.replica import Replica, running

T = TypeVar("T")

READY_TIMEOUT_S: Final = 8.0
"""A task waits so long for a worker that is starting: less than a client waits for Started
(10 s, nls-protocol.md 1.10)."""


SLOW_START_S: Final = 5.0
"""A new replica takes its full share only after this time: its caches are cold, and if it was the
load that killed the last one, it should not come back all at once."""

MOVE_INTERVAL_S: Final = 0.1
"""At most one stream is moved for the sake of balance in this time, so that many that see the same
light replica do not all go there."""

MOVE_ANSWER_S: Final = 0.5
"""A stream that could stay where it is does not wait longer for a replica's answer: what its own
worker says is not read meanwhile."""

_CLEARLY_LIGHTER: Final = 0.8
_ASK_AGAIN_S: Final = 0.05

_NOT_OFFERED: Final[dict[Role, str]] = {
    "asr": "This server offers no recognition.",
    "tts": "This server offers no synthesis.",
}


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What is known of a replica now; the fields after ``ready`` are empty until it is."""

    name: str
    role: Role
    ready: bool
    engine: str
    device: str
    active: int
    capacity: int
    capabilities: RecognizerCapabilities | SynthesizerCapabilities | None


class Pool:
    """All replicas of both roles."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        on_synthesizer: Callable[[SynthesizerCapabilities], None] = lambda capabilities: None,
        ready_timeout_s: float | None = None,
    ) -> None:
        """``on_synthesizer`` is told what a synthesis worker can do, each time that one is
        ready."""
        self._replicas = list(replicas)
        self._on_synthesizer = on_synthesizer
        for replica in self._replicas:
            replica.on_hello = self._greeted
        self._ready_timeout_s = READY_TIMEOUT_S if ready_timeout_s is None else ready_timeout_s
        self._next_move = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected inside the block."""
        async with running(self._replicas):
            yield

    def _greeted(self, hello: Hello) -> None:
        if hello.synthesizer is not None:
            self._on_synthesizer(hello.synthesizer)

    def status(self, role: Role) -> list[ReplicaStatus]:
        """The replicas of a role, for health and models answers."""
        return [_status(replica) for replica in self._replicas if replica.role == role]

    @property
    def roles(self) -> list[Role]:
        """What this server does: an installation may lack an engine for one of the two."""
        return list(dict.fromkeys(replica.role for replica in self._replicas))

    def ready(self, role: Role) -> bool:
        """Whether a replica of this role can take tasks."""
        return any(replica.ready.is_set() for replica in self._of(role))

    def recognizer(self) -> RecognizerCapabilities | None:
        """What the recognition engine can do, once a replica is ready."""
        for replica in self._of("asr"):
            if replica.hello is not None:
                return replica.hello.recognizer
        return None

    def synthesizer(self) -> SynthesizerCapabilities | None:
        """What the synthesis engine can do, once a replica is ready."""
        for replica in self._of("tts"):
            if replica.hello is not None:
                return replica.hello.synthesizer
        return None

    async def wait_ready(self, role: Role) -> None:
        """Wait until a replica of this role is ready.

        Raises:
            NotOffered: this server has none.
            EngineUnavailable: none was, in time.
        """
        replicas = self._of(role)
        if not replicas:
            raise NotOffered(_NOT_OFFERED[role])
        if any(replica.ready.is_set() for replica in replicas):
            return
        waits = [asyncio.ensure_future(replica.ready.wait()) for replica in replicas]
        try:
            done, _ = await asyncio.wait(
                waits, timeout=self._ready_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
        if not done:
            raise EngineUnavailable

    async def open_recognition(
        self, options: RecognitionOptions, log_id: str, *, accepted: bool = False
    ) -> RecognitionHandle:
        """Start a recognition task at the lightest replica. ``accepted``: it ran before, and has a
        claim to a place (:class:`app.serving.protocol.OpenRecognition`).

        Raises:
            Overloaded: all ready replicas are full.
            EngineUnavailable: none is ready, or all failed to answer.
        """
        if not accepted and self._crowded():
            raise StreamsFull
        return await self._open(
            "asr", lambda replica: replica.open_recognition(options, log_id, accepted=accepted)
        )

    def _crowded(self) -> bool:
        """Whether the replicas have more streams than they can carry, because some of them took in
        what another one had to give up. What is free elsewhere is for those."""
        hellos = [(each.load, each.hello) for each in self._of("asr") if each.ready.is_set()]
        loads = [(load, hello.capacity) for load, hello in hellos if hello is not None]
        above = any(load > capacity for load, capacity in loads)
        return above and sum(load for load, _ in loads) >= sum(room for _, room in loads)

    async def open_synthesis(
        self, utterance: Utterance, log_id: str, lead_s: float | None = None
    ) -> SpeechHandle:
        """Start an utterance at the lightest replica (``lead_s`` as in ``OpenSynthesis``). Raises
        as :meth:`open_recognition`."""
        return await self._open(
            "tts", lambda replica: replica.open_synthesis(utterance, log_id, lead_s)
        )

    async def move_recognition(
        self, options: RecognitionOptions, log_id: str, away_from: str, *, must: bool
    ) -> RecognitionHandle:
        """Start a stream at the lightest replica but one, now or not at all; ``must``: that one is
        about to end, so the stream has a claim to a place. Raises as :meth:`open_recognition`."""
        return await self._ask(
            "asr",
            lambda replica: replica.open_recognition(
                options, log_id, accepted=must, answer_s=MOVE_ANSWER_S
            ),
            away_from,
        )

    def better_to_move(self, away_from: str) -> bool:
        """Whether a recognition stream would help to balance the load if it left its replica now.
        Whoever is told so is expected to do it."""
        now = asyncio.get_running_loop().time()
        if now < self._next_move:
            return False
        replicas = [each for each in self._of("asr") if each.ready.is_set() and not each.is_mute]
        here = next((each for each in replicas if each.name == away_from), None)
        if here is None or len(replicas) < 2:
            return False
        limit = _CLEARLY_LIGHTER * _pressure(here, now, more=0)
        if all(_pressure(each, now, more=2) > limit for each in replicas if each is not here):
            return False
        self._next_move = now + MOVE_INTERVAL_S
        return True

    async def _open(self, role: Role, open_at: Callable[[Replica], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._ready_timeout_s
        while True:
            await self.wait_ready(role)
            try:
                return await self._ask(role, open_at)
            except EngineUnavailable:
                # The worker died while it was asked: nothing is lost yet, another may come.
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _ask(
        self, role: Role, open_at: Callable[[Replica], Awaitable[T]], away_from: str = ""
    ) -> T:
        """Ask each ready replica once, the lightest first."""
        error: Overloaded | EngineUnavailable = EngineUnavailable()
        now = asyncio.get_running_loop().time()
        for replica in sorted(self._of(role), key=lambda each: _pressure(each, now)):
            if not replica.ready.is_set() or replica.name == away_from:
                continue
            try:
                return await open_at(replica)
            except Overloaded as full:
                error = full
            except EngineUnavailable as gone:
                if not isinstance(error, Overloaded):
                    error = gone
        raise error

    def _of(self, role: Role) -> list[Replica]:
        return [replica for replica in self._replicas if replica.role == role]


def _pressure(replica: Replica, now: float, more: int = 1) -> float:
    """How full the replica would be with ``more`` tasks: 1 is all that it can carry. One that did
    not answer comes last."""
    if replica.is_mute:
        return float("inf")
    capacity = replica.hello.capacity if replica.hello is not None else 1
    share = min(max(now - replica.ready_since, 0.1) / SLOW_START_S, 1.0)
    return (replica.load + replica.asking + more) / max(capacity, 1) / share


def _status(replica: Replica) -> ReplicaStatus:
    hello = replica.hello
    return ReplicaStatus(
        name=replica.name,
        role=replica.role,
        ready=replica.ready.is_set(),
        engine=hello.engine if hello else "",
        device=hello.device if hello else "",
        active=replica.load,
        capacity=hello.capacity if hello else 0,
        capabilities=(hello.recognizer or hello.synthesizer) if hello else None,
    )
