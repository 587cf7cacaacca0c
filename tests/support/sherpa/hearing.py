"""How tests run the runtime's recognisers: one stream alone, many in shared calls, sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import sherpa_onnx

from app.audio.pcm import Float32
from tests.support.sherpa.tones import RATE, silence

TAIL_MS: Final = 660
"""Silence that brings the last frames out of the model: ``input_finished`` alone does not."""
_STEP: Final = RATE // 10


@dataclass(slots=True, eq=False)
class _Feed:
    """A stream and what it has not got yet; it joins after some rounds."""

    stream: sherpa_onnx.OnlineStream
    samples: Float32
    wait: int
    done: bool = False

    def give(self) -> None:
        """The next 100 ms, and after the last ones the end."""
        if self.done or self.wait:
            self.wait = max(self.wait - 1, 0)
            return
        self.stream.accept_waveform(RATE, self.samples[:_STEP])
        self.samples = self.samples[_STEP:]
        if not self.samples.size:
            finish(self.stream)
            self.done = True


def finish(stream: sherpa_onnx.OnlineStream) -> None:
    """The end of a stream: silence, and word that no more comes."""
    stream.accept_waveform(RATE, silence(TAIL_MS))
    stream.input_finished()
    # Only the streaming Paraformer knows it: without it, its last 600 ms are lost.
    stream.set_option("is_final", "1")


def alone(recognizer: sherpa_onnx.OnlineRecognizer, samples: Float32, hotwords: str = "") -> Any:
    """What a recogniser hears in one stream."""
    return together(recognizer, [samples], [hotwords])[0][0]


def together(
    recognizer: sherpa_onnx.OnlineRecognizer,
    sounds: Sequence[Float32],
    hotwords: Sequence[str] = (),
) -> tuple[list[Any], list[int]]:
    """What it hears in streams that share calls, and how many streams each call had.

    They begin up to four steps of 100 ms after one another, and end when they end.
    """
    feeds = [
        _Feed(_stream(recognizer, words), sound, wait=index % 5)
        for index, (sound, words) in enumerate(
            zip(sounds, hotwords or [""] * len(sounds), strict=True)
        )
    ]
    calls = []
    while not all(feed.done for feed in feeds):
        for feed in feeds:
            feed.give()
        while ready := [feed.stream for feed in feeds if recognizer.is_ready(feed.stream)]:
            recognizer.decode_streams(ready)
            calls.append(len(ready))
    return [recognizer.get_result_all(feed.stream) for feed in feeds], calls


def sentences(
    recognizer: sherpa_onnx.OfflineRecognizer,
    sounds: Sequence[Float32],
    options: Sequence[dict[str, str]] = (),
) -> list[Any]:
    """What an offline recogniser hears in sounds that share a call, each with its options."""
    streams = []
    for sound, chosen in zip(sounds, options or [{}] * len(sounds), strict=True):
        stream = recognizer.create_stream()
        stream.accept_waveform(RATE, sound)
        for name, value in chosen.items():
            stream.set_option(name, value)
        streams.append(stream)
    recognizer.decode_streams(streams)
    return [stream.result for stream in streams]


def padded(samples: Float32) -> Float32:
    """A sound with silence on both sides, for one that begins and ends with a tone."""
    return np.concatenate([silence(300), samples, silence(300)])


def _stream(recognizer: sherpa_onnx.OnlineRecognizer, hotwords: str) -> sherpa_onnx.OnlineStream:
    return recognizer.create_stream(hotwords) if hotwords else recognizer.create_stream()
