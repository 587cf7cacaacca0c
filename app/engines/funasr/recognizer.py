"""The first pass: sentences as streams of the batched streaming Paraformer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions, Word
from app.engines.base import Feed, Hypothesis, Progress, RecognizerCapabilities
from app.engines.funasr import checkpoint
from app.engines.funasr.executor import (
    Chunking,
    EagerForward,
    Executor,
    Forward,
    Heard,
    Part,
)
from app.engines.funasr.features import SAMPLE_RATE, WIDTH
from app.engines.funasr.graphs import SIZES, FixedForward, check_card
from app.engines.funasr.hotwords import Automata, Search, Weighted, read_syllables
from app.engines.funasr.settings import FunasrOptions
from app.engines.funasr.streaming import load_model
from app.engines.funasr.times import TokenClock
from app.engines.funasr.tokens import LANGUAGES, NO_TEXT, TokenList

CHUNKINGS: Final = {600: Chunking(10, 5), 480: Chunking(8, 4), 300: Chunking(5, 5)}
"""By the milliseconds of a chunk; FunASR's chunk_size [0, 10, 5], [0, 8, 4] and [0, 5, 5]."""

_SLOTS_ON_CPU: Final = 256
_MOST_SLOTS: Final = 2048
_SHARE_FOR_SLOTS: Final = 0.5
"""Of a card's memory that is free once the model is there; the second pass wants some, too."""

_NOTHING: Final = np.empty(0, np.float32)


class DamagedAudio(Exception):
    """A stream's audio, or what became of it, has a NaN or is infinite."""


class _Stream:
    """One sentence. ``slot`` is None once it is closed. ``search``: chooses among the tokens where
    there are hotwords; without it the best ones are the text."""

    def __init__(self, slot: int, clock: TokenClock | None, hotwords: Weighted) -> None:
        self.slot: int | None = slot
        self.fresh = True
        self.stepping = False
        self.given_up = False
        self.samples = 0
        self.ids: list[int] = []
        self.hotwords = hotwords
        self.search: Search | None = None
        self.clock = clock
        self.times: list[tuple[int, int]] = []
        self.margin = 1.0

    def take(self, heard: Heard) -> None:
        """Add what a forward gave."""
        self.margin = min(self.margin, heard.margin)
        times = self.clock.chunk(heard.shares, len(heard.ids)) if self.clock else []
        kept = [i for i, token in enumerate(heard.ids) if token not in NO_TEXT]
        if self.search is not None and heard.choices is not None:
            self.ids = self.search.take(heard.choices.ids[kept], heard.choices.scores[kept])
        else:
            self.ids += [heard.ids[i] for i in kept]
        if times:
            self.times += [times[i] for i in kept]


