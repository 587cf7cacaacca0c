"""Speech from a text, sentence by sentence as the runtime finishes them.

The runtime gives out what it has spoken at the borders that it finds itself. Melo and VITS: every
comma and full stop. Kokoro, Matcha and ZipVoice: commas and full stops too, but clauses of fewer
than about six characters are joined to the next, and after 20 Chinese characters (or 40 words) a
long one is cut (2.0.1, seen). That brings the first audio as early as cutting at commas here would,
and keeps its own view of what belongs together; so a text is only cut here where it is longer than
:data:`MOST_CHARACTERS`, which also bounds what cannot be cancelled.

Speed is left to the caller: the models round the length of each phone to whole frames after they
have divided by it, and VITS's lengths are random, so it would not be exact.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import sherpa_onnx

from app.audio.pcm import Float32, to_int16
from app.audio.wav_samples import bounded
from app.core.errors import EngineNotUsable, InvalidText, UnknownVoice
from app.core.speech import Utterance, Voice
from app.engines.base import Piece, Progress, SynthesizerCapabilities
from app.engines.sherpa.clones import Clone, read_clones
from app.engines.sherpa.folder import refusals
from app.engines.sherpa.pronounceable import Reader
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.voice_kinds import VoiceKind, VoiceModel
from app.engines.sherpa.voices import speakers_of, tags_of
from app.text.sentences import split_sentences

MOST_CHARACTERS: Final = 100
"""Of a text that the runtime gets in one call."""

NOT_IN_LEXICON: Final = "The voice cannot say any word of this text: its model does not know them."

_WAITING: Final = 2
"""Pieces between the runtime and a slow reader."""
_STEPS: Final = 4
"""Of ZipVoice's flow: what its distilled models are made for."""
_PARALLEL: Final = 2
"""Utterances that the runtime was seen to speak at once, each rightly."""

_MS_PER_CHARACTER: Final[dict[VoiceKind, float]] = {
    "Kokoro": 100.0,
    "Matcha": 30.0,
    "Melo": 70.0,
    "VITS": 30.0,
    "ZipVoice": 150.0,
}
"""Rough guesses for two threads."""

Callback = Callable[[Float32, float], int]
Speak = Callable[[str, Callback], object]
"""The runtime in one voice: it calls back with each piece as it is done, and goes on if that gives
1, and stops if it gives 0."""


class SherpaSynthesizer:
    """An :class:`app.engines.base.Synthesizer` over an ``OfflineTts``.

    ``voices``: how each is spoken in. ``tags``: the languages that the model reads.
    """

    def __init__(
        self,
        model: VoiceModel,
        voices: Sequence[tuple[Voice, Speak]],
        tags: Sequence[str],
        notice: str,
    ) -> None:
        self._reader = Reader(model.lexicon)
        self._speak: Mapping[str, Speak] = {voice.name: speak for voice, speak in voices}
        languages = (*tags, *(voice.language for voice, _ in voices))
        self._capabilities = SynthesizerCapabilities(
            sample_rate=model.sample_rate,
            languages=tuple(dict.fromkeys(languages)),
            voices=tuple(voice for voice, _ in voices),
            # ZipVoice's utterances share a generator of noise.
            max_parallel=1 if model.kind == "ZipVoice" else _PARALLEL,
            ms_per_character=_MS_PER_CHARACTER[model.kind],
            notice=notice,
        )

    @property
    def capabilities(self) -> SynthesizerCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def synthesize(self, utterance: Utterance) -> Iterator[Piece]:
        """Speak, a piece for each sentence or clause. A text with nothing to say has no piece.

        Closing waits for the sentence that the runtime is at.

        Raises:
            UnknownVoice: there is no such voice.
            InvalidText: there are letters in the text, but no word that the lexicon has.
        """
        speak = self._speak.get(utterance.voice)
        if speak is None:
            raise UnknownVoice
        sentences = split_sentences(utterance.text, MOST_CHARACTERS)
        parts = [self._reader.readable(sentence) for sentence in sentences]
        return self._pieces(parts, speak)

    def _pieces(self, parts: Sequence[str], speak: Speak) -> Iterator[Piece]:
        if not parts:
            return
        silent = True
        # Of a part that it does not know, the runtime would write the text to the standard error.
        known = [part for part in parts if self._reader.knows(part)]
        with closing(_Speech(speak, known)) as speech:
            for samples in speech:
                if samples.size:
                    silent = False
                    yield Piece(to_int16(bounded(samples)))
        if silent:
            raise InvalidText(NOT_IN_LEXICON)


