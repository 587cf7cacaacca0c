"""What a second of one stream costs a core: zipformers of the published sizes with sherpa-onnx, at
several batch sizes, against the embedded engine and against FunASR's model in our own; and whether
streams that share their calls hear what they hear alone.

CPU time of the process, whose engines have a thread each, not of the clock: others may use the
cores meanwhile. All sides take turns (``turns.py``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import sherpa_onnx

from app.core.speech import RecognitionOptions
from app.engines.base import Feed, RecognizerParts, SentenceRecognizer
from app.engines.registry import load
from app.engines.sherpa.kinds import find_model
from app.engines.sherpa.rows import independent
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.streaming import StreamingRecognizer, load_streaming
from benchmarks.asr_speech import heard
from benchmarks.random_zipformer import LARGE, SMALL, Size, quantised, write_transducer
from benchmarks.report import Figure
from benchmarks.turns import Side, Turns, take_turns

Form = Literal["fp32", "int8", "published"]

FORMS: Final[tuple[Form, ...]] = ("fp32", "int8", "published")
"""``int8``: as the engine runs it. ``published``: one scale for a whole call, which lets streams
disturb each other."""

_FORMS_IN_WORDS: Final = {
    "fp32": "fp32",
    "int8": "int8 by rows",
    "published": "int8 as published",
    "greedy": "int8 by rows, greedy search",
}

SIZES: Final[dict[str, Size]] = {"small": SMALL, "large": LARGE}

TOGETHER: Final = 16
"""The engine's own batch, and the streams that are compared with what they hear alone."""

_RATE: Final = 16_000
_SPEECH_S: Final = 12.0
_COMPARED_S: Final = 4.8


@dataclass(frozen=True, slots=True)
class Plan:
    """``sizes``: batches of each model. ``turns`` of all sides."""

    sizes: Sequence[int] = (1, 4, 8, 16, 32)
    turns: int = 15


QUICK: Final = Plan(turns=7)


@dataclass
class Costs(Turns):
    """CPU seconds for a second of one stream, turn by turn.

    By name: ``small_int8_b16`` for the small model, int8 by rows, at a batch of 16;
    ``small_greedy_b16`` without beam search; ``embedded``; ``funasr_int8_b16``. ``alike``: of
    ``TOGETHER`` streams, how many hear in shared calls what they hear alone, by ``small_int8``.
    ``news``: share of the chunks with a new interim result, of the same.
    """

    alike: dict[str, int] = field(default_factory=dict)
    news: dict[str, float] = field(default_factory=dict)

    def streams(self, name: str) -> float:
        """That one core carries in real time; NaN for what was not measured."""
        return 1000 / self.ms(name)

    def figures(self) -> list[Figure]:
        """For the table."""
        rows: list[Figure] = []
        for name in self.seconds:
            rows.append(Figure(f"{_in_words(name)}: streams per core", self.streams(name), ""))
            if name.endswith(f"_b{TOGETHER}"):
                alone = name.replace(f"_b{TOGETHER}", "_b1")
                rows.append(Figure("  against one at a time", self.ratio(alone, name), "×"))
        usual = f"small_int8_b{TOGETHER}"
        rows += [
            Figure(f"{_in_words(usual)}, against {_in_words(other)}", self.ratio(other, usual), "×")
            for other in ("embedded", f"funasr_fp32_b{TOGETHER}", f"funasr_int8_b{TOGETHER}")
            if other in self.seconds
        ]
        rows += [
            Figure(f"{_in_words(name)}: of {TOGETHER} streams together, as alone", count, "")
            for name, count in self.alike.items()
        ]
        return rows

    def as_dict(self) -> dict[str, Any]:
        """For JSON. ``ms``: CPU time for a second of one stream."""
        return {
            "ms": {name: self.ms(name) for name in self.seconds},
            "streams_per_core": {name: self.streams(name) for name in self.seconds},
            "gain": {
                name: self.ratio(name.rpartition("_b")[0] + "_b1", name)
                for name in self.seconds
                if "_b" in name
            },
            "alike": self.alike,
            "news": self.news,
            "versions": {"sherpa-onnx": version("sherpa-onnx")},
        }


def _in_words(name: str) -> str:
    """``small_int8_b16`` for people."""
    if name == "embedded":
        return "embedded"
    head, _, batch = name.partition("_b")
    who, form = head.split("_")
    how = form if who == "funasr" else _FORMS_IN_WORDS[form]
    return f"{who}, {how}" + (f", batch {batch}" if batch else "")


# Models


def write_models(folder: Path, sizes: dict[str, Size]) -> None:
    """NAME/fp32 and NAME/int8 of each size, as far as they are not there."""
    for name, size in sizes.items():
        if not (folder / name / "int8" / "tokens.txt").exists():  # which is written last
            quantised(write_transducer(folder / name / "fp32", size), folder / name / "int8")


def load_form(folder: Path, form: Form, slots: int) -> StreamingRecognizer:
    """The model in ``folder``, of those of :func:`write_models`. ``slots``: streams, and the most
    in a call."""
    model = find_model(folder / ("fp32" if form == "fp32" else "int8"), "streaming")
    options = SherpaOptions(slots=slots, max_batch=slots)
    if form == "published":
        return load_streaming(replace(model, batches=True), options, _silent)
    with independent(model) as runnable:
        return load_streaming(runnable, options, _silent)


