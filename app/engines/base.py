"""The interface between the server and any speech engine.

An engine is a family of models behind one module of ``app/engines``. It knows nothing of HTTP, NLS,
processes or other engines. It runs inside a worker process (``app/serving/worker``): ``step`` is
called from one thread, one call at a time; ``open``, ``configure`` and ``close`` are quick and come
from another thread, also while a step runs, but never for a stream that is part of that step
(except ``configure``, which then counts from the next step). Services read the capabilities and
compose what is missing, so an engine declares only what it really does.

Audio into a recogniser is mono float32 in [-1, 1] at ``capabilities.sample_rate``, shape (n,).
Audio out of a synthesiser is mono int16 at ``capabilities.sample_rate``, shape (n,).

Errors: an engine raises a :class:`app.core.errors.SpeechError` for what the client can change
(unknown voice, unusable text) and any other exception for its own failures; the worker then fails
that task only, with a fixed text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import msgspec

from app.audio.pcm import Float32, Int16
from app.core.speech import Mark, RecognitionEvent, RecognitionOptions, Utterance, Voice, Word

MAX_PADDING: Final = 0.25
"""Share of a batch of whole sentences that may be padding: more is better done in two batches."""

Progress = Callable[[str], None]
"""Called by a factory while loading, with what it is doing; each call extends the deadline of the
start."""


class RecognizerCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a recogniser can do.

    ``step_ms``: the audio that one step wants from each stream (the last step may have less).
    ``partials``: hypotheses before the end of a sentence. ``word_times``: words with times.
    ``own_endpointing``: it cuts sentences itself (:class:`EndpointingRecognizer`); otherwise the
    service does, with its VAD (:class:`SentenceRecognizer`).
    ``max_sessions``: streams that one replica accepts; None: as many as its device carries, which
    the worker measures when it starts. ``max_sentences``: sentences that may be open at once
    (decoder states); others wait for a free one. ``max_batch``: streams in one step, None for no
    limit. ``tags``: its sentences come with language, emotion or events. ``device``: where it runs,
    if the choice was its own. ``notice``: for people, what this engine is good for, in one
    sentence.
    """

    sample_rate: int
    languages: tuple[str, ...]
    step_ms: int
    partials: bool
    word_times: bool
    own_endpointing: bool
    max_sessions: int | None
    max_sentences: int
    max_batch: int | None = None
    hotwords: bool = False
    punctuation: bool = False
    inverse_text_normalization: bool = False
    confidence: bool = False
    tags: bool = False
    device: str = ""
    notice: str = ""


class OfflineCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an offline recogniser can do; see :class:`RecognizerCapabilities`.

    ``max_batch_s``: audio (seconds, padding included) that one call should get at most; a single
    longer segment is still taken. ``max_segment_s``: longest segment that it is good for.
    """

    sample_rate: int
    languages: tuple[str, ...]
    word_times: bool
    max_batch_s: float
    max_segment_s: float = 60.0
    hotwords: bool = False
    punctuation: bool = False
    inverse_text_normalization: bool = False
    confidence: bool = False
    tags: bool = False


class SynthesizerCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a synthesiser can do.

    ``voices``: its presets. ``any_voice``: it takes names beyond those (and raises
    ``UnknownVoice`` itself). ``exact_speed``, ``exact_pitch``, ``exact_volume``: it applies that
    option of the utterance itself, within 1 %; the caller applies the others to the audio.
    ``normalizes_text``: it reads numbers and dates itself. ``marks``: it reports character times.
    ``max_parallel``: utterances that it may synthesise at the same time (each in its own thread).
    ``ms_per_character``: time it takes for one, roughly: until it has been measured, admission goes
    by it.
    """

    sample_rate: int
    languages: tuple[str, ...]
    voices: tuple[Voice, ...]
    any_voice: bool = False
    exact_speed: bool = False
    exact_pitch: bool = False
    exact_volume: bool = False
    normalizes_text: bool = False
    marks: bool = False
    max_parallel: int = 1
    ms_per_character: float = 10.0
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The text of a sentence so far; word times in ms from the first sample of its stream.

    ``language``, ``emotion`` and ``events`` (laughter, applause …) are names in lower case, as in
    :class:`app.core.speech.SentenceEnded`. ``finished``: the text has the punctuation and the
    figures that the options ask for; nothing is to be added.
    """

    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    language: str | None = None
    emotion: str | None = None
    events: tuple[str, ...] = ()
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Feed:
    """One stream's part of a step: new samples, and whether they are its last.

    ``samples`` has ``step_ms`` of audio, or less (even none) when ``last``. ``stream`` is what
    ``open`` returned.
    """

    stream: object
    samples: Float32
    last: bool


class SentenceRecognizer(Protocol):
    """A recogniser whose streams are single sentences; the service finds their borders."""

    @property
    def capabilities(self) -> RecognizerCapabilities:
        """Constant for the life of the object. Any thread."""
        ...

    def open(self, options: RecognitionOptions) -> object:
        """A new stream. At most ``max_sentences`` are open at once; the caller sees to that."""
        ...

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis | Exception]:
        """Take in the audio of all given streams, and return each one's hypothesis, in order.

        Where one stream fails, its exception stands in the place of its hypothesis; the caller
        closes it, and the others go on. An exception that is raised fails all of the step.

        A stream occurs at most once in a batch. After a feed with ``last`` its hypothesis is
        final and the stream is closed.
        """
        ...

    def close(self, stream: object) -> None:
        """Give up a stream before its last feed. Closing a closed stream does nothing."""
        ...


class EndpointingRecognizer(Protocol):
    """A recogniser whose streams are whole tasks, and that finds the sentences itself."""

    @property
    def capabilities(self) -> RecognizerCapabilities:
        """Constant for the life of the object. Any thread."""
        ...

    def open(self, options: RecognitionOptions) -> object:
        """A new stream. At most ``max_sessions`` are open at once; the caller sees to that."""
        ...

    def step(self, batch: Sequence[Feed]) -> Sequence[Sequence[RecognitionEvent] | Exception]:
        """Take in the audio of all given streams, and return each one's new events, in order.
        Failures as in :meth:`SentenceRecognizer.step`.

        A stream occurs at most once in a batch. A feed with ``last`` ends an open sentence and
        closes the stream.
        """
        ...

    def configure(self, stream: object, max_sentence_silence_ms: int) -> None:
        """Change the end-of-sentence silence of a running stream."""
        ...

    def close(self, stream: object) -> None:
        """Give up a stream before its last feed. Closing a closed stream does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """A whole sentence: its audio, shape (n,), and what its task asks for."""

    samples: Float32
    options: RecognitionOptions


