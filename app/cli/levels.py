"""``funspeech levels``: how loud a recording is, and what the near-field filter makes of it."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import typer

from app.audio.gate import BLOCK_MS, SAMPLE_RATE
from app.audio.levels import Verdict, measure
from app.audio.threshold import Suggestion, exactly, rounded, suggest
from app.cli.recording import NotUsable
from app.cli.sound import samples
from app.cli.target import complain, fail
from app.core.config import ConfigError, load

if TYPE_CHECKING:
    from app.audio.levels import Float64, Levels

_DIGITS: Final = 6
"""Of an RMS in JSON: a tenth of the smallest step of 16 bits is 0.000003."""


def levels(
    path: Path,
    *,
    threshold: float | None,
    max_sentence_silence: int,
    sample_rate: int | None,
    json: bool,
    png: Path | None,
) -> None:
    """Print a plot of the file's level and what passes, or JSON; write the plot to ``png`` too.

    ``threshold``: None is that of the settings; the other parameters are as the command's help
    says.
    """
    try:
        config = load()
    except ConfigError as error:
        fail(str(error))
    if threshold is None:
        threshold = config.asr_nearfield_rms_threshold
    try:
        found = measure(samples(path, SAMPLE_RATE, sample_rate), threshold, max_sentence_silence)
    except NotUsable as error:
        fail(str(error))
    if not found.verdicts:
        fail(f"{path} has no audio")
    if png is not None:
        _write(png, found)
    if json:
        typer.echo(jsonlib.dumps(_as_json(path, found), ensure_ascii=False))
        return
    _print(path, found)
    if not config.asr_enable_nearfield_filter:
        complain("the filter is off in the settings (ASR_ENABLE_NEARFIELD_FILTER=false)")


def _print(path: Path, found: Levels) -> None:
    from rich.console import Console

    from app.cli.levels_chart import chart

    console = Console(highlight=False)
    name = f"{path.name}: {found.seconds:g} s in blocks of {BLOCK_MS} ms"
    console.print(name, markup=False, soft_wrap=True)
    for line in chart(found, console.width):
        console.print(line, soft_wrap=True)
    for text in summary(found):
        console.print(text, markup=False, soft_wrap=True)


def summary(found: Levels) -> list[str]:
    """What passed, and which threshold fits, for people."""
    passed, gated = len(found.passed), len(found.gated)
    share = 100 * passed / (passed + gated)
    held = found.verdicts.count(Verdict.HELD)
    return [
        f"passed {share:.0f} % ({passed} of {passed + gated} blocks: {passed - held} open, "
        f"{held} held); the gate opened {_times(found.openings)}",
        f"median RMS: passed {_median_text(found.passed)}, gated {_median_text(found.gated)}",
        f"threshold {exactly(found.threshold)}: {_advice(found, suggest(found))}",
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _advice(found: Levels, suggestion: Suggestion) -> str:
    if suggestion.threshold is None:
        return f"no suggestion; {suggestion.reason}"
    if suggestion.threshold == found.threshold:
        return f"fits; {suggestion.reason}"
    return f"better {exactly(suggestion.threshold)}; {suggestion.reason}"


def _median(rms: Float64) -> float | None:
    return float(np.median(rms)) if rms.size else None


def _median_text(rms: Float64) -> str:
    median = _median(rms)
    return "-" if median is None else rounded(median)


def _as_json(path: Path, found: Levels) -> dict[str, object]:
    suggestion = suggest(found)
    passed, gated = _median(found.passed), _median(found.gated)
    return {
        "file": str(path),
        "threshold": found.threshold,
        "max_sentence_silence": found.hold_ms,
        "seconds": found.seconds,
        "passed_share": round(len(found.passed) / len(found.verdicts), 4),
        "openings": found.openings,
        "median_passed": None if passed is None else round(passed, _DIGITS),
        "median_gated": None if gated is None else round(gated, _DIGITS),
        "suggested_threshold": suggestion.threshold,
        "reason": suggestion.reason,
        "blocks": [
            {"ms": index * BLOCK_MS, "rms": round(float(rms), _DIGITS), "verdict": verdict.value}
            for index, (rms, verdict) in enumerate(zip(found.rms, found.verdicts, strict=True))
        ],
    }


def _write(path: Path, found: Levels) -> None:
    from app.cli.levels_picture import picture

    try:
        path.write_bytes(picture(found))
    except OSError as error:
        fail(f"{path}: {error.strerror}")
