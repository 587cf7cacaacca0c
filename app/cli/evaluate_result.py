"""The results of ``funspeech eval`` for programs: one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.cli.evaluate_figures import Column, Figures, Judged, percentile
from app.cli.evaluate_manifest import Clip
from app.cli.evaluate_stream import Outcome, Run
from app.text.error_rate import Errors


def as_json(
    clips: Sequence[Clip],
    runs: Mapping[str, Run],
    found: Figures,
    described: Mapping[str, str],
) -> dict[str, object]:
    """``described``: what each configuration is, by its name."""
    judged = {each.clip.id: each for each in found.judged}
    return {
        "measure": found.measure,
        "clips": len(found.judged),
        "labelled_clips": found.labelled,
        "audio_s": round(found.seconds, 3),
        "configurations": {
            column.name: {
                "description": described[column.name],
                "engine": runs[column.name].engine,
                **_column(column),
            }
            for column in found.columns
        },
        "difference_95": None
        if found.difference is None
        else [round(each, 6) for each in found.difference],
        "disagreement": None
        if found.apart is None
        else {"clips": found.different, **_errors(found.apart)},
        "each": [_clip(clip, runs, judged.get(clip.id)) for clip in clips],
    }


def _column(column: Column) -> dict[str, object]:
    return {
        **_errors(column.errors),
        "failed": column.failed,
        "latency_ms": _percentiles(column.latency_ms),
        "first_text_ms": _percentiles(column.first_ms),
        "rtf_clock": _rounded(column.wall_rtf, 4),
        "rtf_cpu": _rounded(column.cpu_rtf, 4),
    }


def _errors(errors: Errors) -> dict[str, object]:
    return {
        "rate": _rounded(errors.rate, 6),
        "units": errors.units,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    return {f"p{percent}": _rounded(percentile(values, percent), 1) for percent in (50, 90, 99)}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _clip(clip: Clip, runs: Mapping[str, Run], judged: Judged | None) -> dict[str, object]:
    outcomes = {name: run.outcomes.get(clip.id) for name, run in runs.items()}
    results = {name: _outcome(each) for name, each in outcomes.items() if each is not None}
    for index, name in enumerate(runs):
        if judged is not None and judged.errors:
            results[name]["errors"] = _errors(judged.errors[index])
    return {
        "id": clip.id,
        "audio": str(clip.path),
        "label": clip.text,
        "apart": _errors(judged.apart) if judged is not None and judged.apart else None,
        "results": results,
    }


def _outcome(outcome: Outcome) -> dict[str, object]:
    if outcome.failure:
        return {"failure": outcome.failure}
    return {
        "text": outcome.text,
        "audio_s": round(outcome.seconds, 3),
        "latency_ms": round(outcome.latency_ms, 1),
        "first_text_ms": _rounded(outcome.first_ms, 1),
    }
