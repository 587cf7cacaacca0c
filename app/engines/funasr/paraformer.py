"""The offline Paraformer: all tokens of a sentence at once, as many as the predictor counts.

Behaviour after funasr 1.4.16, ``paraformer/model.py``, for a single input. In FunASR's own padded
batches the predictor hears the padding and may lose a token; here rows behind an input's end are
zero before it, as they are for a single one.
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
from app.engines.funasr.layers import Predictor
from app.engines.funasr.offline_features import WholeFeatures, padded
from app.engines.funasr.offline_layers import (
    DecoderSize,
    EncoderSize,
    Fired,
    WholeDecoder,
    WholeEncoder,
    integrate,
    rows_there,
)
from app.engines.funasr.times import ROW_MS
from app.engines.funasr.tokens import LANGUAGES, NO_TEXT, TokenList

_EARLY_ROWS: Final = 1.5
"""A token is spoken from so long before the row in which it is complete (funasr,
ts_prediction_lfr6_standard)."""
_LONGEST_ROWS: Final = 12
"""A token lasts no longer; the rest up to the next one is silence (same place)."""


@dataclass(frozen=True, slots=True)
class PredictorSize:
    """``left``, ``right``: rows that the weight of a row depends on. ``tail``: weight of the row
    of zeros behind the end."""

    left: int
    right: int
    tail: float


class ParaformerNetwork(nn.Module):
    """The checkpoint of the offline Paraformer loads into this."""

    def __init__(
        self, encoder: EncoderSize, decoder: DecoderSize, predictor: PredictorSize
    ) -> None:
        super().__init__()
        self.encoder = WholeEncoder(encoder)
        self.decoder = WholeDecoder(decoder)
        self.predictor = Predictor(encoder.width, predictor.left, predictor.right, predictor.tail)

    def forward(self, features: Tensor, rows: Tensor) -> Decoded:
        """``features`` (b, t, in_width), of which ``rows`` (b,) are there."""
        heard = self.hear(features, rows)
        finite = heard.encoded.isfinite().flatten(1).all(1)
        ids = torch.zeros_like(heard.fired.peaks)
        if ids.shape[1]:
            best = self.decoder.logits(self.hidden(heard)).max(2)
            ids, finite = best.indices, finite & best.values.isfinite().all(1)
        return Decoded(ids, heard.fired.count, heard.fired.peaks, finite)

    def hear(self, features: Tensor, rows: Tensor) -> Heard:
        """The encoder's and the predictor's part."""
        there = rows_there(rows, features.shape[1])
        encoded = self.encoder(features, there).masked_fill(~there[:, :, None], 0.0)
        # In fp32 whatever the model computes in: rounding would move the tokens' borders.
        exact = encoded.float()
        weights = self.predictor.weights(exact).masked_fill(~there, 0.0)
        return Heard(encoded, there, integrate(exact, weights, rows, self.predictor.tail))

    def hidden(self, heard: Heard) -> Tensor:
        """The decoder's part up to its scores, (b, tokens, d); at least one token is there."""
        tokens = heard.fired.tokens.to(heard.encoded.dtype)
        there = rows_there(heard.fired.count, tokens.shape[1])
        return self.decoder.hidden(tokens, there, heard.encoded, heard.there)


@dataclass(frozen=True, slots=True)
class Heard:
    """``encoded`` (b, t, d), zeros where ``there`` (b, t) is false, and the tokens that fired."""

    encoded: Tensor
    there: Tensor
    fired: Fired


@dataclass(frozen=True, slots=True)
class Decoded:
    """``ids`` and ``peaks`` (b, t): tokens, and the rows in which each is complete, of which
    ``count`` (b,) are there. ``finite`` (b,): false where numbers overflowed."""

    ids: Tensor
    count: Tensor
    peaks: Tensor
    finite: Tensor


@dataclass(frozen=True, slots=True)
class Spoken:
    """The tokens of an input, and from when to when each is spoken (ms)."""

    ids: list[int]
    begins_ms: list[int]
    ends_ms: list[int]


class Paraformer:
    """The network with its features and its vocabulary. ``device``: where they are."""

    def __init__(
        self,
        network: ParaformerNetwork,
        features: WholeFeatures,
        tokens: TokenList,
        device: str,
        max_batch_s: float,
    ) -> None:
        self._network = network
        self._features = features
        self._tokens = tokens
        self._device = device
        self.capabilities = OfflineCapabilities(
            sample_rate=features.sample_rate,
            languages=LANGUAGES,
            word_times=True,
            max_batch_s=max_batch_s,
        )

    def transcribe(
        self, samples: Sequence[Float32], options: Sequence[RecognitionOptions]
    ) -> list[Hypothesis | Exception]:
        """Each input's hypothesis, in order; all are computed in one padded batch."""
        return [
            spoken if isinstance(spoken, Exception) else self._hypothesis(spoken, wanted)
            for spoken, wanted in zip(self.spoken(samples, options), options, strict=True)
        ]

    def spoken(
        self, samples: Sequence[Float32], options: Sequence[RecognitionOptions]
    ) -> list[Spoken | Exception]:
        """The tokens of each input."""
        audio, length = padded(samples, self._device)
        features, rows = self._features(audio, length)
        decoded = self._network(features, rows)
        found: list[Spoken | Exception] = []
        ids, peaks = decoded.ids.tolist(), decoded.peaks.tolist()
        for place, (count, finite) in enumerate(
            zip(decoded.count.tolist(), decoded.finite.tolist(), strict=True)
        ):
            if not finite:
                found.append(ArithmeticError("the scores are no numbers"))
                continue
            length_ms = samples[place].size * 1000 // self._features.sample_rate
            found.append(timed(ids[place][:count], peaks[place][:count], length_ms))
        return found

    def _hypothesis(self, spoken: Spoken, options: RecognitionOptions) -> Hypothesis:
        found = self._tokens.words(spoken.ids)
        words: tuple[Word, ...] = ()
        if options.words:
            words = tuple(
                Word(word.text, spoken.begins_ms[word.first], spoken.ends_ms[word.last])
                for word in found
            )
        return Hypothesis(self._tokens.text(spoken.ids), words=words)


def timed(ids: Sequence[int], peaks: Sequence[int], length_ms: int) -> Spoken:
    """The tokens that are text, with their times: each lasts until the next one (of whatever kind)
    begins, at most :data:`_LONGEST_ROWS`."""
    begins = [max(peak - _EARLY_ROWS, 0.0) for peak in peaks]
    ends = [*begins[1:], float("inf")]
    spoken = Spoken([], [], [])
    for token, begin, end in zip(ids, begins, ends[: len(begins)], strict=True):
        if token in NO_TEXT:
            continue
        last = min(end, begin + _LONGEST_ROWS)
        spoken.ids.append(token)
        spoken.begins_ms.append(min(int(begin * ROW_MS), length_ms))
        spoken.ends_ms.append(min(int(last * ROW_MS), length_ms))
    return spoken