@dataclass(frozen=True, slots=True)
class _Over:
    """The runtime has come to the end, or has failed."""

    error: Exception | None


class _Speech:
    """An utterance that is being spoken, in a thread that ends with :meth:`close`.

    The runtime calls back in the middle of its work, so it needs a thread of its own.
    """

    def __init__(self, speak: Speak, parts: Iterable[str]) -> None:
        self._speak = speak
        self._parts = parts
        self._pieces: queue.Queue[Float32 | _Over] = queue.Queue(_WAITING)
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sherpa-speech")
        self._thread.start()

    def __iter__(self) -> Iterator[Float32]:
        """The pieces, as they come. Raises what the runtime raises."""
        while not isinstance(piece := self._pieces.get(), _Over):
            yield piece
        if piece.error is not None:
            raise piece.error

    def close(self) -> None:
        """Stop after the sentence that is being spoken, and wait until then."""
        self._given_up.set()
        # The thread waits for room at most once more, and for its end: then it looks.
        while not self._pieces.empty():
            self._pieces.get_nowait()
        self._thread.join()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            for part in self._parts:
                if self._given_up.is_set():
                    break
                self._speak(part, self._take)
        except Exception as caught:
            error = caught
        self._pieces.put(_Over(error))

    def _take(self, samples: Float32, _progress: float) -> int:
        if not self._given_up.is_set():
            self._pieces.put(samples)
        return 0 if self._given_up.is_set() else 1


# Loading


def load_synthesizer(
    model: VoiceModel, options: SherpaOptions, progress: Progress
) -> SherpaSynthesizer:
    """The synthesiser of a model. Slow and blocking.

    Raises:
        EngineNotUsable: the runtime refuses the model.
    """
    name = model.folder.name
    progress(f"loading {name}")
    with refusals(model.folder):
        runtime = _runtime(model, options)
    tags, notice = tags_of(model), f"{name}; on the CPU"
    if model.kind != "ZipVoice":
        voices = [(each.voice, _by_number(runtime, each.number)) for each in speakers_of(model)]
        return SherpaSynthesizer(model, voices, tags, notice)
    progress("reading the voices")
    clones = [
        (clone.voice, _like(runtime, clone, model.sample_rate))
        for clone in read_clones(options.voices_dir, model.sample_rate, Reader(model.lexicon))
    ]
    if not clones:
        notice += "; it has no voice yet: put NAME.wav and NAME.txt into VOICES_DIR, then restart"
    return SherpaSynthesizer(model, clones, tags, notice)


def _runtime(model: VoiceModel, options: SherpaOptions) -> Any:
    files = {name: str(path) for name, path in model.files.items()}
    files |= {"tokens": str(model.tokens), "lexicon": model.lexicon.option}
    kinds = sherpa_onnx.OfflineTtsModelConfig(num_threads=options.voice_threads, provider="cpu")
    if model.kind == "Kokoro":
        kinds.kokoro = sherpa_onnx.OfflineTtsKokoroModelConfig(**files)
    elif model.kind == "Matcha":
        kinds.matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(**files)
    elif model.kind == "ZipVoice":
        kinds.zipvoice = sherpa_onnx.OfflineTtsZipvoiceModelConfig(**files)
    else:
        kinds.vits = sherpa_onnx.OfflineTtsVitsModelConfig(**files)
    # The runtime calls back after each sentence.
    config = sherpa_onnx.OfflineTtsConfig(model=kinds, max_num_sentences=1)
    if not config.validate():
        raise EngineNotUsable(f"{model.folder}: the runtime refuses its files")
    return sherpa_onnx.OfflineTts(config)


def _by_number(runtime: Any, number: int) -> Speak:
    def speak(text: str, callback: Callback) -> object:
        return runtime.generate(text, sid=number, speed=1.0, callback=callback)

    return speak


def _like(runtime: Any, clone: Clone, sample_rate: int) -> Speak:
    config = sherpa_onnx.GenerationConfig()
    config.reference_audio = clone.samples.tolist()
    config.reference_sample_rate = sample_rate
    config.reference_text = clone.text
    config.num_steps = _STEPS

    def speak(text: str, callback: Callback) -> object:
        return runtime.generate(text, config, callback=callback)

    return speak
