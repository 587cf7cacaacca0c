"""The socket between an API process and a worker."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.speech import RecognitionOptions, SentenceEnded, Word
from app.serving.link import MAX_MESSAGE_BYTES, Link
from app.serving.protocol import (
    Audio,
    Cancel,
    Load,
    OpenRecognition,
    Recognized,
    ToApi,
    ToWorker,
)


class End:
    """One end of a pair of links, and what came to it."""

    def __init__(self, incoming: Any, **options: Any) -> None:
        self.messages: list[Any] = []
        self.arrived = asyncio.Event()
        self.lost = asyncio.Event()
        self.link = Link(incoming, self._take, self.lost.set, **options)

    def _take(self, message: Any) -> None:
        self.messages.append(message)
        self.arrived.set()

    async def until(self, count: int) -> list[Any]:
        while len(self.messages) < count:
            self.arrived.clear()
            await self.arrived.wait()
        return self.messages


async def connect(api: End, worker: End) -> None:
    left, right = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: api.link, sock=left)
    await loop.create_connection(lambda: worker.link, sock=right)


async def test_messages_arrive_as_they_were_sent() -> None:
    api, worker = End(ToApi), End(ToWorker)
    await connect(api, worker)
    opened = OpenRecognition(7, RecognitionOptions(hotwords=(("开灯", 2.0),)), "log")
    api.link.send(opened)
    api.link.send(Audio(7, b"\0\1" * 1600), within_s=0.01)
    assert await worker.until(2) == [opened, Audio(7, b"\0\1" * 1600)]
    ended = Recognized(7, SentenceEnded(0, 10, "好", (Word("好", 0, 10),), 0.5))
    worker.link.send(ended)
    assert await api.until(1) == [ended]
    api.link.close()
    await worker.lost.wait()


async def test_a_message_at_once_takes_the_waiting_ones_with_it_in_order() -> None:
    api, worker = End(ToApi), End(ToWorker)
    await connect(api, worker)
    api.link.send(Audio(1, b"ab"), within_s=3600)
    api.link.send(Cancel(1))
    assert await worker.until(2) == [Audio(1, b"ab"), Cancel(1)]
    api.link.close()
    await worker.lost.wait()


async def test_before_flush_adds_to_the_write() -> None:
    api, worker = End(ToApi), End(ToWorker, before_flush=lambda: Load(3))
    await connect(api, worker)
    worker.link.send(Load(1))
    assert await api.until(2) == [Load(1), Load(3)]
    worker.link.close()
    await api.lost.wait()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_any_cut_of_the_bytes_gives_the_same_messages(cuts: list[int]) -> None:
    async def check() -> None:
        sent = [Audio(1, b"xy" * 9), Cancel(1), Audio(2, b""), Cancel(2)]
        recorder = _Recorder()
        writer = Link(ToApi, lambda message: None, lambda: None)
        writer.connection_made(recorder)
        for message in sent:
            writer.send(message)
        writer.close()
        reader = End(ToWorker)
        data, position, turn = bytes(recorder.written), 0, 0
        while position < len(data):
            size = cuts[turn % len(cuts)]
            reader.link.data_received(data[position : position + size])
            position += size
            turn += 1
        assert reader.messages == sent

    asyncio.run(check())


@pytest.mark.parametrize(
    "data", [(MAX_MESSAGE_BYTES + 1).to_bytes(4, "little") + b"x", b"\3\0\0\0\xc1\xc1\xc1"]
)
async def test_what_is_no_message_ends_the_link(data: bytes) -> None:
    left, right = socket.socketpair()
    worker = End(ToWorker)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: worker.link, sock=right)
    with left:
        left.sendall(data)
        await worker.lost.wait()
    assert worker.messages == []


class _Recorder(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def test_flushed_waits_until_the_socket_has_taken_everything() -> None:
    api, worker = End(ToApi), End(ToWorker)
    await connect(api, worker)
    assert worker.link._transport is not None
    await asyncio.wait_for(api.link.flushed(), 10)  # nothing waits
    worker.link._transport.pause_reading()
    for number in range(64):
        api.link.send(Audio(number, bytes(100_000)))
    waiting = asyncio.create_task(api.link.flushed())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    worker.link._transport.resume_reading()
    await asyncio.wait_for(waiting, 10)
    await worker.until(64)
    api.link.close()
    await worker.lost.wait()


async def test_nobody_waits_for_a_link_that_is_lost() -> None:
    api, worker = End(ToApi), End(ToWorker)
    await connect(api, worker)
    assert worker.link._transport is not None
    worker.link._transport.pause_reading()
    api.link.send(Audio(1, bytes(3_000_000)))
    waiting = asyncio.create_task(api.link.flushed())
    await asyncio.sleep(0)
    worker.link._transport.abort()
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(api.link.flushed(), 10)
