"""Whole sentences in batches: which model a folder has, and how a batch goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from app.audio.pcm import Float32
from app.core.errors import EngineNotUsable
from app.core.speech import RecognitionOptions
from app.engines.base import Hypothesis, OfflineCapabilities, Progress, Segment
from app.engines.buckets import buckets
from app.engines.funasr.background import Background
from app.engines.funasr.checkpoint import (
    architecture,
    load_weights,
    read_config,
    read_normalisation,
    read_tokens,
    unknown,
)
from app.engines.funasr.dtypes import in_dtype
from app.engines.funasr.features import SAMPLE_RATE, STACK, STRIDE, WIDTH
from app.engines.funasr.hotwords import read_syllables
from app.engines.funasr.offline_config import ParaformerConfig, SeacoConfig, SenseVoiceConfig
from app.engines.funasr.offline_features import SHORTEST_MS, WholeFeatures
from app.engines.funasr.paraformer import Paraformer, ParaformerNetwork, PredictorSize
from app.engines.funasr.seaco import Hotwords, Seaco, SeacoNetwork
from app.engines.funasr.sensevoice import SenseVoice, SenseVoiceNetwork
from app.engines.funasr.settings import Dtype, FunasrOptions
from app.engines.funasr.tokens import TokenList, read_pieces

_MAX_BATCH_S: Final = {"cpu": 10.0, "cuda": 300.0}
"""Audio in one call: on a CPU little, because the streaming pass waits for the cores; on a GPU what
keeps it busy."""

_SETTINGS: Final = {16_000: "FUNASR_OFFLINE_MODEL", 8_000: "FUNASR_OFFLINE_MODEL_8K"}


class OfflineModel(Protocol):
    """A recogniser of one padded batch; :class:`BatchedRecognizer` does the rest."""

    capabilities: OfflineCapabilities

    def transcribe(
        self, samples: Sequence[Float32], options: Sequence[RecognitionOptions]
    ) -> list[Hypothesis | Exception]:
        """Each input's hypothesis, in order. Each has at least 25 ms of sound numbers."""
        ...


class BatchedRecognizer:
    """An :class:`app.engines.base.OfflineRecognizer` over one model."""

    def __init__(self, model: OfflineModel, background: Background) -> None:
        self._model = model
        self._background = background

    @property
    def capabilities(self) -> OfflineCapabilities:
        """Those of the model."""
        return self._model.capabilities

    def recognize(self, batch: Sequence[Segment]) -> Sequence[Hypothesis | Exception]:
        """Each segment's hypothesis, in order; less than 25 ms of audio have no text.

        Audio with samples that are no numbers fails alone. Where a batch fails as a whole, each of
        its segments is tried alone, so that only the one at fault has an exception.
        """
        found: list[Hypothesis | Exception] = [Hypothesis("", finished=True)] * len(batch)
        rate = self.capabilities.sample_rate
        usable: list[int] = []
        for place, segment in enumerate(batch):
            if not np.isfinite(segment.samples).all():
                found[place] = ValueError("the audio has samples that are no numbers")
            elif segment.samples.size * 1000 >= SHORTEST_MS * rate:
                usable.append(place)
        lengths = [batch[place].samples.size for place in usable]
        longest = int(self.capabilities.max_batch_s * rate)
        with self._background.running():
            for bucket in buckets(lengths, longest):
                places = [usable[index] for index in bucket]
                results = self._transcribed([batch[place] for place in places])
                for place, result in zip(places, results, strict=True):
                    found[place] = result
        return found

    def _transcribed(self, segments: Sequence[Segment]) -> list[Hypothesis | Exception]:
        try:
            return self._model.transcribe(
                [segment.samples for segment in segments],
                [segment.options for segment in segments],
            )
        except Exception as error:
            if len(segments) == 1:
                return [error]
        return [self._transcribed([segment])[0] for segment in segments]


def load_offline(
    folder: Path,
    device: str,
    options: FunasrOptions,
    progress: Progress,
    *,
    sample_rate: int = SAMPLE_RATE,
) -> BatchedRecognizer:
    """The recogniser of whole sentences that ``folder`` has: SenseVoiceSmall, Paraformer, or SeACo
    Paraformer.

    ``device`` is ``cpu`` or ``cuda:0``; ``sample_rate`` (Hz) what the model has to be for, 16,000
    or, of a Paraformer, 8,000. Slow and blocking.

    Raises:
        EngineNotUsable: a file is missing or damaged, or the model is not one that is known, or
            for another rate.
    """
    progress(f"loading {folder.name}")
    check_rate(folder, _rate_of(read_config(folder)), sample_rate)
    return BatchedRecognizer(
        load_model(folder, device, options), Background(device, options.threads)
    )


