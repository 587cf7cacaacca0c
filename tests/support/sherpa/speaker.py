"""A speaker embedding of wespeaker's kind: the mean energy of each letter's band.

Inputs, outputs and metadata: sherpa-onnx 1.13.4, speaker-embedding-extractor-model.cc, and
speaker-embedding-extractor-impl.cc for ``model_type``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx
from numpy.typing import NDArray

from app.audio.pcm import Float32
from tests.support.sherpa.graphs import FLOAT, LETTER_COUNT, Graph, energies, made
from tests.support.sherpa.tones import RATE


def speaker(folder: Path) -> Path:
    """model.onnx in a folder, which is returned."""
    graph = Graph()
    levels = energies(graph, graph.input("feats", FLOAT, ["N", "T", 80]))
    mean = graph.op("ReduceMean", levels, axes=[1], keepdims=0)
    graph.output(mean, "embs", FLOAT, ["N", LETTER_COUNT])
    metadata = {
        "model_type": "wespeaker",
        "framework": "wespeaker",
        "language": "Chinese",
        "output_dim": LETTER_COUNT,
        "sample_rate": RATE,
        "normalize_samples": 1,
    }
    graph.save(made(folder) / "model.onnx", metadata)
    return folder


def load_speaker(folder: Path) -> sherpa_onnx.SpeakerEmbeddingExtractor:
    """The extractor of a folder."""
    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(
        model=str(folder / "model.onnx"), num_threads=1
    )
    return sherpa_onnx.SpeakerEmbeddingExtractor(config)


def embedding(extractor: Any, samples: Float32) -> NDArray[np.float64]:
    """The embedding of a sound of 16 kHz, shape (letters,)."""
    stream = extractor.create_stream()
    stream.accept_waveform(RATE, samples)
    stream.input_finished()
    assert extractor.is_ready(stream)
    return np.array(extractor.compute(stream))
