"""What makes a voice that of a person, as numbers.

Keys of the metadata: sherpa-onnx 1.13.4, speaker-embedding-extractor-model.cc and
speaker-embedding-extractor-impl.cc. Where ``framework`` is unknown, the runtime (2.0.1) makes an
extractor all the same, and the process ends when it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import sherpa_onnx

from app.audio.pcm import Float32
from app.core.errors import BadAudio
from app.engines.base import Progress, SpeakerEmbedderCapabilities
from app.engines.sherpa.folder import onnx_paths, refusals, the_file, unusable
from app.engines.sherpa.kinds import RATES
from app.engines.sherpa.onnx_file import OnnxFile, read_onnx

SHORTEST_MS: Final = 500
"""Of audio: less does not tell one person from another."""
_FRAMEWORKS: Final = ("wespeaker", "3d-speaker")
_MOST_NUMBERS: Final = 4_096


class SherpaEmbedder:
    """An :class:`app.engines.base.SpeakerEmbedder` over a ``SpeakerEmbeddingExtractor``."""

    def __init__(self, runtime: Any, sample_rate: int) -> None:
        self._runtime = runtime
        self._capabilities = SpeakerEmbedderCapabilities(
            sample_rate=sample_rate, dimension=runtime.dim
        )

    @property
    def capabilities(self) -> SpeakerEmbedderCapabilities:
        """Constant for the life of the object."""
        return self._capabilities

    def embed(self, samples: Float32) -> Float32:
        """The embedding of all of ``samples``, of length 1.

        Raises:
            BadAudio: there is less than half a second, or nothing to be heard.
        """
        rate = self._capabilities.sample_rate
        if samples.size * 1000 < rate * SHORTEST_MS:
            raise BadAudio("The audio is too short to tell whose voice it is.")
        if not np.isfinite(samples).all():
            raise ValueError("the audio has samples that are no numbers")
        if not samples.any():
            raise BadAudio("The audio is silent.")
        stream = self._runtime.create_stream()
        # At the model's own rate: at any other the runtime would write about each stream.
        stream.accept_waveform(rate, np.clip(samples, -1.0, 1.0))
        stream.input_finished()
        if not self._runtime.is_ready(stream):
            raise BadAudio("The audio is too short to tell whose voice it is.")
        found = np.array(self._runtime.compute(stream), np.float32)
        length = float(np.linalg.norm(found))
        if not np.isfinite(length) or length == 0:
            raise RuntimeError("the model gives no embedding")
        return found / np.float32(length)


def load_embedder(folder: Path, threads: int, progress: Progress) -> SherpaEmbedder:
    """The speaker embedding model in ``folder``, on ``threads`` of the CPU. Slow and blocking.

    Raises:
        EngineNotUsable: there is none, or the runtime could not work with it.
    """
    file = read_onnx(the_file(folder, onnx_paths(folder), "*.onnx"))
    rate = _checked(file)
    progress(f"loading {folder.name}")
    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(
        model=str(file.path), num_threads=threads, provider="cpu"
    )
    with refusals(file.path):
        return SherpaEmbedder(sherpa_onnx.SpeakerEmbeddingExtractor(config), rate)


def _checked(file: OnnxFile) -> int:
    """The sample rate in Hz of a model that the runtime can work with."""
    if file.text("framework") not in _FRAMEWORKS:
        names = " or ".join(_FRAMEWORKS)
        raise unusable(file.path, f"framework in its metadata is not {names}")
    file.text("language")
    file.number("normalize_samples")
    dimension, rate = file.number("output_dim", least=1), file.number("sample_rate", least=1)
    told = file.outputs[0][-1] if file.outputs[0] else None
    if dimension > _MOST_NUMBERS or told not in (None, dimension):
        raise unusable(file.path, f"output_dim is {dimension} in its metadata")
    if not RATES[0] <= rate <= RATES[1]:
        raise unusable(file.path, f"sample_rate is {rate} in its metadata")
    return rate
