"""docs/metrics.md tells of every metric, with its labels, and of no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from app.core import metrics

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"

_ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.*?) ?\| ")

_KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


def test_the_document_lists_the_metrics() -> None:
    told = {
        (name, kind, tuple(re.findall(r"\w+", labels)))
        for name, kind, labels in _ROW.findall(DOCUMENT.read_text())
    }
    assert told == {
        (
            each._name + ("_total" if isinstance(each, Counter) else ""),
            _KINDS[type(each)],
            tuple(each._labelnames),
        )
        for each in vars(metrics).values()
        if isinstance(each, MetricWrapperBase)
    }


def test_queries_of_the_document_name_metrics_that_exist() -> None:
    named = re.findall(r"funspeech_\w+", DOCUMENT.read_text())
    rows = {name for name, *_ in _ROW.findall(DOCUMENT.read_text())}
    assert set(named) == rows
