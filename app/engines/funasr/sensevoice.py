"""SenseVoiceSmall: words, language, emotion and events of whole sentences.

Behaviour after funasr 1.4.16, ``sense_voice/model.py``: four queries go before the features (the
language; events and emotion; figures and punctuation or not), an encoder with two stacks follows,
and the best token of each row, repetitions and blanks left out, is the text. The first tokens are
the answers to the queries (``<|zh|><|HAPPY|><|Speech|><|withitn|>``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions, Word
from app.engines.base import Hypothesis, OfflineCapabilities
from app.engines.funasr.offline_features import WholeFeatures, padded
from app.engines.funasr.offline_layers import EncoderSize, WholeEncoder, rows_there
from app.engines.funasr.times import ROW_MS
from app.engines.funasr.tokens import PieceList
from app.engines.sensevoice_tags import read_tags, wants_figures

LANGUAGES: Final = ("zh", "en", "yue", "ja", "ko")
_LANGUAGE_QUERIES: Final = {"zh": 3, "cmn": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}
_ANY_LANGUAGE: Final = 0
_EVENT_QUERY: Final = 1
_EMOTION_QUERY: Final = 2
_WITH_FIGURES: Final = 14
_WITHOUT_FIGURES: Final = 15
_QUERIES: Final = 4
_QUERY_KINDS: Final = 16
_BLANK: Final = 0
_EARLY_MS: Final = 30
"""A token begins half a row before the row in which it is heard (funasr, output_timestamp)."""
_ROWS_AT_ONCE: Final = 1024
"""Rows whose scores over all tokens are in memory at the same time: 100 MB."""


class _Ctc(nn.Module):
    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(width, vocabulary)


class SenseVoiceNetwork(nn.Module):
    """The checkpoint of SenseVoiceSmall loads into this."""

    def __init__(self, size: EncoderSize, vocabulary: int) -> None:
        super().__init__()
        self.encoder = WholeEncoder(size)
        self.embed = nn.Embedding(_QUERY_KINDS, size.in_width)
        self.ctc = _Ctc(size.width, vocabulary)

    def forward(self, features: Tensor, rows: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The best token of each row that is there, and its score, of all inputs in a row.

        ``features`` (b, t, in_width) of which ``rows`` (b,) are there; ``queries`` (b, 4). Results:
        (sum of rows + 4·b,).
        """
        x = torch.cat([self.embed(queries).float(), features], dim=1)
        there = rows_there(rows + _QUERIES, x.shape[1])
        encoded = self.encoder(x, there)[there]
        best = [self.ctc.ctc_lo(part).max(1) for part in encoded.split(_ROWS_AT_ONCE)]
        return torch.cat([b.indices for b in best]), torch.cat([b.values for b in best])


@dataclass(frozen=True, slots=True)
class TokenPath:
    """The tokens of an input, without repetitions and blanks, and the rows in which each is heard:
    ``[begin, end)``, counted from the first query."""

    ids: list[int]
    begins: list[int]
    ends: list[int]


class SenseVoice:
    """The network with its features and its vocabulary. ``device``: where they are."""

    def __init__(
        self,
        network: SenseVoiceNetwork,
        features: WholeFeatures,
        pieces: PieceList,
        device: str,
        max_batch_s: float,
    ) -> None:
        self._network = network
        self._features = features
        self._pieces = pieces
        self._device = device
        self.capabilities = OfflineCapabilities(
            sample_rate=16_000,
            languages=LANGUAGES,
            word_times=True,
            max_batch_s=max_batch_s,
            tags=True,
        )

    def transcribe(
        self, samples: Sequence[Float32], options: Sequence[RecognitionOptions]
    ) -> list[Hypothesis | Exception]:
        """Each input's hypothesis, in order; all are computed in one padded batch.

        Figures and punctuation come together in this model: only where both are asked for is its
        text ``finished``; otherwise it has neither, so they are not among its capabilities.
        """
        found: list[Hypothesis | Exception] = []
        paths = self.paths(samples, options)
        for path, audio, wanted in zip(paths, samples, options, strict=True):
            if isinstance(path, Exception):
                found.append(path)
            else:
                found.append(self._hypothesis(path, audio.size * 1000 // 16_000, wanted))
        return found

    def paths(
        self, samples: Sequence[Float32], options: Sequence[RecognitionOptions]
    ) -> list[TokenPath | Exception]:
        """The tokens of each input, tags among them."""
        audio, length = padded(samples, self._device)
        features, rows = self._features(audio, length)
        queries = torch.tensor([_queries(wanted) for wanted in options], device=self._device)
        ids, scores = self._network(features, rows, queries)
        sizes = (rows + _QUERIES).tolist()
        sound = [bool(part.isfinite().all()) for part in scores.cpu().split(sizes)]
        return [
            _collapsed(part.tolist()) if good else ArithmeticError("the scores are no numbers")
            for part, good in zip(ids.cpu().split(sizes), sound, strict=True)
        ]

    def _hypothesis(
        self, path: TokenPath, length_ms: int, options: RecognitionOptions
    ) -> Hypothesis:
        tags = [self._pieces.tag(token) for token in path.ids]
        spoken = [place for place, tag in enumerate(tags) if tag is None]
        ids = [path.ids[place] for place in spoken]
        heard = read_tags(tag for tag in tags if tag is not None)
        words: tuple[Word, ...] = ()
        if options.words:
            words = tuple(
                Word(
                    word.text,
                    _time(path.begins[spoken[word.first]], length_ms),
                    _time(path.ends[spoken[word.last]], length_ms),
                )
                for word in self._pieces.words(ids)
            )
        return Hypothesis(
            self._pieces.text(ids),
            words=words,
            language=heard.language,
            emotion=heard.emotion,
            events=heard.events,
            finished=wants_figures(options),
        )


def _queries(options: RecognitionOptions) -> list[int]:
    language = (options.language or "").replace("_", "-").partition("-")[0].lower()
    return [
        _LANGUAGE_QUERIES.get(language, _ANY_LANGUAGE),
        _EVENT_QUERY,
        _EMOTION_QUERY,
        _WITH_FIGURES if wants_figures(options) else _WITHOUT_FIGURES,
    ]


def _collapsed(best: Sequence[int]) -> TokenPath:
    path = TokenPath([], [], [])
    before = _BLANK
    for row, token in enumerate(best):
        if token != _BLANK and token == before:
            path.ends[-1] = row + 1
        elif token != _BLANK:
            path.ids.append(token)
            path.begins.append(row)
            path.ends.append(row + 1)
        before = token
    return path


def _time(row: int, length_ms: int) -> int:
    """In ms from the beginning of the audio, for a border that is ``row`` rows after the first
    query."""
    return min(max((row - _QUERIES) * ROW_MS - _EARLY_MS, 0), length_ms)
