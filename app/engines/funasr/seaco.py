"""SeACo Paraformer: an offline Paraformer with hotwords, and with a head for times.

Behaviour after funasr 1.4.16, ``seaco_paraformer/model.py`` and ``bicif_paraformer``: the hotwords
of a sentence, and one that stands for none, go through an LSTM; a second decoder lets the tokens
look at them and gives scores of its own, which replace those of the first one wherever it finds a
hotword. Each input of a batch has its own hotwords. The model has no place for weights: those above
0 all mean the same, and words that are to become less likely (below 0) are left out, since it would
favour them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions
from app.engines.funasr.layers import Predictor
from app.engines.funasr.offline_config import TimedPredictorConfig
from app.engines.funasr.offline_features import WholeFeatures, padded
from app.engines.funasr.offline_layers import (
    BareDecoder,
    DecoderSize,
    EncoderSize,
    rows_there,
)
from app.engines.funasr.paraformer import (
    Heard,
    Paraformer,
    ParaformerNetwork,
    PredictorSize,
    Spoken,
)
from app.engines.funasr.times import ROW_MS
from app.engines.funasr.tokens import NO_TEXT, TokenList

_BEGIN: Final = 1
"""The token of which "no hotword" consists."""
_MOST_HOTWORDS: Final = 50
"""Of more, only the best fitting ones are looked at closely."""
_FILTER_BLOCK: Final = 5
"""The block whose attention tells which fit."""
_EARLY_PARTS: Final = 1.5
_LONGEST_PARTS: Final = 12
_SILENT_PARTS: Final = 5
"""Of rows, as in ``timestamp_tools.py``: a token begins so much before the part in which it fires,
is no longer than that, and so much at the end is silence."""
_THRESHOLD: Final = 1.0 - 1e-4
_WORD: Final = re.compile(r"[a-zA-Z']+|[^\sa-zA-Z']")


class TimedPredictor(Predictor):
    """The predictor with its second head (CifPredictorV3)."""

    def __init__(self, width: int, config: TimedPredictorConfig) -> None:
        super().__init__(width, config.l_order, config.r_order, config.tail_threshold)
        self.config = config
        parts = config.upsample_times
        self.upsample_cnn = nn.ConvTranspose1d(width, width, parts, parts)
        self.blstm = nn.LSTM(width, width, 1, batch_first=True, bidirectional=True)
        self.cif_output2 = nn.Linear(2 * width, 1)

    def times(self, encoded: Tensor, length: Tensor, count: Tensor) -> Tensor:
        """How much each part of the rows weighs, (b, t · parts), adding up to ``count`` (b,).
        ``encoded`` (b, t, d), of which ``length`` (b,) rows are there."""
        config = self.config
        x = encoded.transpose(1, 2)
        if config.use_cif1_cnn:
            x = functional.relu(self.cif_conv1d(functional.pad(x, self.pads)))
        x = self.upsample_cnn(x).transpose(1, 2)
        parts = length * config.upsample_times
        # Packed, so that the way back does not begin in the padding.
        packed = pack_padded_sequence(x, parts.cpu(), batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.blstm(packed)[0], batch_first=True, total_length=x.shape[1])
        height = torch.sigmoid(self.cif_output2(x)).squeeze(2)
        weights = functional.relu(height * config.smooth_factor2 - config.noise_threshold2)
        weights = weights.masked_fill(~rows_there(parts, x.shape[1]), 0.0)
        scaled: Tensor = weights * (count / weights.sum(1))[:, None]
        return scaled


class SeacoNetwork(ParaformerNetwork):
    """The checkpoint of SeACo Paraformer loads into this."""

    predictor: TimedPredictor

    def __init__(
        self,
        encoder: EncoderSize,
        decoder: DecoderSize,
        hotword_decoder: DecoderSize,
        predictor: TimedPredictorConfig,
        no_bias: int,
    ) -> None:
        super().__init__(encoder, decoder, PredictorSize(0, 0, 0.0))
        width = decoder.width
        self.predictor = TimedPredictor(width, predictor)
        self.bias_encoder = nn.LSTM(width, width, 2, batch_first=True)
        self.seaco_decoder = BareDecoder(hotword_decoder)
        self.hotword_output_layer = nn.Linear(width, decoder.vocabulary)
        self._no_bias = no_bias

    def best(self, heard: Heard, hotwords: Sequence[Sequence[Sequence[int]]]) -> Scored:
        """The best token at each place that fired, of which there is at least one.

        ``hotwords``: the hotwords of each input, each as its tokens.
        """
        hidden = self.hidden(heard)
        own = self.decoder.logits(hidden).max(2)
        ids, finite = own.indices, own.values.isfinite().all(1)
        for place, words in enumerate(hotwords):
            count = int(heard.fired.count[place])
            if words and count:
                sounds = heard.fired.tokens[place : place + 1, :count].to(hidden.dtype)
                found = self._hotwords(sounds, hidden[place : place + 1, :count], words)
                ids[place, :count] = torch.where(found == self._no_bias, ids[place, :count], found)
        return Scored(ids, finite)

    def _hotwords(self, sounds: Tensor, hidden: Tensor, words: Sequence[Sequence[int]]) -> Tensor:
        """The best token at each place (t,) as the hotwords have it; that for "none" where none
        fits. ``sounds``, ``hidden``: (1, t, d), what fired and what the decoder made of it."""
        known = self._encoded(words)
        if len(known) > _MOST_HOTWORDS:
            known = known[self._fitting(hidden, known)]
        memory = known[None]
        there = torch.ones(1, sounds.shape[1], dtype=torch.bool, device=sounds.device)
        all_words = torch.ones(1, len(known), dtype=torch.bool, device=sounds.device)
        merged = sum(
            self.seaco_decoder.hidden(x, there, memory, all_words) for x in (sounds, hidden)
        )
        scores: Tensor = self.hotword_output_layer(merged)
        return scores[0].argmax(1)

    def _encoded(self, words: Sequence[Sequence[int]]) -> Tensor:
        """The hotwords and, last, the one for none: (words + 1, d)."""
        lists = [*words, [_BEGIN]]
        device = self.hotword_output_layer.bias.device
        length = torch.tensor([len(ids) for ids in lists])
        most = int(length.max())
        ids = torch.tensor([[*ids, *[0] * (most - len(ids))] for ids in lists], device=device)
        embedded: Tensor = self.decoder.embed(ids)
        out, _ = self.bias_encoder(embedded.float())
        last: Tensor = out[torch.arange(len(lists), device=device), length.to(device) - 1]
        return last.to(embedded.dtype)

    def _fitting(self, hidden: Tensor, known: Tensor) -> Tensor:
        """The places of the hotwords that the tokens look at most, and the last one."""
        keep = hidden.new_ones(1, hidden.shape[1], 1)
        mask = torch.ones(1, 1, 1, len(known), dtype=torch.bool, device=known.device)
        *blocks, last = list(self.seaco_decoder.decoders)[: _FILTER_BLOCK + 1]
        x = hidden
        for block in blocks:
            x = block(x, keep, known[None], mask)
        looks: Tensor = last.attention(x, keep, known[None], mask)  # type: ignore[operator] # nn's types
        best = looks[0].sum((0, 1)).topk(min(_MOST_HOTWORDS, len(known) - 1)).indices
        return torch.cat([best, best.new_tensor([len(known) - 1])])


@dataclass(frozen=True, slots=True)
class Scored:
    """``ids`` (b, t): the best tokens; ``finite`` (b,): false where numbers overflowed."""

    ids: Tensor
    finite: Tensor


class Hotwords:
    """Hotwords as tokens. ``syllables``: the tokens of Latin words (``seg_dict``)."""

    def __init__(self, names: Sequence[str], syllables: Mapping[str, Sequence[str]]) -> None:
        self._ids = {name: token for token, name in enumerate(names)}
        self._syllables = syllables

    def tokens(self, word: str) -> list[int]:
        """Nothing for a word that the model cannot write."""
        names: list[str] = []
        for part in _WORD.findall(word.lower()):
            names += self._syllables.get(part, [part])
        if all(name in self._ids for name in names):
            return [self._ids[name] for name in names]
        return []


class Seaco(Paraformer):
    """The network with its features and its vocabulary. ``device``: where they are."""

    def __init__(
        self,
        network: SeacoNetwork,
        features: WholeFeatures,
        tokens: TokenList,
        hotwords: Hotwords,
        device: str,
        max_batch_s: float,
    ) -> None:
        super().__init__(network, features, tokens, device, max_batch_s)
        self._seaco = network
        self._hotwords = hotwords
        self.capabilities = msgspec.structs.replace(self.capabilities, hotwords=True)

    def spoken(
        self, samples: Sequence[Float32], options: Sequence[RecognitionOptions]
    ) -> list[Spoken | Exception]:
        """The tokens of each input, with its own hotwords."""
        audio, length = padded(samples, self._device)
        features, rows = self._features(audio, length)
        heard = self._seaco.hear(features, rows)
        sound = heard.encoded.isfinite().flatten(1).all(1)
        counts = heard.fired.count.tolist()
        ids: list[list[int]] = [[] for _ in samples]
        if any(counts):
            wanted = [self._known(wished) for wished in options]
            scored = self._seaco.best(heard, wanted)
            ids, sound = scored.ids.tolist(), sound & scored.finite
        times = self._seaco.predictor.times(heard.encoded.float(), rows, heard.fired.count)
        parts = rows * self._seaco.predictor.config.upsample_times
        found: list[Spoken | Exception] = []
        for place, (count, good) in enumerate(zip(counts, sound.tolist(), strict=True)):
            if good:
                weights = times[place, : parts[place]].tolist()
                found.append(self._timed(ids[place][:count], weights, samples[place].size // 16))
            else:
                found.append(ArithmeticError("the scores are no numbers"))
        return found

    def _known(self, options: RecognitionOptions) -> list[list[int]]:
        tokens = (self._hotwords.tokens(word) for word, weight in options.hotwords if weight > 0)
        return [ids for ids in tokens if ids]

    def _timed(self, ids: Sequence[int], weights: Sequence[float], length_ms: int) -> Spoken:
        text = [token for token in ids if token not in NO_TEXT]
        part_ms = ROW_MS / self._seaco.predictor.config.upsample_times
        spans = spans_of(weights, len(text))
        begins = [min(max(int(begin * part_ms), 0), length_ms) for begin, _ in spans]
        ends = [min(max(int(end * part_ms), 0), length_ms) for _, end in spans]
        return Spoken(text, begins, ends)


def spans_of(weights: Sequence[float], count: int) -> list[tuple[float, float]]:
    """From which part to which one each of ``count`` tokens is spoken: from one firing to the next.

    ``count`` + 1 firings are wanted; where there are others, the weights are scaled to that.
    """
    if not count:
        return []
    fires = _fires(weights)
    total = sum(weights)
    if len(fires) != count + 1 and total > 0:
        fires = _fires([weight * (count + 1) / total for weight in weights])
    borders = [fire - _EARLY_PARTS for fire in fires[: count + 1]]
    borders += [float(len(weights))] * (count + 1 - len(borders))
    spans = [(begin, min(end, begin + _LONGEST_PARTS)) for begin, end in pairwise(borders)]
    begin, end = spans[-1]
    if end == borders[-1]:  # not cut short
        silent = len(weights) - end > _SILENT_PARTS
        spans[-1] = (begin, (len(weights) + end) / 2 if silent else float(len(weights)))
    return spans


def _fires(weights: Sequence[float]) -> list[int]:
    level, found = 0.0, []
    for place, weight in enumerate(weights):
        level += weight
        if level >= _THRESHOLD:
            found.append(place)
            level -= _THRESHOLD
    return found
