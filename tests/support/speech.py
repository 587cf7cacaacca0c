"""The synthesis service alone, on real workers of a fake engine over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.speech import SpeechBegan, SpeechEnded, SpeechEvent
from app.core.usage import Used
from app.engines.base import Synthesizer
from app.engines.fake.options import FakeOptions
from app.engines.fake.synthesizer import FakeSynthesizer
from app.services.synthesis import SpokenTask, SynthesisService
from app.serving.pool import Pool
from app.serving.replica import Replica
from app.serving.worker.server import WorkerServer
from app.voices.aliases import Aliases
from app.voices.catalogue import VoiceCatalogue

NEVER_S = 1e9
"""For ``settle_s`` where the timer must not help."""


@dataclass
class Speech:
    """The service, its workers, and what its account was told."""

    service: SynthesisService
    workers: list[WorkerServer]
    replicas: list[Replica]
    used: list[tuple[str, Used]] = field(default_factory=list)

    def cut(self) -> None:
        """Break all connections to the workers off, as their death would; they serve new ones."""
        for worker in self.workers:
            for connection in list(worker._connections):
                transport = connection.link._transport
                assert transport is not None
                transport.abort()

    async def idle(self) -> None:
        """Wait until no worker has any utterance left, and nobody holds one."""
        while any(worker.active for worker in self.workers):  # noqa: ASYNC110 - has no event
            await asyncio.sleep(0.001)
        assert [handle for replica in self.replicas for handle in replica._tasks] == []


@asynccontextmanager
async def speech(
    folder: Path,
    engine: Synthesizer | None = None,
    *,
    workers: int = 1,
    delay_ms: int = 0,
    **options: Any,
) -> AsyncIterator[Speech]:
    """``engine``: in place of the fake one, which takes ``delay_ms`` for a piece; ``options`` are
    those of the service."""
    used: list[tuple[str, Used]] = []
    async with asyncio.TaskGroup() as group:
        servers, replicas, serving = [], [], []
        for index in range(workers):
            speaker = engine or FakeSynthesizer(FakeOptions(tts_delay_ms=delay_ms))
            worker = WorkerServer(f"tts-{index}", "test", "cpu", synthesizer=speaker)
            path = folder / f"tts-{index}.sock"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.setblocking(False)
            serving.append(group.create_task(worker.serve(listener)))
            servers.append(worker)
            replicas.append(Replica(f"tts-{index}", "tts", str(path)))
        voices = VoiceCatalogue(Aliases(folder / "voices"))
        pool = Pool(replicas, lambda found: voices.set_engine(found.voices, found.any_voice))
        async with pool.running():
            service = SynthesisService(
                pool, voices, 2, account=lambda key, each: used.append((key, each)), **options
            )
            for replica in replicas:
                await replica.ready.wait()
            try:
                yield Speech(service, servers, replicas, used)
            finally:
                service.close()
        for task in serving:
            task.cancel()


async def heard(task: SpokenTask) -> tuple[bytes, list[SpeechEvent]]:
    """All that a task gives."""
    return sorted_out([part async for part in task.events()])


def sorted_out(parts: Iterable[bytes | SpeechEvent]) -> tuple[bytes, list[SpeechEvent]]:
    """The audio, and the events, which must come in order."""
    audio, events = b"", list[SpeechEvent]()
    for part in parts:
        if isinstance(part, bytes):
            audio += part
        else:
            events.append(part)
    kinds = [type(each) for each in events]
    assert kinds == [SpeechBegan, SpeechEnded] * (len(kinds) // 2)
    assert [each.index for each in events[::2]] == [*range(1, len(kinds) // 2 + 1)]
    assert [each.index for each in events[1::2]] == [*range(1, len(kinds) // 2 + 1)]
    return audio, events
