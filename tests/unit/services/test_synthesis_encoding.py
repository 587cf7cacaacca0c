"""The synthesis service and its encoders: pieces, threads, headers, and what a cancelled request
leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import cast

import numpy as np
import pytest
from av import AudioCodecContext

from app.audio.encode import ENCODABLE
from app.audio.encode_packets import PacketEncoder
from app.audio.pcm import Int16
from app.core.errors import EngineFailed
from app.core.speech import SynthesisRequest, Utterance, Voice
from app.engines.base import SynthesizerCapabilities
from app.services.encoding import MAX_PIECE_BYTES
from app.services.synthesis import SynthesisService
from app.serving.handles import SpeechHandle
from app.serving.pool import Pool
from app.voices.catalogue import VoiceCatalogue
from tests.support.decoded import decoded

RATE = 48_000
COMPRESSED = sorted({*ENCODABLE} - {"pcm", "wav", "ogg"})
HEADER_BYTES = {"wav": 44, "flac": 42, "opus": 100}

every_format = pytest.mark.parametrize("format", sorted({*ENCODABLE} - {"ogg"}))
every_compressed = pytest.mark.parametrize("format", COMPRESSED)


class Spoken:
    """Noise, which no encoder makes much smaller, in pieces of these numbers of samples; then the
    engine fails, if it is to."""

    sample_rate = RATE

    def __init__(self, sizes: list[int], fails: bool) -> None:
        self._sizes = sizes
        self._fails = fails

    async def pieces(self) -> AsyncGenerator[tuple[bytes, tuple[()]], None]:
        rng = np.random.default_rng(2)
        for size in self._sizes:
            await asyncio.sleep(0)
            yield rng.integers(-32_768, 32_768, size).astype(np.int16).tobytes(), ()
        if self._fails:
            raise EngineFailed

    def cancel(self) -> None:
        pass


class OnePool:
    def __init__(self, sizes: list[int], fails: bool) -> None:
        self._spoken = Spoken(sizes, fails)

    def ready(self, role: str) -> bool:
        return True

    async def wait_ready(self, role: str) -> None:
        pass

    def synthesizer(self) -> SynthesizerCapabilities:
        return SynthesizerCapabilities(sample_rate=RATE, languages=("en-US",), voices=())

    async def open_synthesis(
        self, utterance: Utterance, log_id: str, lead_s: float | None
    ) -> SpeechHandle:
        return cast(SpeechHandle, self._spoken)


class AnyVoice:
    def resolve(self, name: str | None) -> Voice:
        return Voice(name="v", language="en-US", gender="female")


@contextmanager
def service_of(*sizes: int, fails: bool = False) -> Iterator[SynthesisService]:
    pool = cast(Pool, OnePool(list(sizes), fails))
    service = SynthesisService(pool, cast(VoiceCatalogue, AnyVoice()), 2)
    try:
        yield service
    finally:
        service.close()
        # A thread that is not quite through still holds what it worked on.
        service._executor.shutdown(wait=True)


def wanted(format: str, rate: int = RATE) -> SynthesisRequest:
    return SynthesisRequest(task_id="id", text="a", voice="v", format=format, sample_rate=rate)


async def spoken(service: SynthesisService, request: SynthesisRequest) -> list[bytes]:
    async with aclosing(service.speak(request)) as pieces:
        return [piece async for piece in pieces]


@every_format
async def test_pieces_are_bounded_and_none_is_empty(format: str) -> None:
    sizes = (1, 960, 300_000, 7, 48_000)
    with service_of(*sizes) as service:
        pieces = await spoken(service, wanted(format))
    assert all(0 < len(piece) <= MAX_PIECE_BYTES for piece in pieces)
    audio, rate = decoded(format, b"".join(pieces), RATE)
    assert 0 <= len(audio) / rate - sum(sizes) / RATE < 0.06


@every_format
async def test_a_header_never_goes_alone(format: str) -> None:
    """An engine that fails at once must not have begun an answer."""
    for sizes in [(), (1,), (960, 48_000)]:
        given = []
        with service_of(*sizes, fails=True) as service:
            async with aclosing(service.speak(wanted(format))) as pieces:
                with pytest.raises(EngineFailed):
                    async for piece in pieces:
                        given.append(piece)
        if given:
            assert sizes and len(given[0]) > HEADER_BYTES.get(format, 0)
        assert sum(sizes) < RATE or given


@every_format
async def test_whole_and_streamed_hold_the_same_audio(format: str) -> None:
    with service_of(10_000, 50_000) as service:
        whole = await service.whole(wanted(format))
        streamed = b"".join(await spoken(service, wanted(format)))
    if format == "mp3":
        assert whole.endswith(streamed) and len(whole) > len(streamed)
    elif format != "opus":  # whose streams are numbered
        assert whole[44:] == streamed[44:]
    audio, rate = decoded(format, whole, RATE)
    if format not in ("aac", "opu"):
        assert (len(audio), rate) == (60_000, RATE)


@every_compressed
async def test_encoding_has_threads(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    for name in ("_frame", "_packets", "_codec"):
        original = getattr(PacketEncoder, name)

        def noted(self: PacketEncoder, *args: object, original: object = original) -> object:
            threads.add(threading.current_thread().name)
            assert callable(original)
            return original(self, *args)

        monkeypatch.setattr(PacketEncoder, name, noted)
    with service_of(48_000) as service:
        await spoken(service, wanted(format, 11_025))
        await service.whole(wanted(format))
    assert threads
    assert all(name.startswith("synthesis_") for name in threads)


def codecs() -> int:
    # Not isinstance: that asks an object for its class, and some of other libraries warn.
    return sum(issubclass(type(each), AudioCodecContext) for each in gc.get_objects())


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@every_compressed
async def test_closed_in_the_middle_it_leaves_no_codec(format: str) -> None:
    """Nor does it leave one to the garbage collector."""
    with no_garbage_collection(), service_of(*[48_000] * 20) as service:
        before = codecs()
        async with aclosing(service.speak(wanted(format))) as pieces:
            assert await anext(pieces)
            assert codecs() == before + 1  # so the count sees what it must
        assert codecs() == before


@every_compressed
@pytest.mark.parametrize("whole", [False, True])
async def test_cancelled_while_it_encodes_it_leaves_no_codec(
    format: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, go_on = threading.Event(), threading.Event()
    feed = PacketEncoder.feed

    def held(self: PacketEncoder, samples: Int16) -> list[bytes]:
        encoding.set()
        assert go_on.wait(10)
        return feed(self, samples)

    monkeypatch.setattr(PacketEncoder, "feed", held)
    with no_garbage_collection(), service_of(*[48_000] * 20) as service:
        before = codecs()
        request = wanted(format)
        task = asyncio.create_task(service.whole(request) if whole else spoken(service, request))
        await asyncio.to_thread(encoding.wait, 10)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        go_on.set()
        service._executor.shutdown(wait=True)
        del task
        assert codecs() == before
