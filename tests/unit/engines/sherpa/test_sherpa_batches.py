"""How many streams share each call of the runtime, and that none of them notices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions
from app.engines import registry
from app.engines.base import Feed, Hypothesis, RecognizerParts
from app.engines.sherpa.kinds import find_model
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.streaming import StreamingRecognizer, load_streaming
from tests.support.sherpa import paraformer, zipformer1, zipformer2
from tests.support.sherpa.int8 import in_int8
from tests.support.sherpa.tones import LETTERS, spoken, tones

STREAMS = 20
MOST = 16
"""SHERPA_MAX_BATCH, unless it is set."""
KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zipformer2": (zipformer2.transducer, "encoder.onnx"),
    "zipformer1": (zipformer1.transducer, "encoder.onnx"),
    "ctc": (zipformer2.ctc, "model.onnx"),
    "paraformer": (paraformer.streaming, "encoder.onnx"),
}
AMBIGUOUS = tones([0, (1, 2), 3])
"""你, then 好 and 世 at once, then 界."""


class Counting:
    """A recogniser's runtime that notes how many streams each call has."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def decode_streams(self, streams: list[Any]) -> None:
        self.calls.append(len(streams))
        self._runtime.decode_streams(streams)


def loaded(folder: Path) -> StreamingRecognizer:
    """As the worker loads it."""
    settings = {
        "SHERPA_STREAMING_MODEL": str(folder),
        "SHERPA_OFFLINE_MODEL": "none",
        "SHERPA_PUNCTUATION_MODEL": "none",
    }
    parts = registry.load("sherpa").recognizer("cpu", settings, lambda doing: None)
    assert isinstance(parts, RecognizerParts)
    assert isinstance(parts.streaming, StreamingRecognizer)
    return parts.streaming


def counting(recognizer: StreamingRecognizer, monkeypatch: pytest.MonkeyPatch) -> Counting:
    runtime = Counting(recognizer._recognizer)
    monkeypatch.setattr(recognizer, "_recognizer", runtime)
    return runtime


def heard(
    recognizer: StreamingRecognizer,
    sounds: Sequence[Float32],
    options: Sequence[RecognitionOptions],
) -> list[list[Hypothesis]]:
    """All hypotheses of sounds of one length, which begin and end together."""
    streams = [recognizer.open(each) for each in options]
    step = 16 * recognizer.capabilities.step_ms
    found: list[list[Hypothesis]] = [[] for _ in streams]
    for begin in range(0, sounds[0].size, step):
        last = begin + step >= sounds[0].size
        feeds = [
            Feed(stream, sound[begin : begin + step], last)
            for stream, sound in zip(streams, sounds, strict=True)
        ]
        for hypotheses, answer in zip(found, recognizer.step(feeds), strict=True):
            assert isinstance(answer, Hypothesis)
            hypotheses.append(answer)
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_streams_take_two_calls_a_chunk_and_give_what_they_give_alone(
    kind: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, file = KINDS[kind]
    folder = build(tmp_path)
    if precision == "int8":
        in_int8(folder / file)
    recognizer = loaded(folder)
    runtime = counting(recognizer, monkeypatch)
    rng = np.random.default_rng(6)
    said = ["".join(rng.choice(list(LETTERS), 10)) for _ in range(STREAMS)]
    sounds = [spoken(text) for text in said]
    options = [RecognitionOptions(words=True)] * STREAMS
    alone = []
    for sound, option in zip(sounds, options, strict=True):
        runtime.calls.clear()
        alone += heard(recognizer, [sound], [option])
    chunks = len(runtime.calls)
    runtime.calls.clear()
    together = heard(recognizer, sounds, options)
    assert runtime.calls == [MOST, STREAMS - MOST] * chunks
    assert chunks > 3
    assert together == alone
    assert [hypotheses[-1].text for hypotheses in together] == said
    assert len({hypotheses[len(hypotheses) // 2].text for hypotheses in together}) > STREAMS // 2


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("kind", ["zipformer2", "zipformer1", "ctc"])
def test_in_int8_faint_streams_do_not_depend_on_their_mates(
    kind: str, as_published: bool, tmp_path: Path
) -> None:
    build, file = KINDS[kind]
    folder = build(tmp_path)
    in_int8(folder / file)
    if as_published:  # what they give then shows that these sounds would tell
        model = replace(find_model(folder, "streaming"), batches=True)
        recognizer = load_streaming(model, SherpaOptions(), lambda doing: None)
    else:
        recognizer = loaded(folder)
    rng = np.random.default_rng(6)
    sounds = [faint(rng, noise=1e-3 if i % 5 else 0.0) for i in range(STREAMS)]
    options = [RecognitionOptions(words=True)] * STREAMS
    alone = [heard(recognizer, [sound], options[:1])[0] for sound in sounds]
    together = heard(recognizer, sounds, options)
    assert (together != alone) == as_published


def faint(rng: np.random.Generator, *, noise: float) -> Float32:
    """Ten letters, the first of them not loud enough to be heard by every model."""
    sound = spoken("".join(rng.choice(list(LETTERS), 10)))
    sound *= np.linspace(0.1, 1.0, sound.size, dtype=np.float32) * np.float32(
        rng.uniform(0.007, 0.1)
    )
    return sound + rng.normal(0, noise, sound.size).astype(np.float32)


def test_hotwords_change_from_session_to_session_in_one_loaded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    load = sherpa_onnx.OnlineRecognizer.from_transducer

    def loading(**options: Any) -> Any:
        loads.append(options)
        return load(**options)

    monkeypatch.setattr(sherpa_onnx.OnlineRecognizer, "from_transducer", loading)
    recognizer = loaded(zipformer2.transducer(tmp_path))
    runtime = counting(recognizer, monkeypatch)
    lists: list[tuple[tuple[str, float], ...]] = [
        (),
        (("世界", 5.0),),
        (("明天", 2.0), ("世界", 4.0)),
        (("明天", 2.0),),
    ]
    texts = {0: "你好界", 1: "你世界", 2: "你世界", 3: "你好界"}
    for session in range(4):
        chosen = [(session + stream) % len(lists) for stream in range(STREAMS)]
        options = [RecognitionOptions(hotwords=lists[each]) for each in chosen]
        found = heard(recognizer, [AMBIGUOUS] * STREAMS, options)
        assert [each[-1].text for each in found] == [texts[each] for each in chosen]
    assert set(runtime.calls) == {MOST, STREAMS - MOST}
    assert len(loads) == 1
