"""Speed, pitch and volume, for engines that do not do these exactly themselves.

One FFmpeg filter graph per stream. PyAV is imported when the first graph is built: most requests
want the voice as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from app.audio.pcm import EMPTY, Float32, Int16, joined

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.filter import Graph

LIMIT: Final = 0.97
"""Greatest amplitude after amplification. alimiter overshoots its limit by a little, so it is not
1.0."""

_TEMPO_RANGE: Final = (0.5, 2.0)
"""What one atempo filter does well; beyond 2 it skips samples. Others need a chain."""

_TOLERANCE: Final = 1e-3

_TAIL_SECONDS: Final = 0.25


def needed(speed: float, pitch: float, volume: float) -> bool:
    """Whether any factor differs from 1.0 by more than can be heard (0.1 %)."""
    return any(abs(factor - 1.0) > _TOLERANCE for factor in (speed, pitch, volume))


def apply_volume(samples: Int16, volume: float) -> Int16:
    """Multiply by ``volume`` in [0, 1], rounded; never clips, keeps no state."""
    scaled: Float32 = np.rint(samples * np.float32(volume))
    return scaled.astype(np.int16)


class Prosody:
    """Changes one mono stream at ``sample_rate`` (Hz).

    ``speed``: 2.0 is twice as fast, the pitch stays. ``pitch``: factor on the frequencies, the
    duration stays. ``volume``: factor on the amplitude; above 1.0 a limiter keeps loud places from
    clipping. Speed and pitch are for 0.5 to 2.0, volume for 0.0 to 2.0.

    Output lags the input by up to 0.2 s if speed or pitch change, and by nothing if only the volume
    is lowered. Blocking work (about 1 ms per second of audio): call it in a thread. Not for use by
    two threads at once.

    Raises:
        ValueError: a factor that is not a finite number above 0 (volume may be 0).
    """

    def __init__(self, sample_rate: int, speed: float, pitch: float, volume: float) -> None:
        finite = all(math.isfinite(factor) for factor in (speed, pitch, volume))
        if not finite or speed <= 0 or pitch <= 0 or volume < 0:
            raise ValueError("speed and pitch must be above 0, volume 0 or above")
        self._sample_rate = sample_rate
        self._position = 0
        self._given = 0
        self._speed = speed
        self._volume = volume
        self._graph: Graph | None = None
        if needed(speed, pitch, 1.0) or volume > 1.0:
            self._graph = _build(sample_rate, _filters(sample_rate, speed, pitch, volume))

    def feed(self, samples: Int16) -> Int16:
        """Take in the next samples, and return what is ready: shape (n,), maybe empty."""
        if self._graph is None:
            return apply_volume(samples, self._volume)
        if not samples.size:
            return EMPTY
        self._graph.push(self._frame(samples))
        ready = joined(_ready(self._graph))
        self._given += ready.size
        return ready

    def flush(self) -> Int16:
        """The stream has ended: the rest, so that all output together is ``round(n / speed)``
        samples for ``n`` of input. The object is used up."""
        if self._graph is None or not self._position:
            return EMPTY
        missing = max(0, round(self._position / self._speed) - self._given)
        # atempo drops up to 50 ms at the end, so silence is put behind what must come out.
        silence = np.zeros(int(self._sample_rate * _TAIL_SECONDS * max(1.0, self._speed)), np.int16)
        self._graph.push(self._frame(silence))
        self._graph.push(None)
        tail = joined(_ready(self._graph))[:missing]
        return np.pad(tail, (0, missing - tail.size))

    def _frame(self, samples: Int16) -> AudioFrame:
        from av.audio.frame import AudioFrame

        packed = np.ascontiguousarray(samples).reshape(1, -1)
        frame = AudioFrame.from_ndarray(packed, format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.pts = self._position
        self._position += samples.size
        return frame


def _filters(
    sample_rate: int, speed: float, pitch: float, volume: float
) -> Iterator[tuple[str, str]]:
    """The chain as (filter, arguments), in order."""
    if needed(1.0, pitch, 1.0):
        # Played back at another rate, pitch and speed change together; atempo then puts the
        # speed right.
        yield "asetrate", str(round(sample_rate * pitch))
        yield "aresample", str(sample_rate)
    tempo = speed / (round(sample_rate * pitch) / sample_rate)
    if needed(tempo, 1.0, 1.0):
        for factor in _tempo_steps(tempo):
            yield "atempo", f"{factor:.9f}"
    if needed(1.0, 1.0, volume):
        # In float, so that the limiter sees the peaks that int16 would have cut.
        yield "aformat", "sample_fmts=dbl"
        yield "volume", f"volume={volume:.6f}:precision=double"
    if volume > 1.0:
        # level=0: no automatic gain. latency=1: the look-ahead does not shift the audio.
        yield "alimiter", f"limit={LIMIT}:level=0:attack=5:release=50:latency=1"
    yield "aformat", f"sample_fmts=s16:sample_rates={sample_rate}:channel_layouts=mono"


def _tempo_steps(tempo: float) -> list[float]:
    """Equal factors within the range of one atempo filter, whose product is ``tempo``."""
    low, high = _TEMPO_RANGE
    widest = math.log(high if tempo > 1 else low)
    # The small number keeps 2.0 itself one step, however its logarithm was rounded.
    steps = max(1, math.ceil(math.log(tempo) / widest - 1e-9))
    return [tempo ** (1 / steps)] * steps


def _build(sample_rate: int, filters: Iterator[tuple[str, str]]) -> Graph:
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    nodes = [graph.add_abuffer(sample_rate=sample_rate, format="s16", layout="mono")]
    nodes += [graph.add(name, arguments) for name, arguments in filters]
    nodes.append(graph.add("abuffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def _ready(graph: Graph) -> Iterator[Int16]:
    """Every frame that the graph can give now."""
    from av import AudioFrame
    from av.error import BlockingIOError as NeedsMoreInput
    from av.error import EOFError as Ended

    while True:
        try:
            frame = graph.pull()
        except (NeedsMoreInput, Ended):
            return
        if isinstance(frame, AudioFrame):
            yield frame.to_ndarray().reshape(-1).astype(np.int16, copy=False)
