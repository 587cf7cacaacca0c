"""A hundred tasks of all namespaces, mixed, on one socket: each gives back what it took."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import operator
import sys
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final, NamedTuple
from uuid import uuid4

import pytest
import uvloop

import app
from app.access.store import Store, open_store
from app.core.config import Config
from app.nls.namespaces import NAMESPACES
from tests.support.encoded import encoded
from tests.support.live import live_server
from tests.support.rawsocket import (
    ANSWER_TIMEOUT_S,
    BINARY,
    COMPLETED,
    PING,
    PONG,
    STARTS,
    STOPS,
    RawSocket,
    frame,
    message,
    opened,
)
from tests.support.sound import joined, silence, tone

OURS: Final = str(Path(app.__file__).parent)

SPEECH: Final = joined(tone(300), silence(300), tone(200), silence(300))
PCM: Final = SPEECH.tobytes()
MP3: Final = encoded("mp3", SPEECH, 16_000)
SSML: Final = '<speak>甲<break time="100ms"/><prosody rate="fast">乙。</prosody></speak>'

VARIANTS: Final[list[tuple[str, dict[str, object]]]] = [
    ("SpeechTranscriber", {}),
    (
        "SpeechTranscriber",
        {
            "format": "mp3",
            "enable_words": True,
            "enable_intermediate_result": True,
            "special_word_filter": {"filter_with_signed": {"word_list": ["heard"]}},
            "max_sentence_silence": 200,
        },
    ),
    ("SpeechRecognizer", {}),
    ("SpeechRecognizer", {"enable_voice_detection": True, "enable_intermediate_result": True}),
    ("SpeechSynthesizer", {"text": "甲乙。丙。"}),
    ("SpeechSynthesizer", {"text": SSML, "format": "wav", "sample_rate": 8000}),
    ("SpeechLongSynthesizer", {"text": "长。" * 10, "enable_subtitle": True}),
    ("SpeechLongSynthesizer", {"text": "a", "format": "mp3", "enable_aigc_tag": True}),
    ("FlowingSpeechSynthesizer", {"enable_subtitle": True}),
    ("FlowingSpeechSynthesizer", {"speech_rate": 500, "pitch_rate": 200}),
]
WARM_UP: Final = 7
WINDOW: Final = 3
"""Rounds of one task of each variant: a hundred tasks."""
TASKS: Final = WINDOW * len(VARIANTS)

SMALLEST: Final = 48
"""Bytes that any object takes which a task could leave behind."""

LOOKS: Final = 5


class Held(NamedTuple):
    """What the process has at a moment: objects by class, and bytes by the file of ours that asked
    for them."""

    objects: Counter[str]
    bytes_of: Counter[str]


@pytest.mark.slow
@pytest.mark.own_workers  # one socket is one API server's
def test_a_hundred_mixed_tasks_on_one_socket_leave_nothing(tmp_path: Path) -> None:
    """What is there after 70 tasks is compared with what is there after 100. A leak of one object
    a task makes that 30 objects more, or 30 times the bytes of the smallest one, and so fails; of
    our own classes there may not be one more. Most often nothing at all has grown.

    On uvloop, as the server: asyncio's loop keeps timers that were cancelled for a while.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        before, after = runner.run(_after_warm_up_and_after_all(tmp_path))
    objects, bytes_of = after.objects - before.objects, after.bytes_of - before.bytes_of
    ours = {kind: count for kind, count in objects.items() if kind.startswith("app.")}
    assert ours == {}
    assert objects.total() < TASKS, objects
    assert bytes_of.total() < TASKS * SMALLEST, bytes_of


async def _after_warm_up_and_after_all(folder: Path) -> tuple[Held, Held]:
    assert {namespace for namespace, _ in VARIANTS} == set(NAMESPACES)
    async with (
        live_server(folder, apis=1) as live,
        opened(live) as client,
        open_store(Config(data_dir=folder / "data")) as store,
    ):
        with traced():
            await rounds(client, WARM_UP)
            await saved(store, WARM_UP * len(VARIANTS))
            before = await held()
            await rounds(client, WINDOW)
            await saved(store, (WARM_UP + WINDOW) * len(VARIANTS))
            return before, await held()


async def rounds(client: RawSocket, count: int) -> None:
    """So many times a task of each variant, in another order each time; the last one is always the
    same, because the connection remembers it."""
    order = Random(count)
    first, *others = VARIANTS
    for _ in range(count):
        for namespace, options in [*order.sample(others, len(others)), first]:
            await whole(client, namespace, options)


async def whole(client: RawSocket, namespace: str, options: dict[str, object]) -> None:
    """A task from Start to Completed."""
    task_id = uuid4().hex

    def say(name: str, payload: object = None) -> str:
        return message(namespace, name, payload, task_id)

    await client.text(say(STARTS[namespace], options))
    if namespace == "FlowingSpeechSynthesizer":
        await client.text(*(say("RunSynthesis", {"text": text}) for text in "甲乙。丙"))
        await client.text(say("FlushText"), say(STOPS[namespace]))
    elif namespace in STOPS:
        audio = MP3 if options.get("format") == "mp3" else PCM
        await client.audio(*(audio[at : at + 3200] for at in range(0, len(audio), 3200)))
        await client.text(say(STOPS[namespace]))
    await client.send(frame(PING, b"x"))
    events, audio_bytes, ponged = Counter[str](), 0, False
    while not (ponged and COMPLETED[namespace] in events):
        got = await client.frame()
        if got.opcode == BINARY:
            audio_bytes += len(got.payload)
        elif got.opcode == PONG:
            ponged = True
        else:
            event = json.loads(got.payload)
            assert event["header"]["task_id"] == task_id, event
            assert event["header"]["status"] == 20000000, event
            events[event["header"]["name"]] += 1
    assert audio_bytes > 0 if "Synthesizer" in namespace else len(events) >= 2
    assert ("subtitles" in str(options)) <= (events["MetaInfo"] + events["SentenceSynthesis"] > 0)


@contextmanager
def traced() -> Iterator[None]:
    """Python tells where memory was taken, inside the block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


async def saved(store: Store, tasks: int) -> None:
    """Wait until the database has the usage of so many tasks: that is done every two seconds."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        while sum(row.used.tasks for row in await store.usage("0000", "9999")) < tasks:  # noqa: ASYNC110 - a database
            await asyncio.sleep(0.1)


async def held() -> Held:
    """The least at several moments: what is done regularly may be under way in some."""
    _held_now()  # the first look makes what looks need
    looks = []
    for _ in range(LOOKS):
        await asyncio.sleep(0.05)
        looks.append(_held_now())
    return Held(
        functools.reduce(operator.and_, (look.objects for look in looks)),
        functools.reduce(operator.and_, (look.bytes_of for look in looks)),
    )


def _held_now() -> Held:
    # The interpreter remembers, of up to 4,096 look-ups of attributes, the name too, and that may
    # be text that was made in a line of ours.
    sys._clear_type_cache()
    gc.collect()
    objects = Counter(f"{kind.__module__}.{kind.__name__}" for kind in map(type, _all_objects()))
    bytes_of = Counter[str]()
    for each in tracemalloc.take_snapshot().statistics("filename"):
        if each.traceback[0].filename.startswith(OURS):
            bytes_of[each.traceback[0].filename] += each.size
    return Held(objects, bytes_of)


def _all_objects() -> Iterator[object]:
    for each in gc.get_objects():
        # sqlite3 keeps up to 200 references to cursors that are gone.
        if type(each) is not weakref.ref or each() is not None:
            yield each