class OfflineRecognizer(Protocol):
    """A recogniser that hears sentences whole: the second pass of a stream, or the only one."""

    @property
    def capabilities(self) -> OfflineCapabilities:
        """Constant for the life of the object. Any thread."""
        ...

    def recognize(self, batch: Sequence[Segment]) -> Sequence[Hypothesis | Exception]:
        """Each segment's hypothesis, in order; an exception in the place of one that failed.

        What a segment gives does not depend on the others. One thread, one call at a time.
        """
        ...


class Punctuator(Protocol):
    """Puts punctuation into text that has none."""

    def punctuate(self, texts: Sequence[str]) -> Sequence[str]:
        """Each text with punctuation, in order; empty ones stay empty.

        What a text gives does not depend on the others. One thread, one call at a time.
        """
        ...


class VoiceDetector(Protocol):
    """Speech probabilities for many streams in one call, at 16 kHz."""

    @property
    def window_samples(self) -> int:
        """Samples per probability."""
        ...

    def new_state(self) -> object:
        """What it remembers of one new stream. Any thread."""
        ...

    def probabilities(self, states: Sequence[object], windows: Float32) -> Float32:
        """The probability of speech in the next window of each stream, shape (n,).

        ``windows``: float32 in [-1, 1], shape (n, ``window_samples``), the i-th for the i-th state.
        A stream's own result does not depend on the others. One thread, one call at a time.
        """
        ...


@dataclass(frozen=True, slots=True)
class RecognizerParts:
    """A recogniser in parts, for the worker to put together (``app/serving/worker``).

    ``capabilities`` are those of the whole. ``streaming``: the first pass, for interim results and,
    without ``offline``, the final ones; None: there are no interim results. ``offline``: the second
    pass, or the only one. At least one of the two is there. ``punctuator``: for final texts of a
    part that has no punctuation itself. ``partial_punctuator``: for interim ones; None: they have
    none. ``detector``: the VAD; None: the server's own.
    """

    capabilities: RecognizerCapabilities
    streaming: SentenceRecognizer | None
    offline: OfflineRecognizer | None = None
    punctuator: Punctuator | None = None
    partial_punctuator: Punctuator | None = None
    detector: VoiceDetector | None = None


Recognizer = SentenceRecognizer | EndpointingRecognizer | RecognizerParts


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of an utterance's audio, and the marks that fall into it (ms from the utterance's
    start)."""

    samples: Int16
    marks: tuple[Mark, ...] = ()


class Synthesizer(Protocol):
    """A synthesiser."""

    @property
    def capabilities(self) -> SynthesizerCapabilities:
        """Constant for the life of the object. Any thread."""
        ...

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        """Speak one utterance, piece by piece, as early as possible.

        Runs in a thread of its own, at most ``max_parallel`` at once. Closing the iterator (a
        ``GeneratorExit`` at a ``yield``) cancels: the engine stops its work before the next piece
        and frees what it holds.

        Raises:
            UnknownVoice: the utterance's voice is not one of this engine's.
        """
        ...


class SpeakerEmbedderCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a speaker embedder works with. ``sample_rate``: Hz of the audio that it takes.
    ``dimension``: how many numbers an embedding has."""

    sample_rate: int
    dimension: int


class SpeakerEmbedder(Protocol):
    """Turns speech into numbers that are alike for the same person."""

    @property
    def capabilities(self) -> SpeakerEmbedderCapabilities:
        """Constant for the life of the object. Any thread."""
        ...

    def embed(self, samples: Float32) -> Float32:
        """The embedding of one person's speech, float32 in [-1, 1], shape (n,): of shape
        (``dimension``,) and L2-normalised, so that the dot product of two is their cosine
        similarity. One thread, one call at a time.

        Raises:
            BadAudio: it is too short, or there is nothing to be heard.
        """
        ...


@runtime_checkable
class EngineFamily(Protocol):
    """What a module of ``app/engines`` offers to the registry, as its attribute ``FAMILY``.

    ``settings`` are the server's settings whose names begin with the family's own, as
    ``{"FAKE_ASR_DELAY_MS": 0, …}``, those of all engines, and ``REPLICAS``, how many workers of
    this half there are. ``device`` is ``cpu``, ``cuda:0`` (the worker has made the chosen card the
    first one), or ``auto``: the first card if there is one.
    """

    def recognizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Recognizer:
        """Load the recogniser. Slow and blocking; raises ``EngineNotUsable``."""
        ...

    def synthesizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Synthesizer:
        """Load the synthesiser. Slow and blocking; raises ``EngineNotUsable``."""
        ...