def check_rate(model: object, rate: int, wanted: int) -> None:
    """Whether a model is for audio of the ``wanted`` rate; it is for ``rate`` (both in Hz).

    Raises:
        EngineNotUsable: it is not. (Rates that no model may have are for others to refuse.)
    """
    if rate != wanted and rate in _SETTINGS:
        raise EngineNotUsable(
            f"{model} is for audio of {rate:,} Hz, and {_SETTINGS[wanted]} names a model for "
            f"{wanted:,} Hz; a model for {rate:,} Hz belongs in {_SETTINGS[rate]}"
        )


def _rate_of(config: dict[str, Any]) -> int:
    conf = config.get("frontend_conf")
    rate = conf.get("fs") if isinstance(conf, dict) else None
    return rate if isinstance(rate, int) else SAMPLE_RATE


def load_model(folder: Path, device: str, options: FunasrOptions) -> OfflineModel:
    """The model alone: as :func:`load_offline`."""
    config = read_config(folder)
    name = config.get("model")
    loader = _LOADERS.get(name) if isinstance(name, str) else None
    if loader is None:
        found = repr(name[:80]) if isinstance(name, str) else "no name"
        raise unknown(folder, f"model is {found}, in place of {', '.join(_LOADERS)}")
    return loader(folder, config, device, options.dtype)


def _sensevoice(folder: Path, config: dict[str, Any], device: str, dtype: Dtype) -> SenseVoice:
    known = architecture(folder, config, SenseVoiceConfig)
    pieces = read_pieces(folder)
    network = SenseVoiceNetwork(known.encoder_conf.size(WIDTH), len(pieces))
    load_weights(network, folder)
    in_dtype(network, dtype)
    return SenseVoice(
        network.to(device), _features(folder, device), pieces, device, _batch_s(device)
    )


def _paraformer(folder: Path, config: dict[str, Any], device: str, dtype: Dtype) -> Paraformer:
    known = architecture(folder, config, ParaformerConfig)
    tokens = TokenList(read_tokens(folder))
    network = ParaformerNetwork(
        known.encoder_conf.size(WIDTH),
        known.decoder_conf.size(len(tokens), known.encoder_conf.output_size),
        PredictorSize(
            known.predictor_conf.l_order,
            known.predictor_conf.r_order,
            known.predictor_conf.tail_threshold,
        ),
    )
    load_weights(network, folder)
    in_dtype(network, dtype, exact=[network.predictor])
    network.to(device)
    features = _features(folder, device, known.frontend_conf.fs)
    return Paraformer(network, features, tokens, device, _batch_s(device))


def _seaco(folder: Path, config: dict[str, Any], device: str, dtype: Dtype) -> Seaco:
    known = architecture(folder, config, SeacoConfig)
    names = read_tokens(folder)
    width = known.encoder_conf.output_size
    if known.model_conf.inner_dim != width:
        inner = known.model_conf.inner_dim
        raise unknown(folder, f"inner_dim is {inner}, and the encoder's width {width}")
    if known.model_conf.no_bias >= len(names):
        raise unknown(folder, f"NO_BIAS is {known.model_conf.no_bias}, of {len(names)} tokens")
    network = SeacoNetwork(
        known.encoder_conf.size(WIDTH),
        known.decoder_conf.size(len(names), width),
        known.seaco_decoder_conf.size(len(names), width),
        known.predictor_conf,
        known.model_conf.no_bias,
    )
    load_weights(network, folder)
    in_dtype(network, dtype, exact=[network.predictor, network.bias_encoder])
    network.to(device)
    hotwords = Hotwords(names, read_syllables(folder))
    tokens = TokenList(names)
    return Seaco(network, _features(folder, device), tokens, hotwords, device, _batch_s(device))


_LOADERS: Final[dict[str, Callable[[Path, dict[str, Any], str, Dtype], OfflineModel]]] = {
    "SenseVoiceSmall": _sensevoice,
    "Paraformer": _paraformer,
    "SeacoParaformer": _seaco,
}


def _features(folder: Path, device: str, sample_rate: int = SAMPLE_RATE) -> WholeFeatures:
    normalisation = read_normalisation(folder, WIDTH)
    return WholeFeatures(STACK, STRIDE, normalisation, sample_rate).to(device)


def _batch_s(device: str) -> float:
    return _MAX_BATCH_S[device.partition(":")[0]]
