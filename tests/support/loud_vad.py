"""What segmenting needs besides an engine: a voice detector whose answers can be computed, and the
form of an engine in parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.audio.pcm import Float32
from app.engines.base import RecognizerParts, SentenceRecognizer


class LoudVad:
    """A :class:`app.engines.base.VoiceDetector`: speech is what is loud. ``calls`` counts the
    batches."""

    def __init__(self, window_samples: int = 512) -> None:
        self.window_samples = window_samples
        self.calls = 0

    def new_state(self) -> object:
        """Nothing has to be remembered."""
        return object()

    def probabilities(self, states: Sequence[object], windows: Float32) -> Float32:
        """1 or 0 for each window."""
        self.calls += 1
        assert windows.shape == (len(states), self.window_samples)
        loud: Float32 = (np.abs(windows).max(axis=1) > 0.05).astype(np.float32)
        return loud


def parts_of(engine: SentenceRecognizer) -> RecognizerParts:
    """An engine that has only a first pass."""
    return RecognizerParts(engine.capabilities, engine)
