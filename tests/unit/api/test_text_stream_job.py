"""A text in pieces on its way from the session to the service: what comes before the service has
granted the task waits in order, and nothing reaches a task that is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from app.api.nls_jobs import TextStreamJob
from app.core.errors import Overloaded, SpeechError
from app.core.speech import SpeechBegan, SpeechEvent, SynthesisRequest
from app.nls.outputs import FinishText, FlushText, Output, Say


class Service:
    """Grants when told so; then says what it was given, and ends when it is told to finish."""

    def __init__(self) -> None:
        self.grants = asyncio.Event()
        self.refusal: SpeechError | None = None
        self.asked: list[str] = []
        self.finished = asyncio.Event()
        self.closed = False

    @asynccontextmanager
    async def open(self, request: SynthesisRequest) -> AsyncIterator[Service]:
        await self.grants.wait()
        if self.refusal is not None:
            raise self.refusal
        try:
            yield self
        finally:
            self.closed = True

    def say(self, text: str) -> None:
        self.asked.append(text)

    def flush(self) -> None:
        self.asked.append("(flush)")

    def finish(self) -> None:
        self.asked.append("(finish)")
        self.finished.set()

    async def events(self) -> AsyncGenerator[bytes | SpeechEvent, None]:
        yield SpeechBegan(index=1, text_index=0, text="a")
        yield b"audio"
        await self.finished.wait()


class Session:
    """Notes what is reported."""

    task_id, namespace, closed = "id", "FlowingSpeechSynthesizer", False

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def report(*arguments: Any) -> list[Output]:
            self.reports.append((name, *arguments[:-1]))
            return []

        return report


class Driver:
    ids: dict[str, str] = {}  # noqa: RUF012 - a stand-in that nobody changes

    def __init__(self, service: Service) -> None:
        self.doors: Any = SimpleNamespace(synthesis=service)
        self.session: Any = Session()

    def now(self) -> float:
        return 0.0

    def apply(self, outputs: list[Output]) -> None:
        pass

    async def drained(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def job(service: Service) -> TextStreamJob:
    return TextStreamJob(Driver(service), SynthesisRequest(text="", voice="v"))


async def run(job: TextStreamJob) -> asyncio.Task[None]:
    task = asyncio.create_task(job.run(after=None))
    job.begin(task)
    await asyncio.sleep(0)
    return task


async def test_what_comes_early_waits_in_order(service: Service, job: TextStreamJob) -> None:
    running = await run(job)
    for command in (Say("a"), Say("a"), FlushText(), Say("b")):
        job.take(command)
    assert service.asked == []
    service.grants.set()
    await asyncio.sleep(0)
    job.take(Say("c"))  # while Started is on its way
    job.take(FinishText())
    await running
    assert service.asked == ["a", "a", "(flush)", "b", "c", "(finish)"]
    session: Any = job._driver.session
    assert [report[0] for report in session.reports] == ["opened", "speech", "audio", "finished"]
    assert session.reports[2] == ("audio", b"audio")
    assert service.closed


async def test_flushes_that_wait_take_no_memory(service: Service, job: TextStreamJob) -> None:
    running = await run(job)
    job.take(Say("a"))
    for _ in range(1000):
        job.take(FlushText())
    assert len(job._intake) == 2
    job.take(FinishText())
    service.grants.set()
    await running
    assert service.asked == ["a", "(flush)", "(finish)"]


async def test_a_refusal_is_reported(service: Service, job: TextStreamJob) -> None:
    running = await run(job)
    job.take(Say("a"))
    service.refusal = Overloaded("full")
    service.grants.set()
    await running
    job.take(Say("b"))  # too late, and harmless
    session: Any = job._driver.session
    assert session.reports == [("failed", service.refusal)]
    assert service.asked == []


async def test_an_abandoned_job_leaves_nothing(service: Service, job: TextStreamJob) -> None:
    running = await run(job)
    service.grants.set()
    session: Any = job._driver.session
    while not any(report[0] == "audio" for report in session.reports):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0)
    job.abandon()
    job.take(Say("late"))
    await asyncio.wait([running])
    assert running.cancelled()
    assert service.closed
    assert service.asked == []
    assert session.reports[-1][0] == "audio"
