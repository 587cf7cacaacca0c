"""What a worker counts: how long streams wait for a step, and the sentences that the VAD finds."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Iterator, Sequence

import pytest
from prometheus_client import REGISTRY

from app.core.errors import SpeechError
from app.core.speech import RecognitionEvent, RecognitionOptions
from app.engines.base import Feed, Hypothesis, RecognizerCapabilities
from app.serving.batcher import Batcher
from app.serving.worker import stepper
from app.serving.worker.segmenting import SegmentingRecognition
from app.serving.worker.stepper import Stepper
from tests.support.loud_vad import LoudVad, parts_of
from tests.support.sound import Int16, joined, silence, tone

Figure = Callable[..., float]


@pytest.fixture
def added() -> Iterator[Figure]:
    """How much a figure of this process has grown in the test: name and labels to number."""
    before = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
    }

    def growth(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(f"funspeech_{name}", labels) or 0.0
        return now - before.get((f"funspeech_{name}", *sorted(labels.items())), 0.0)

    yield growth


async def test_queue_time_is_of_the_stream_that_waited_longest(
    added: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(stepper, "time", types.SimpleNamespace(monotonic=lambda: now))
    stepped: asyncio.Queue[list[str]] = asyncio.Queue()
    tested: Stepper[str] = Stepper(Batcher(2, 0.0), stepped.put, "test")
    tested.ready("gone", urgent=True)
    now = 1.0
    tested.ready("early", urgent=True)
    now = 3.0
    tested.ready("late")
    tested.ready("early")  # has more by now, and keeps its place
    tested.ready("left over")
    tested.discard("gone")
    now = 6.0
    running = asyncio.create_task(tested.run())
    assert await stepped.get() == ["early", "late"]
    assert await stepped.get() == ["left over"]
    while added("queue_seconds_count", service="test") < 2:  # noqa: ASYNC110 - no event for it
        await asyncio.sleep(0)
    assert added("queue_seconds_sum", service="test") == (6 - 1) + (6 - 3)

    now = 10.0
    tested.ready("gone", urgent=True)
    assert await stepped.get() == ["gone"]
    assert added("queue_seconds_sum", service="test") == 8
    running.cancel()


class Deaf:
    """A SentenceRecognizer that understands nothing."""

    capabilities = RecognizerCapabilities(
        sample_rate=16_000,
        languages=("en-US",),
        step_ms=100,
        partials=True,
        word_times=False,
        own_endpointing=False,
        max_sessions=10,
        max_sentences=10,
    )

    def open(self, options: RecognitionOptions) -> object:
        return object()

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis | Exception]:
        return [Hypothesis("")] * len(batch)

    def close(self, stream: object) -> None:
        pass


class Sink:
    def __init__(self) -> None:
        self.over = asyncio.Event()

    def recognized(self, event: RecognitionEvent) -> None:
        pass

    def processed(self, samples: int) -> None:
        pass

    def done(self) -> None:
        self.over.set()

    def failed(self, error: SpeechError) -> None:
        raise error


@pytest.mark.parametrize(
    ("audio", "ends", "speech_s"),
    [
        (joined(tone(1_000), silence(1_500)), {"silence": 1}, 1.0),
        (tone(1_000), {"end": 1}, 1.0),
        (tone(5_000), {"length": 2, "end": 1}, 5.0),
        (
            joined(tone(500), silence(1_000), tone(500), silence(1_000), tone(500)),
            {"silence": 2, "end": 1},
            1.5,
        ),
        (silence(1_000), {}, 0.0),
    ],
)
async def test_sentences_by_why_they_ended(
    added: Figure, audio: Int16, ends: dict[str, int], speech_s: float
) -> None:
    recognition = SegmentingRecognition(parts_of(Deaf()), LoudVad(), tick_s=0.0)
    running = asyncio.create_task(recognition.run())
    sink = Sink()
    stream = recognition.open(
        RecognitionOptions(max_sentence_silence_ms=800, max_sentence_ms=2_000), sink, "test"
    )
    stream.feed(audio)
    stream.end()
    await sink.over.wait()
    running.cancel()
    for end in ("silence", "length", "end", "engine"):
        assert added("sentences_total", end=end) == ends.get(end, 0), end
    window_s = 512 / 16_000
    assert added("speech_seconds_total") == pytest.approx(
        speech_s, abs=window_s * sum(ends.values())
    )
