"""The replicas that an API process may use, and the choice among them.

The worker is the authority on its load: the pool asks the lightest first and refuses the client
only when every ready replica said that it is full. A replica that has just started counts as
heavier than it is for its first seconds, so that it is not given everything at once. A stream on a
heavy replica may go to a lighter one between two of its sentences (``services/replay.py``).

A server may have several recognition models (MODELS_FILE), each with replicas of its own: a task
runs at a replica of the model that its options name, and never at another's.
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
    """What is known of a replica now; the fields after ``ready`` are empty until it is, but for
    ``model``, a label of MODELS_FILE, "" for the server's own."""

    name: str
    role: Role
    ready: bool
    engine: str
    device: str
    active: int
    capacity: int
    capabilities: RecognizerCapabilities | SynthesizerCapabilities | None
    model: str = ""


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
        """Whether each model of this role has a replica that can take tasks."""
        replicas = [replica for replica in self._replicas if replica.role == role]
        able = {replica.model for replica in replicas if replica.ready.is_set()}
        return bool(replicas) and able == {replica.model for replica in replicas}

    def recognizer(self, model: str = "") -> RecognizerCapabilities | None:
        """What a recognition model can do, once a replica of it is ready."""
        for replica in self._of("asr", model):
            if replica.hello is not None:
                return replica.hello.recognizer
        return None

    def synthesizer(self) -> SynthesizerCapabilities | None:
        """What the synthesis engine can do, once a replica is ready."""
        for replica in self._of("tts"):
            if replica.hello is not None:
                return replica.hello.synthesizer
        return None

    async def wait_ready(self, role: Role, model: str = "") -> None:
        """Wait until a replica of this role and model is ready.

        Raises:
            NotOffered: this server has none.
            EngineUnavailable: none was, in time.
        """
        replicas = self._of(role, model)
        if not replicas:
            raise NotOffered(_no_model(model) if model else _NOT_OFFERED[role])
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
        """Start a recognition task at the lightest replica of its model. ``accepted``: it ran
        before, and has a claim to a place (:class:`app.serving.protocol.OpenRecognition`).

        Raises:
            NotOffered: this server has no such model.
            Overloaded: all ready replicas are full.
            EngineUnavailable: none is ready, or all failed to answer.
        """
        if not accepted and self._crowded(options.model):
            raise StreamsFull
        return await self._open(
            "asr",
            lambda replica: replica.open_recognition(options, log_id, accepted=accepted),
            options.model,
        )

    def _crowded(self, model: str) -> bool:
        """Whether a model's replicas have more streams than they can carry, because some of them
        took in what another one had to give up. What is free elsewhere is for those."""
        replicas = [each for each in self._of("asr", model) if each.ready.is_set()]
        hellos = [(each.load, each.hello) for each in replicas]
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
        """Start a stream at the lightest replica of its model but one, now or not at all; ``must``:
        that one is about to end, so the stream has a claim to a place. Raises as
        :meth:`open_recognition`."""
        return await self._ask(
            "asr",
            lambda replica: replica.open_recognition(
                options, log_id, accepted=must, answer_s=MOVE_ANSWER_S
            ),
            options.model,
            away_from,
        )

    def better_to_move(self, away_from: str) -> bool:
        """Whether a recognition stream would help to balance the load if it left its replica now.
        Whoever is told so is expected to do it."""
        now = asyncio.get_running_loop().time()
        if now < self._next_move:
            return False
        able = [each for each in self._replicas if each.ready.is_set() and not each.is_mute]
        here = next((each for each in able if each.name == away_from), None)
        if here is None:
            return False
        others = [
            each
            for each in able
            if each.role == here.role and each.model == here.model and each is not here
        ]
        limit = _CLEARLY_LIGHTER * _pressure(here, now, more=0)
        if all(_pressure(each, now, more=2) > limit for each in others):
            return False
        self._next_move = now + MOVE_INTERVAL_S
        return True

    async def _open(
        self, role: Role, open_at: Callable[[Replica], Awaitable[T]], model: str = ""
    ) -> T:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._ready_timeout_s
        while True:
            await self.wait_ready(role, model)
            try:
                return await self._ask(role, open_at, model)
            except EngineUnavailable:
                # The worker died while it was asked: nothing is lost yet, another may come.
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _ask(
        self,
        role: Role,
        open_at: Callable[[Replica], Awaitable[T]],
        model: str,
        away_from: str = "",
    ) -> T:
        """Ask each ready replica of the model once, the lightest first."""
        error: Overloaded | EngineUnavailable = EngineUnavailable()
        now = asyncio.get_running_loop().time()
        for replica in sorted(self._of(role, model), key=lambda each: _pressure(each, now)):
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

    def _of(self, role: Role, model: str = "") -> list[Replica]:
        return [each for each in self._replicas if each.role == role and each.model == model]


def _no_model(label: str) -> str:
    return f"This server has no recognition model {label!r}, which the project names."


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
        model=replica.model,
    )
