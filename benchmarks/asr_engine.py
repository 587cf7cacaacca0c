"""What a chunk of a stream costs on one core: FunASR, one stream after the other, against our
engine at several batch sizes; and an old stream against a young one.

CPU time of one thread, not of the clock: others may use the cores meanwhile. All sides take turns,
a chunk each (``turns.py``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from app.core.speech import RecognitionOptions
from app.engines.base import Feed
from app.engines.funasr import checkpoint
from app.engines.funasr.executor import Chunking, EagerForward, Executor, Heard, Part
from app.engines.funasr.features import WIDTH
from app.engines.funasr.recognizer import StreamingRecognizer
from app.engines.funasr.settings import Dtype
from app.engines.funasr.streaming import StreamingParaformer, load_model
from app.engines.funasr.tokens import TokenList
from benchmarks import asr_funasr
from benchmarks.asr_speech import heard
from benchmarks.report import Figure
from benchmarks.turns import Side, Turns, take_turns

CHUNKING: Final = Chunking()
CHUNK_S: Final = 0.6
TWO_HOURS: Final = round(7200 / CHUNK_S)
"""Chunks."""
YOUNG: Final = 8
"""Chunks: the look-back is full, and the ring is where it is after two hours."""

TARGETS: Final = {"fp32_b8": "≥ 2.6", "int8_b16": "≥ 7"}

_AUDIO_CHUNKS: Final = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """``sizes``: batches of ours, each in fp32 and int8. ``turns`` of all sides, and ``pairs`` of
    a young stream and an old one."""

    sizes: Sequence[int] = (1, 2, 4, 8, 16)
    turns: int = 15
    pairs: int = 31


QUICK: Final = Plan((1, 4, 8, 16), 7, 15)


@dataclass
class Costs(Turns):
    """CPU seconds of a chunk of one stream, turn by turn.

    By name: ``funasr_fp32``, ``funasr_int8``, and for instance ``int8_b16`` for ours at a batch of
    16; in turns of their own ``young`` and ``old``, and ``funasr_old``. ``tokens``: found in a
    chunk on average, by ``funasr`` and ``ours``. ``versions``: FunASR's.
    """

    tokens: dict[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_reference(self) -> bool:
        """Whether FunASR was measured."""
        return "funasr_fp32" in self.seconds

    @property
    def base(self) -> str:
        """What batches are compared with: FunASR in fp32, or what is nearest to it."""
        return "funasr_fp32" if self.has_reference else "fp32_b1"

    @property
    def base_in_words(self) -> str:
        """The same for people."""
        if self.has_reference:
            return f"FunASR {self.versions['funasr']} in fp32, one stream after the other"
        return "our own fp32 at a batch of 1: FunASR is not installed (make test-funasr)"

    def figures(self) -> list[Figure]:
        """For the table."""
        sides = [name for name in self.seconds if "_b" in name or name == "funasr_int8"]
        rows = [
            Figure(f"a chunk: {self.base_in_words}", self.ms(self.base), "ms of CPU time"),
            *(
                Figure(f"  {name}: streams per core, ratio", self.ratio(self.base, name), "×")
                for name in sides
            ),
        ]
        if self.has_reference:
            rows = [replace(row, target=_target(row.name)) for row in rows]
        rows.append(Figure("a stream two hours old", self.ratio("old", "young"), "×", "≤ 1.05"))
        if self.has_reference:
            old = self.ratio("funasr_old", "funasr_young")
            rows.append(Figure("  the same of FunASR", old, "×"))
        rows += [
            Figure(f"tokens in a chunk, {who}", number, "") for who, number in self.tokens.items()
        ]
        return rows

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = [name for name in self.seconds if name not in ("young", "old")]
        return {
            "base": self.base_in_words,
            "ms": {name: self.ms(name) for name in names},
            "ratio": {name: self.ratio(self.base, name) for name in names if "_b" in name},
            "funasr_age_2h": self.ratio("funasr_old", "funasr_young"),
            "tokens_per_chunk": self.tokens,
            "versions": dict(self.versions),
        }


def _target(row: str) -> str:
    return next((target for name, target in TARGETS.items() if f" {name}:" in row), "")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model of ours and what belongs to it."""

    model: StreamingParaformer
    normalisation: tuple[torch.Tensor, torch.Tensor] | None
    tokens: TokenList

    @classmethod
    def of(cls, folder: Path, dtype: Dtype) -> Loaded:
        """The model in ``folder``.

        Raises:
            EngineNotUsable: there is none.
        """
        model, names = load_model(folder)
        model.cast(dtype)
        return cls(model, checkpoint.read_normalisation(folder, WIDTH), TokenList(names))


