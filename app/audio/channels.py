"""What is heard of a recording with several channels: all of them at once, or one by itself, where
each has a speaker of its own (a recorded telephone call)."""

from __future__ import annotations

import numpy as np

from app.audio.pcm import Float32, Int16

Channel = int | None
"""The one that is heard, from 0; None: all of them, mixed."""


def heard(frames: Int16, channel: Channel) -> Int16:
    """One value of each frame; shape (n, channels) to (n,).

    The mean, which is what a recogniser hears of a room, or that of ``channel``. Silence where
    there is no such channel: a stream may be mono in parts, and its times must hold.
    """
    if channel is None:
        return _mean(frames)
    if channel >= frames.shape[1]:
        return np.zeros(len(frames), np.int16)
    # A copy: a view would keep all channels in memory.
    return np.array(frames[:, channel], order="C")


def _mean(frames: Int16) -> Int16:
    if frames.shape[1] == 1:
        return np.array(frames[:, 0], order="C")
    mean: Float32 = frames.mean(axis=1, dtype=np.float32)
    return np.rint(mean, out=mean).astype(np.int16)