class StreamingRecognizer:
    """An :class:`app.engines.base.SentenceRecognizer`.

    ``open`` and ``close`` only lend slots and take them back, under a lock, and touch nothing of
    the model, so they may come from any thread while a step runs; a slot is cleared in the first
    step of its next stream. ``automata``: of hotwords; without them none are taken. ``threads``: of
    the CPU for a step; 0 leaves torch's own number.
    """

    def __init__(
        self,
        forward: Forward,
        chunking: Chunking,
        tokens: TokenList,
        *,
        slots: int,
        max_batch: int | None = None,
        threads: int = 0,
        automata: Automata | None = None,
    ) -> None:
        self._forward = forward
        self._chunking = chunking
        self._tokens = tokens
        self._automata = automata
        self._threads = threads
        self._thread: int | None = None
        self._lock = threading.Lock()
        self._free = list(reversed(range(slots)))
        self._capabilities = RecognizerCapabilities(
            sample_rate=SAMPLE_RATE,
            languages=LANGUAGES,
            step_ms=chunking.samples * 1000 // SAMPLE_RATE,
            partials=True,
            word_times=True,
            own_endpointing=False,
            max_sessions=None,
            max_sentences=slots,
            max_batch=max_batch,
            hotwords=automata is not None,
        )

    @property
    def capabilities(self) -> RecognizerCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def open(self, options: RecognitionOptions) -> object:
        """A new sentence.

        Raises:
            RuntimeError: ``max_sentences`` are open.
        """
        clock = TokenClock(self._chunking.rows, self._chunking.right) if options.words else None
        with self._lock:
            if not self._free:
                raise RuntimeError("all slots are lent")
            return _Stream(self._free.pop(), clock, options.hotwords)

    def close(self, stream: object) -> None:
        """Give up the sentence, if it is still open; one in a running step, after that step."""
        if isinstance(stream, _Stream):
            with self._lock:
                if stream.stepping:
                    stream.given_up = True
                else:
                    self._give_back(stream)

    def step(self, batch: Sequence[Feed]) -> list[Hypothesis | Exception]:
        """One forward for all of the streams; a whole last chunk takes a second one, since the
        rules of the last rows are those of a chunk that is not whole."""
        self._claim_thread()
        answers: list[Hypothesis | Exception | None] = [self._enter(feed) for feed in batch]
        entered = [i for i, answer in enumerate(answers) if answer is None]
        streams = [self._stream(batch[i]) for i in entered]
        done = False
        try:
            failures = self._hear([batch[i] for i in entered], streams)
            done = True
        finally:
            ended = [
                not done or batch[i].last or streams[k] in failures for k, i in enumerate(entered)
            ]
            self._leave(streams, ended)
        for i, stream in zip(entered, streams, strict=True):
            answers[i] = failures.get(stream) or self._hypothesis(stream)
        return [answer for answer in answers if answer is not None]

    def margin(self, stream: object) -> float:
        """How close the closest decision of the stream was, for tests: between the best two
        tokens, or of the predictor's sum to 1."""
        return self._stream(Feed(stream, _NOTHING, False)).margin

    # Slots

    def _enter(self, feed: Feed) -> Exception | None:
        """Take the stream into the step, or say why not."""
        stream = feed.stream
        if not isinstance(stream, _Stream):
            return TypeError("not a stream of this engine")
        whole = self._chunking.samples
        with self._lock:
            if stream.slot is None or stream.stepping:
                return RuntimeError("the stream is closed, or in the step already")
            if feed.samples.size > whole or (feed.samples.size < whole and not feed.last):
                return ValueError(f"{feed.samples.size} samples in place of {whole}")
            stream.stepping = True
        return None

    def _leave(self, streams: Iterable[_Stream], ended: Iterable[bool]) -> None:
        with self._lock:
            for stream, is_over in zip(streams, ended, strict=True):
                stream.stepping = False
                if is_over or stream.given_up:
                    self._give_back(stream)

    def _give_back(self, stream: _Stream) -> None:
        slot, stream.slot = stream.slot, None
        if slot is not None:
            self._free.append(slot)

    # Steps

    def _claim_thread(self) -> None:
        """torch counts its threads by calling thread."""
        if self._threads and self._thread != threading.get_ident():
            torch.set_num_threads(self._threads)
            self._thread = threading.get_ident()

    def _hear(self, feeds: Sequence[Feed], streams: Sequence[_Stream]) -> dict[_Stream, Exception]:
        """The audio through the model; the streams that failed, each with its reason."""
        audio = self._checked(feeds)
        failures: dict[_Stream, Exception] = {
            stream: DamagedAudio("the audio has samples that are no numbers")
            for stream, samples in zip(streams, audio, strict=True)
            if samples is None
        }
        whole = self._chunking.samples
        first: list[tuple[_Stream, Float32, bool]] = []
        second: list[tuple[_Stream, Float32, bool]] = []
        for feed, stream, samples in zip(feeds, streams, audio, strict=True):
            if samples is None:
                continue
            ends_whole = feed.last and samples.size == whole
            first.append((stream, samples, feed.last and not ends_whole))
            if ends_whole:
                second.append((stream, _NOTHING, True))
        failures |= self._run(first)
        failures |= self._run([part for part in second if part[0] not in failures])
        return failures

    @staticmethod
    def _checked(feeds: Sequence[Feed]) -> list[Float32 | None]:
        """Each one's samples, clipped to [-1, 1]; None where one is NaN or infinite."""
        if not feeds:
            return []
        joined = np.concatenate([feed.samples for feed in feeds], dtype=np.float32)
        ends = np.cumsum([feed.samples.size for feed in feeds])
        bad = np.flatnonzero(~np.isfinite(joined))
        damaged = set(np.searchsorted(ends, bad, side="right").tolist())
        np.clip(joined, -1.0, 1.0, out=joined)
        parts = np.split(joined, ends[:-1])
        return [None if i in damaged else part for i, part in enumerate(parts)]

    def _run(self, work: Sequence[tuple[_Stream, Float32, bool]]) -> dict[_Stream, Exception]:
        failures: dict[_Stream, Exception] = {}
        size = self._forward.most_parts
        for begin in range(0, len(work), size):
            now = work[begin : begin + size]
            parts = [self._part(stream, samples, last) for stream, samples, last in now]
            for (stream, samples, _), heard in zip(now, self._forward(parts), strict=True):
                stream.fresh = False
                stream.samples += samples.size
                if heard.sound:
                    stream.take(heard)
                else:
                    failures[stream] = DamagedAudio("the model found no numbers for this audio")
        return failures

    def _part(self, stream: _Stream, samples: Float32, last: bool) -> Part:
        if stream.slot is None:
            raise RuntimeError("the stream is closed")
        if stream.fresh and stream.hotwords and self._automata is not None:
            # Not when it was opened: a long list takes its time, and this thread has it.
            automaton = self._automata.automaton(stream.hotwords)
            stream.search = None if automaton is None else Search(automaton)
        choices = stream.search is not None
        return Part(stream.slot, stream.fresh, samples, last, choices)

    # Results

    @staticmethod
    def _stream(feed: Feed) -> _Stream:
        if not isinstance(feed.stream, _Stream):
            raise TypeError("not a stream of this engine")
        return feed.stream

    def _hypothesis(self, stream: _Stream) -> Hypothesis:
        return Hypothesis(self._tokens.text(stream.ids), self._words(stream))

    def _words(self, stream: _Stream) -> tuple[Word, ...]:
        if stream.clock is None:
            return ()
        heard_ms = stream.samples * 1000 // SAMPLE_RATE
        return tuple(
            Word(
                word.text,
                min(stream.times[word.first][0], heard_ms),
                min(stream.times[word.last][1], heard_ms),
            )
            for word in self._tokens.words(stream.ids)
        )


