"""Several runs of a benchmark as one table and one line."""

from __future__ import annotations

import json
import math

from benchmarks import report
from benchmarks.options import Options
from benchmarks.report import Figure


def test_the_median_of_several_runs_is_shown_with_their_range() -> None:
    runs = [[Figure("lag", value, "ms", "≤ 400")] for value in (290.0, 700.0, 310.0)]
    (figure,) = report.combined(runs)
    assert (figure.value, figure.runs) == (310.0, (290.0, 700.0, 310.0))
    row = report.table("Title", [figure]).splitlines()[-1]
    assert row.split() == ["lag", "310", "ms", "≤", "400", "290", "to", "700"]


def test_a_fault_in_one_run_is_not_averaged_away() -> None:
    runs = [[Figure("tasks that failed", value, "", "0")] for value in (0.0, 0.0, 2.0)]
    assert report.combined(runs)[0].value == 2.0


def test_a_figure_that_a_run_lacks_is_left_out() -> None:
    runs = [[Figure("a", 1.0, "s"), Figure("b", 1.0, "s")], [Figure("a", 3.0, "s")]]
    assert [figure.name for figure in report.combined(runs)] == ["a"]


def test_runs_that_agree_have_no_range() -> None:
    figures = report.combined([[Figure("stops", 7.0, "")]] * 3)
    assert report.table("Title", figures).splitlines()[-1].split() == ["stops", "7"]


def test_the_line_has_the_runs_and_the_options() -> None:
    figure = Figure("p99", 1.23456, "ms", "", (1.23456, math.nan))
    line = json.loads(report.json_line("lag", [figure], {}, Options(60.0, None, True)))
    assert line["figures"][0]["value"] == 1.2346
    assert line["figures"][0]["runs"] == [1.2346, None]
    assert line["options"] == {"seconds": 60.0, "sessions": None, "full": True}
