"""Whole sentences: SenseVoice in batches, Paraformer one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import sherpa_onnx

from app.core.speech import RecognitionOptions
from app.engines.base import Hypothesis, OfflineCapabilities, Progress, Segment
from app.engines.buckets import buckets
from app.engines.sensevoice_tags import read_tags, wants_figures
from app.engines.sherpa.kinds import SAMPLE_RATE, FoundModel
from app.engines.sherpa.languages import languages_of
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.spelling import words_of

MAX_BATCH_S: Final = 10.0
"""On a CPU a call of this length is long enough to be efficient."""
_SHORTEST: Final = SAMPLE_RATE * 60 // 1000
"""Samples of a frame of the models: the runtime fails over less, and writes about it."""


class BatchedRecognizer:
    """An :class:`app.engines.base.OfflineRecognizer` over an ``OfflineRecognizer``.

    ``max_batch``: sentences in one call; always one of a Paraformer, whose exports take padding
    for audio, and of a model whose inputs depend on each other in a call.
    """

    def __init__(self, recognizer: Any, model: FoundModel, *, max_batch: int) -> None:
        self._recognizer = recognizer
        self._has_tags = model.kind == "SenseVoice"
        self._most = max_batch if model.batches and self._has_tags else 1
        self._capabilities = OfflineCapabilities(
            sample_rate=SAMPLE_RATE,
            languages=languages_of(model),
            word_times=model.word_times,
            max_batch_s=MAX_BATCH_S,
            tags=self._has_tags,
        )

    @property
    def capabilities(self) -> OfflineCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def recognize(self, batch: Sequence[Segment]) -> Sequence[Hypothesis | Exception]:
        """Each segment's hypothesis, in order; less than 60 ms of audio have no text.

        Audio with samples that are no numbers fails alone; where a call fails, all that was in it.
        """
        found: list[Hypothesis | Exception] = [Hypothesis("", finished=True)] * len(batch)
        usable: list[int] = []
        for place, segment in enumerate(batch):
            if not np.isfinite(segment.samples).all():
                found[place] = ValueError("the audio has samples that are no numbers")
            elif segment.samples.size >= _SHORTEST:
                usable.append(place)
        lengths = [batch[place].samples.size for place in usable]
        for group in buckets(lengths, int(MAX_BATCH_S * SAMPLE_RATE), most=self._most):
            places = [usable[index] for index in group]
            try:
                results = self._heard([batch[place] for place in places])
            except Exception as error:
                results = [error] * len(places)
            for place, result in zip(places, results, strict=True):
                found[place] = result
        return found

    def _heard(self, segments: Sequence[Segment]) -> list[Hypothesis | Exception]:
        streams = []
        for segment in segments:
            stream = self._recognizer.create_stream()
            stream.accept_waveform(SAMPLE_RATE, np.clip(segment.samples, -1.0, 1.0))
            if self._has_tags:
                stream.set_option("use_itn", "1" if wants_figures(segment.options) else "0")
            streams.append(stream)
        self._recognizer.decode_streams(streams)
        return [
            self._answer(stream.result, segment)
            for stream, segment in zip(streams, segments, strict=True)
        ]

    def _answer(self, result: Any, segment: Segment) -> Hypothesis | Exception:
        try:
            return self._hypothesis(result, segment)
        except Exception as error:  # its alone: the others' texts are there
            return error

    def _hypothesis(self, result: Any, segment: Segment) -> Hypothesis:
        text = result.text.strip()
        heard_ms = segment.samples.size * 1000 // SAMPLE_RATE
        timed = (
            words_of(result, text, heard_ms)
            if segment.options.words and self._capabilities.word_times
            else ()
        )
        if not self._has_tags:
            return Hypothesis(text, timed)
        told = (result.lang, result.emotion, result.event)
        tags = read_tags(tag.removeprefix("<|").removesuffix("|>") for tag in told)
        return Hypothesis(
            text,
            timed,
            language=tags.language,
            emotion=tags.emotion,
            events=tags.events,
            finished=wants_figures(segment.options),
        )


def load_offline(
    model: FoundModel, options: SherpaOptions, progress: Progress
) -> BatchedRecognizer:
    """The recogniser of an offline model. Slow and blocking.

    SenseVoice finds the language itself: the runtime takes one only for all of a recogniser.

    Raises:
        RuntimeError: the runtime refuses the model.
    """
    progress(f"loading {model.folder.name}")
    path, tokens = str(model.files["model"]), str(model.tokens)
    kinds = sherpa_onnx.OfflineRecognizer
    recognizer = (
        kinds.from_sense_voice(
            model=path, tokens=tokens, language="auto", num_threads=options.threads
        )
        if model.kind == "SenseVoice"
        else kinds.from_paraformer(paraformer=path, tokens=tokens, num_threads=options.threads)
    )
    found = BatchedRecognizer(recognizer, model, max_batch=options.max_batch)
    # A model that ends the process does so here, and not under its first client.
    found.recognize([Segment(np.zeros(SAMPLE_RATE, np.float32), RecognitionOptions())])
    return found