def load_greedy(folder: Path, slots: int) -> StreamingRecognizer:
    """The int8 model by rows, without the search that hotwords need: the engine never has it so."""
    with independent(find_model(folder / "int8", "streaming")) as model:
        recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
            tokens=str(model.tokens),
            **{name: str(path) for name, path in model.files.items()},
            num_threads=1,
            enable_endpoint_detection=False,
            decoding_method="greedy_search",
        )
        return StreamingRecognizer(recognizer, model, hotwords=None, slots=slots, max_batch=slots)


def _silent(text: str) -> None:
    pass


# Sides


class Stepping:
    """An engine as the worker calls it, with ``batch`` streams that all get a chunk at once. A call
    gives the CPU seconds for a second of one of them."""

    def __init__(self, engine: SentenceRecognizer, batch: int, steps: int = 1) -> None:
        self._engine = engine
        self._streams = [engine.open(RecognitionOptions()) for _ in range(batch)]
        self._audio = [heard(number, _SPEECH_S) for number in range(batch)]
        self._samples = engine.capabilities.step_ms * _RATE // 1000
        self._steps = steps
        self._at = 0

    def __call__(self) -> float:
        began = time.process_time()
        for _ in range(self._steps):
            self._step()
        seconds = time.process_time() - began
        return seconds * _RATE / (len(self._streams) * self._steps * self._samples)

    def _step(self) -> None:
        if self._at + self._samples > len(self._audio[0]):
            self._at = 0
        end = self._at + self._samples
        feeds = [
            Feed(stream, audio[self._at : end], last=False)
            for stream, audio in zip(self._streams, self._audio, strict=True)
        ]
        self._at = end
        for result in self._engine.step(feeds):
            if isinstance(result, Exception):
                raise result


def measure(folder: Path, plan: Plan, paraformer: Path | None) -> Costs:
    """All sides, on models in ``folder``, which are made if they are not there. ``paraformer``:
    FunASR's streaming model; None: without it. The embedded engine only if it is installed."""
    write_models(folder, SIZES)
    costs = Costs()
    sides: dict[str, Side] = {}
    for name in SIZES:
        for form in FORMS:
            engine = load_form(folder / name, form, sum(plan.sizes))
            sides |= {f"{name}_{form}_b{size}": Stepping(engine, size) for size in plan.sizes}
        greedy = load_greedy(folder / name, 1 + TOGETHER)
        sides |= {f"{name}_greedy_b{size}": Stepping(greedy, size) for size in (1, TOGETHER)}
    sides |= _others(paraformer)
    take_turns(sides, plan.turns, costs)
    for name in SIZES:
        for form in FORMS:
            engine = load_form(folder / name, form, TOGETHER)
            same, news = compare(engine)
            costs.alike[f"{name}_{form}"], costs.news[f"{name}_{form}"] = same, news
    return costs


def _others(paraformer: Path | None) -> dict[str, Side]:
    """The other engines of this machine."""
    sides: dict[str, Side] = {}
    if find_spec("pocketsphinx") is not None:
        engine = load("embedded").recognizer("cpu", {}, _silent)
        assert not isinstance(engine, RecognizerParts)
        sides["embedded"] = Stepping(engine, 1, steps=5)  # type: ignore[arg-type]  # by sentence
    if paraformer is not None:
        sides |= _of_funasr(paraformer)
    return sides


def _of_funasr(folder: Path) -> dict[str, Side]:
    import torch

    from app.engines.funasr.recognizer import load_streaming as load_paraformer
    from app.engines.funasr.settings import Dtype, FunasrOptions

    torch.set_num_threads(1)
    sides: dict[str, Side] = {}
    dtypes: tuple[Dtype, ...] = ("fp32", "int8")
    for dtype in dtypes:
        options = FunasrOptions(dtype=dtype, slots=1 + TOGETHER, max_batch=TOGETHER, threads=1)
        engine = load_paraformer(folder, "cpu", options, _silent)
        sides |= {f"funasr_{dtype}_b{size}": Stepping(engine, size) for size in (1, TOGETHER)}
    return sides


# Together as alone


def compare(engine: StreamingRecognizer) -> tuple[int, float]:
    """Of ``TOGETHER`` streams in shared calls, how many have all the results, interim ones too,
    that they have alone; and the share of their chunks with a new one."""
    together = _results(engine, range(TOGETHER))
    alone = [_results(engine, [number])[0] for number in range(TOGETHER)]
    same = sum(first == second for first, second in zip(together, alone, strict=True))
    pairs = [pair for texts in together for pair in zip(["", *texts], texts, strict=False)]
    return same, sum(before != after for before, after in pairs) / len(pairs)


def _results(engine: StreamingRecognizer, numbers: Sequence[int]) -> list[list[str]]:
    """Of these streams in shared calls: each one's texts, step by step."""
    streams = [engine.open(RecognitionOptions()) for _ in numbers]
    audio = [heard(number, _COMPARED_S) * _level(number) for number in numbers]
    texts: list[list[str]] = [[] for _ in numbers]
    size = engine.capabilities.step_ms * _RATE // 1000
    for begin in range(0, len(audio[0]), size):
        last = begin + size >= len(audio[0])
        feeds = [
            Feed(stream, samples[begin : begin + size], last=last)
            for stream, samples in zip(streams, audio, strict=True)
        ]
        for found, result in zip(texts, engine.step(feeds), strict=True):
            if isinstance(result, Exception):
                raise result
            found.append(result.text)
    return texts


def _level(number: int) -> float:
    """Loud and quiet ones: one scale for all takes precision from the quiet."""
    return (1.0, 0.3, 0.1, 0.03)[number % 4]