def load_streaming(
    folder: Path, device: str, options: FunasrOptions, progress: Progress
) -> StreamingRecognizer:
    """The streaming Paraformer in ``folder`` on ``device`` (``cpu`` or ``cuda:0``).

    Raises:
        EngineNotUsable: the files or the settings are not usable.
    """
    options.check_device(device)
    check_card(device)
    progress("loading the streaming model")
    model, names = load_model(folder)
    normalisation = checkpoint.read_normalisation(folder, WIDTH)
    model.cast(options.dtype)
    model.to(device)
    chunking = CHUNKINGS[options.chunk_ms]
    on_cpu = device == "cpu"

    def executor_of(slots: int, most_streams: int) -> Executor:
        return Executor(
            model,
            slots,
            chunking=chunking,
            normalisation=normalisation,
            device=device,
            dtype=options.dtype,
            most_streams=most_streams,
        )

    slots = options.slots or (
        _SLOTS_ON_CPU if on_cpu else _fitting_slots(executor_of(1, 1).bytes_per_slot)
    )
    most = min(options.max_batch or slots, slots if on_cpu else SIZES[-1])
    executor = executor_of(slots, most)
    forward = EagerForward(executor) if on_cpu else FixedForward(executor, most, progress)
    return StreamingRecognizer(
        forward,
        chunking,
        TokenList(names),
        slots=slots,
        max_batch=options.max_batch or None,
        threads=options.threads if on_cpu else 0,
        automata=Automata(names, read_syllables(folder)),
    )


def _fitting_slots(bytes_per_slot: int) -> int:
    """As many as half of the card's free memory holds."""
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(_MOST_SLOTS, int(free * _SHARE_FOR_SLOTS) // bytes_per_slot))
