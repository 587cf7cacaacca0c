"""Recognition with pocketsphinx: English, small, without download."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from app.audio.pcm import to_int16
from app.core.speech import RecognitionOptions, Word
from app.engines.base import Feed, Hypothesis, Progress, RecognizerCapabilities
from app.engines.embedded.decoders import SAMPLE_RATE, Decoder, DecoderPool

NOTICE: Final = "for trying out: English commands and clear read speech; no Chinese recognition"

_MAX_SENTENCES: Final = 4
_FRAME_MS: Final = 10

_TAIL: Final = bytes(2 * SAMPLE_RATE // 5)
"""200 ms of silence after the last sample. The search ends only at a word's end, and without a
pause there one sentence in eight had no final text at all, though its last partial was right."""

_FILLER: Final = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")
_VARIANT: Final = re.compile(r"\(\d+\)$")

_NOTHING: Final = Hypothesis("")


class _Sentence:
    """One open stream: its decoder and what it has heard."""

    def __init__(self, decoder: Decoder, want_words: bool) -> None:
        self.decoder: Decoder | None = decoder
        self._want_words = want_words
        self._samples = 0

    def feed(self, feed: Feed) -> Hypothesis:
        """Take in audio; on the last feed the hypothesis is final and the utterance over."""
        decoder = self.decoder
        if decoder is None:
            raise RuntimeError("the stream is closed")
        if feed.samples.size:  # process_raw refuses an empty buffer
            self._samples += feed.samples.size
            decoder.process_raw(to_int16(feed.samples).tobytes())
        if not feed.last:
            return self._hypothesis(decoder)
        decoder.process_raw(_TAIL)
        partial = self._hypothesis(decoder)
        decoder.end_utt()
        # Where the final search finds no way to the end, the last partial is all there is.
        final = self._hypothesis(decoder)
        return final if final.text else partial

    def _hypothesis(self, decoder: Decoder) -> Hypothesis:
        found = decoder.hyp()
        if found is None or not found.hypstr:
            return _NOTHING
        # Without confidence: the scores of this model say nothing about being right.
        return Hypothesis(found.hypstr, self._words(decoder) if self._want_words else ())

    def _words(self, decoder: Decoder) -> tuple[Word, ...]:
        heard_ms = self._samples * 1000 // SAMPLE_RATE
        words = []
        for segment in decoder.seg() or ():
            if _FILLER.fullmatch(segment.word):
                continue
            end_ms = min((segment.end_frame + 1) * _FRAME_MS, heard_ms)
            start_ms = min(segment.start_frame * _FRAME_MS, end_ms)
            words.append(Word(_VARIANT.sub("", segment.word), start_ms, end_ms))
        return tuple(words)


class PocketsphinxRecognizer:
    """An :class:`app.engines.base.SentenceRecognizer`.

    ``open`` and ``close`` may be called from another thread than ``step`` is running in, for other
    streams than those of the step. A step holds the GIL, 7 to 10 ms a stream.
    """

    def __init__(self, progress: Progress) -> None:
        self._pool = DecoderPool(_MAX_SENTENCES, progress)
        self._capabilities = RecognizerCapabilities(
            sample_rate=SAMPLE_RATE,
            languages=("en-US",),
            step_ms=100,
            partials=True,
            word_times=True,
            own_endpointing=False,
            max_sessions=_MAX_SENTENCES,
            max_sentences=_MAX_SENTENCES,
            notice=NOTICE,
        )

    @property
    def capabilities(self) -> RecognizerCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def open(self, options: RecognitionOptions) -> object:
        """A new sentence. Waits for its decoder only in the first second after loading."""
        return _Sentence(self._pool.lend(), options.words)

    def step(self, batch: Sequence[Feed]) -> list[Hypothesis | Exception]:
        """Decode the audio of one stream after the other; they gain nothing from each other."""
        return [self._feed_safely(feed) for feed in batch]

    def close(self, stream: object) -> None:
        """Give up the sentence, if it is still open."""
        if isinstance(stream, _Sentence) and stream.decoder is not None:
            stream.decoder.end_utt()
            self._release(stream)

    def _feed_safely(self, feed: Feed) -> Hypothesis | Exception:
        try:
            return self._feed(feed)
        except Exception as error:
            return error

    def _feed(self, feed: Feed) -> Hypothesis:
        sentence = feed.stream
        if not isinstance(sentence, _Sentence):
            raise TypeError("not a stream of this engine")
        hypothesis = sentence.feed(feed)
        if feed.last:
            self._release(sentence)
        return hypothesis

    def _release(self, sentence: _Sentence) -> None:
        decoder, sentence.decoder = sentence.decoder, None
        if decoder is not None:
            self._pool.give_back(decoder)