class Ours:
    """Our engine, as the worker calls it, with ``batch`` streams that all get a chunk at once."""

    def __init__(self, loaded: Loaded, batch: int) -> None:
        self._executor = Executor(
            loaded.model, batch, chunking=CHUNKING, normalisation=loaded.normalisation
        )
        self._forward = _Counting(self._executor)
        self._engine = StreamingRecognizer(self._forward, CHUNKING, loaded.tokens, slots=batch)
        self._streams = [self._engine.open(RecognitionOptions()) for _ in range(batch)]
        self._audio = [heard(k, CHUNK_S * _AUDIO_CHUNKS) for k in range(batch)]
        self._slots = torch.arange(batch)
        self._chunks = 0

    def __call__(self) -> float:
        start = self._chunks % _AUDIO_CHUNKS * CHUNKING.samples
        feeds = [
            Feed(stream, audio[start : start + CHUNKING.samples], last=False)
            for stream, audio in zip(self._streams, self._audio, strict=True)
        ]
        self._chunks += 1
        began = time.process_time()
        results = self._engine.step(feeds)
        seconds = time.process_time() - began
        for result in results:
            if isinstance(result, Exception):
                raise result
        return seconds / len(feeds)

    def aged(self, chunks: int) -> Side:
        """The same, with streams that are always so many chunks old."""

        def side() -> float:
            self._executor.set_age(self._slots, chunks)
            return self()

        return side

    @property
    def tokens_per_chunk(self) -> float:
        """So far, on average."""
        return self._forward.tokens / (self._chunks * len(self._streams))


class _Counting(EagerForward):
    """Counts the tokens that fire: the cost depends on them."""

    def __init__(self, executor: Executor) -> None:
        super().__init__(executor)
        self.tokens = 0

    def __call__(self, parts: Sequence[Part]) -> list[Heard]:
        heard = super().__call__(parts)
        self.tokens += sum(len(each.ids) for each in heard)
        return heard


def measure(folder: Path, plan: Plan) -> Costs:
    """All sides, on the model in ``folder``; FunASR only if its interpreter is there.

    Raises:
        ReferenceFailed: FunASR is there and does not work.
    """
    torch.set_num_threads(1)
    costs = Costs()
    with ExitStack() as stack:
        sides: dict[str, Side] = {}
        reference = None
        if (python := asr_funasr.interpreter()) is not None:
            audio = heard(0, CHUNK_S * _AUDIO_CHUNKS)
            rows = TWO_HOURS * CHUNKING.rows
            reference = stack.enter_context(asr_funasr.started(python, folder, audio, rows))
            costs.versions = reference.versions
            sides |= {
                "funasr_fp32": reference.chunk("fp32"),
                "funasr_int8": reference.chunk("int8"),
            }
        models = {"fp32": Loaded.of(folder, "fp32"), "int8": Loaded.of(folder, "int8")}
        ours = {
            f"{dtype}_b{size}": Ours(loaded, size)
            for size in plan.sizes
            for dtype, loaded in models.items()
        }
        take_turns({**sides, **ours}, plan.turns, costs)
        costs.tokens["ours"] = statistics.mean(each.tokens_per_chunk for each in ours.values())
        if reference is not None:
            costs.tokens["funasr"] = reference.tokens / reference.chunks
        ages: dict[str, Side] = {
            "young": Ours(models["fp32"], 1).aged(YOUNG),
            "old": Ours(models["fp32"], 1).aged(TWO_HOURS),
        }
        take_turns(ages, plan.pairs, costs)
        if reference is not None:
            both = {"funasr_young": sides["funasr_fp32"], "funasr_old": reference.chunk("old")}
            take_turns(both, max(3, plan.pairs // 5), costs)
    return costs
