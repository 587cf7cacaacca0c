"""The figures of an evaluation: of one configuration, and of two against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from app.cli.evaluate_manifest import Clip
from app.cli.evaluate_stream import Outcome, Run
from app.text.error_rate import Errors, disagreement, errors, interval, measure, units


@dataclass(frozen=True, slots=True)
class Judged:
    """A clip that all configurations recognised.

    ``texts``: what each made of it. ``errors``: of each against the label; empty without one.
    ``apart``: how much the two texts differ; None with one configuration.
    """

    clip: Clip
    texts: tuple[str, ...]
    errors: tuple[Errors, ...]
    apart: Errors | None

    @property
    def interest(self) -> tuple[int, int]:
        """By how much it is worth listening to: the distance between the texts, then the errors."""
        errors = sum(each.count for each in self.errors)
        return (self.apart.count, errors) if self.apart else (errors, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One configuration.

    ``errors``: over the labelled clips that all configurations recognised. ``failed``: clips that
    the server failed. ``latency_ms``, ``first_ms``: of each clip that was recognised (and had a
    text), ascending. ``wall_rtf``, ``cpu_rtf``: seconds of the clock and of the CPU for each second
    of audio, None where they are not known or say nothing.
    """

    name: str
    errors: Errors
    failed: int
    latency_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    wall_rtf: float | None
    cpu_rtf: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that the table, the charts and the JSON show.

    ``measure``: CER, WER or MER. ``difference``: 95 % interval of the second error rate less the
    first. ``seconds``: audio of the judged clips.
    """

    columns: tuple[Column, ...]
    judged: tuple[Judged, ...]
    measure: str
    labelled: int
    seconds: float
    difference: tuple[float, float] | None
    apart: Errors | None

    @property
    def different(self) -> int:
        """Clips whose two texts are not the same."""
        return sum(each.apart is not None and each.apart.count > 0 for each in self.judged)

    def to_listen_to(self, most: int) -> list[Judged]:
        """The clips that tell most about the configurations, the most telling first: those whose
        texts differ, or with one configuration those with errors."""
        telling = [each for each in self.judged if each.interest > (0, 0)]
        if len(self.columns) > 1:
            telling = [each for each in telling if each.apart and each.apart.count]
        return sorted(telling, key=lambda each: each.interest, reverse=True)[:most]


def figures(
    clips: Sequence[Clip],
    runs: Mapping[str, Run],
    *,
    numerals: bool,
    paced: bool,
    seed: int,
) -> Figures:
    """Work out what there is to say about the runs, by the names of their configurations.

    ``numerals``: as in :func:`app.text.error_rate.units`. ``paced``: the clips were sent by the
    clock, which then says nothing about the server's speed. ``seed``: of the bootstrap.
    """
    judged = [
        _judged(clip, [run.outcomes[clip.id].text for run in runs.values()], numerals=numerals)
        for clip in clips
        if all(_recognised(run, clip) for run in runs.values())
    ]
    labelled = [each for each in judged if each.errors]
    totals = [_total(each.errors[index] for each in labelled) for index in range(len(runs))]
    columns = tuple(
        _column(name, run, total, paced=paced)
        for (name, run), total in zip(runs.items(), totals, strict=True)
    )
    first = next(iter(runs.values()))
    two = len(runs) == 2
    references = (each.clip.text or "" for each in labelled)
    return Figures(
        columns=columns,
        judged=tuple(judged),
        measure=measure(unit for text in references for unit in units(text, numerals=numerals)),
        labelled=len(labelled),
        seconds=sum(first.outcomes[each.clip.id].seconds for each in judged),
        difference=interval(
            [each.errors[0] for each in labelled], [each.errors[1] for each in labelled], seed=seed
        )
        if two
        else None,
        apart=_total(each.apart for each in judged if each.apart) if two else None,
    )


def _recognised(run: Run, clip: Clip) -> bool:
    return clip.id in run.outcomes and not run.outcomes[clip.id].failure


def _judged(clip: Clip, texts: Sequence[str], *, numerals: bool) -> Judged:
    found = [units(text, numerals=numerals) for text in texts]
    against: tuple[Errors, ...] = ()
    if clip.text is not None:
        reference = units(clip.text, numerals=numerals)
        against = tuple(errors(reference, each) for each in found)
    apart = disagreement(*found) if len(found) == 2 else None
    return Judged(clip, tuple(texts), against, apart)


def _total(each: Iterable[Errors]) -> Errors:
    return reduce(add, each, Errors())


def _column(name: str, run: Run, total: Errors, *, paced: bool) -> Column:
    good = [outcome for outcome in run.outcomes.values() if not outcome.failure]
    seconds = sum(outcome.seconds for outcome in good)
    return Column(
        name=name,
        errors=total,
        failed=sum(bool(each.failure) and not each.unusable for each in run.outcomes.values()),
        latency_ms=tuple(sorted(each.latency_ms for each in good)),
        first_ms=tuple(sorted(each.first_ms for each in good if each.first_ms is not None)),
        wall_rtf=run.wall_s / seconds if seconds and not paced else None,
        cpu_rtf=run.cpu_s / seconds if seconds and run.cpu_s is not None else None,
    )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """None of no values."""
    return float(np.percentile(values, percent)) if values else None


def failures(clips: Sequence[Clip], run: Run) -> list[tuple[Clip, Outcome]]:
    """The clips without a result."""
    found = [(clip, run.outcomes[clip.id]) for clip in clips if clip.id in run.outcomes]
    return [(clip, outcome) for clip, outcome in found if outcome.failure]
