"""Sentences as streams of a streaming recogniser, many in one call."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import sherpa_onnx

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Hypothesis, Progress, RecognizerCapabilities
from app.engines.sherpa.hotwords import Hotwords
from app.engines.sherpa.kinds import SAMPLE_RATE, FoundModel
from app.engines.sherpa.languages import languages_of
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.spelling import words_of

_LONGEST_STEP_MS: Final = 640
_USUAL_SCORE: Final = 2.0
"""Of a hotword without a weight; ours all have one."""


class DamagedAudio(Exception):
    """A stream's audio has a NaN or is infinite."""


class _Stream:
    """One sentence. ``native`` is made in its first step: a long list of hotwords takes its time.
    ``open``: it counts as one of the sentences that may be."""

    def __init__(self, options: RecognitionOptions) -> None:
        self.options = options
        self.native: Any = None
        self.samples = 0
        self.open = True
        self.stepping = False
        self.given_up = False


class StreamingRecognizer:
    """An :class:`app.engines.base.SentenceRecognizer` over an ``OnlineRecognizer``.

    ``hotwords``: how they are spelt; None: the model takes none. ``slots``: sentences that may be
    open at once. ``max_batch``: streams in one call; of a model whose streams depend on each other
    in a call there is always one.
    """

    def __init__(
        self,
        recognizer: Any,
        model: FoundModel,
        *,
        hotwords: Hotwords | None,
        slots: int,
        max_batch: int,
    ) -> None:
        self._recognizer = recognizer
        self._hotwords = hotwords
        self._most = max_batch if model.batches else 1
        self._tail: Float32 = np.zeros(SAMPLE_RATE * model.tail_ms // 1000, np.float32)
        # Only Paraformer knows it; without it the audio of its last chunk is lost.
        self._says_last = model.kind == "streaming Paraformer"
        self._lock = threading.Lock()
        self._slots = slots
        self._opened = 0
        steps = -(-model.chunk_ms // _LONGEST_STEP_MS)
        self._capabilities = RecognizerCapabilities(
            sample_rate=SAMPLE_RATE,
            languages=languages_of(model),
            step_ms=model.chunk_ms // steps,
            partials=True,
            word_times=model.word_times,
            own_endpointing=False,
            max_sessions=None,
            max_sentences=slots,
            hotwords=hotwords is not None,
        )
        self._step_samples = SAMPLE_RATE * self._capabilities.step_ms // 1000

    @property
    def capabilities(self) -> RecognizerCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def open(self, options: RecognitionOptions) -> object:
        """A new sentence.

        Raises:
            RuntimeError: ``max_sentences`` are open.
        """
        with self._lock:
            if self._opened >= self._slots:
                raise RuntimeError("all slots are lent")
            self._opened += 1
        return _Stream(options)

    def close(self, stream: object) -> None:
        """Give up the sentence, if it is still open; one in a running step, after that step."""
        if isinstance(stream, _Stream):
            with self._lock:
                if stream.stepping:
                    stream.given_up = True
                else:
                    self._give_back(stream)

    def step(self, batch: Sequence[Feed]) -> list[Hypothesis | Exception]:
        """Take in the audio, and decode all streams that have enough of it in shared calls."""
        answers: list[Hypothesis | Exception | None] = [self._enter(feed) for feed in batch]
        entered = {i: _stream(batch[i]) for i, answer in enumerate(answers) if answer is None}
        failures: dict[_Stream, Exception] = {}
        done = False
        try:
            for i, stream in entered.items():
                try:
                    self._accept(stream, batch[i])
                except Exception as error:
                    failures[stream] = error
            self._decode([each for each in entered.values() if each not in failures], failures)
            for i, stream in entered.items():
                answers[i] = failures.get(stream) or self._answer(stream)
            done = True
        finally:
            self._leave(
                (stream, not done or batch[i].last or isinstance(answers[i], Exception))
                for i, stream in entered.items()
            )
        return [answer for answer in answers if answer is not None]

    def try_out(self) -> None:
        """Decode some silence: what does not fit together in a model's files shows here, and not
        to its first client.

        Raises:
            RuntimeError: it cannot be decoded; the text is the runtime's.
        """
        stream, silence = self.open(RecognitionOptions()), np.zeros(self._step_samples, np.float32)
        for last in (False, False, True):
            [answer] = self.step([Feed(stream, silence, last)])
            if isinstance(answer, Exception):
                raise RuntimeError(str(answer)) from answer

    # Slots

    def _enter(self, feed: Feed) -> Exception | None:
        """Take the stream into the step, or say why not."""
        stream, size = feed.stream, feed.samples.size
        if not isinstance(stream, _Stream):
            return TypeError("not a stream of this engine")
        with self._lock:
            if not stream.open or stream.stepping:
                return RuntimeError("the stream is closed, or in the step already")
            if size > self._step_samples or (size < self._step_samples and not feed.last):
                return ValueError(f"{size} samples in place of {self._step_samples}")
            stream.stepping = True
        return None

    def _leave(self, streams: Iterable[tuple[_Stream, bool]]) -> None:
        with self._lock:
            for stream, is_over in streams:
                stream.stepping = False
                if is_over or stream.given_up:
                    self._give_back(stream)

    def _give_back(self, stream: _Stream) -> None:
        if stream.open:
            stream.open = False
            stream.native = None
            self._opened -= 1

    # Steps

    def _accept(self, stream: _Stream, feed: Feed) -> None:
        if not np.isfinite(feed.samples).all():
            raise DamagedAudio("the audio has samples that are no numbers")
        if stream.native is None:
            stream.native = self._new(stream.options)
        if feed.samples.size:
            # At the model's own rate: at any other the runtime would write about each stream.
            stream.native.accept_waveform(SAMPLE_RATE, np.clip(feed.samples, -1.0, 1.0))
            stream.samples += feed.samples.size
        if feed.last:
            # The end alone brings nothing out: the model waits for a whole chunk.
            stream.native.accept_waveform(SAMPLE_RATE, self._tail)
            stream.native.input_finished()
            if self._says_last:
                stream.native.set_option("is_final", "1")

    def _new(self, options: RecognitionOptions) -> Any:
        written = self._hotwords.written(options.hotwords) if self._hotwords else ""
        if written:
            return self._recognizer.create_stream(written)
        return self._recognizer.create_stream()

    def _decode(self, streams: Sequence[_Stream], failures: dict[_Stream, Exception]) -> None:
        """Until no stream has a whole chunk left; ``failures`` gets what fails.

        The runtime ends the process over a call without streams, or with one that is not ready.
        """
        while ready := [
            stream
            for stream in streams
            if stream not in failures and self._recognizer.is_ready(stream.native)
        ]:
            for begin in range(0, len(ready), self._most):
                part = ready[begin : begin + self._most]
                try:
                    self._recognizer.decode_streams([stream.native for stream in part])
                except Exception as error:
                    # Their states were taken out for the call, and are lost.
                    failures |= dict.fromkeys(part, error)

    def _answer(self, stream: _Stream) -> Hypothesis | Exception:
        try:
            return self._hypothesis(stream)
        except Exception as error:  # its alone: the others' texts are there
            return error

    def _hypothesis(self, stream: _Stream) -> Hypothesis:
        found = self._recognizer.get_result_all(stream.native)
        text = found.text.strip()
        if not (stream.options.words and self._capabilities.word_times):
            return Hypothesis(text)
        heard_ms = stream.samples * 1000 // SAMPLE_RATE
        return Hypothesis(text, words_of(found, text, heard_ms))


def _stream(feed: Feed) -> _Stream:
    if not isinstance(feed.stream, _Stream):
        raise TypeError("not a stream of this engine")
    return feed.stream


def load_streaming(
    model: FoundModel, options: SherpaOptions, progress: Progress
) -> StreamingRecognizer:
    """The recogniser of a streaming model. Slow and blocking.

    Raises:
        EngineNotUsable: its bpe.vocab is damaged.
        RuntimeError: the runtime refuses the model, or fails with it.
    """
    progress(f"loading {model.folder.name}")
    hotwords = Hotwords(model) if model.kind == "transducer" else None
    files = {name: str(path) for name, path in model.files.items()}
    files["tokens"] = str(model.tokens)
    common: dict[str, Any] = {
        "num_threads": options.threads,
        "enable_endpoint_detection": False,
        "provider": "cpu",
    }
    kinds = sherpa_onnx.OnlineRecognizer
    if hotwords is not None:
        recognizer = kinds.from_transducer(
            **files,
            **common,
            # The search that takes hotwords, for all streams alike.
            decoding_method="modified_beam_search",
            hotwords_score=_USUAL_SCORE,
            modeling_unit=hotwords.unit,
            bpe_vocab=str(hotwords.vocabulary) if hotwords.unit != "cjkchar" else "",
        )
    elif model.kind == "ctc":
        recognizer = kinds.from_zipformer2_ctc(**files, **common)
    else:
        recognizer = kinds.from_paraformer(**files, **common)
    found = StreamingRecognizer(
        recognizer,
        model,
        hotwords=hotwords,
        slots=options.slots,
        max_batch=options.max_batch,
    )
    found.try_out()
    return found
