"""deploy/prometheus-rules.yml asks for metrics and labels that exist: an alert on one that does not
is silent for ever."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from app.core import metrics
from app.core.errors import Overloaded

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "prometheus-rules.yml"
DOCUMENTS = ("operations.md", "operations.zh.md", "metrics.md")

_SELECTOR = re.compile(r"(funspeech_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def exported() -> dict[str, set[str]]:
    """Names of series as Prometheus has them, with their labels."""
    series: dict[str, set[str]] = {}
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            labels = set(each._labelnames)
            if isinstance(each, Counter):
                series[each._name + "_total"] = labels
            elif isinstance(each, Histogram):
                series[each._name + "_bucket"] = labels | {"le"}
                series[each._name + "_sum"] = series[each._name + "_count"] = labels
            else:
                series[each._name] = labels
    return series


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return list(group["rules"])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_series_that_exist(rule: dict[str, Any]) -> None:
    series = exported()
    selected = _SELECTOR.findall(rule["expr"])
    assert selected or rule["expr"].startswith("up{")
    for name, matchers in selected:
        assert name in series
        for label, _, value in _MATCHER.findall(matchers):
            assert label in series[name]
            if label == "reason":
                assert set(value.split("|")) <= {e.reason for e in Overloaded.__subclasses__()}
            if label == "planned":
                assert value in ("true", "false")


def test_a_refusal_of_any_reason_is_an_alert_but_that_of_the_end() -> None:
    watched: set[str] = set()
    for rule in rules():
        for _, matchers in _SELECTOR.findall(rule["expr"]):
            for label, _, value in _MATCHER.findall(matchers):
                watched |= set(value.split("|")) if label == "reason" else set()
    assert watched == {each.reason for each in Overloaded.__subclasses__()} - {"draining"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_and_what(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]


def test_groupings_name_labels_that_exist() -> None:
    known = {"instance", "role", *(label for labels in exported().values() for label in labels)}
    for rule in rules():
        for labels in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            assert set(labels.replace(" ", "").split(",")) <= known


@pytest.mark.parametrize("name", DOCUMENTS[:2])
def test_the_operators_are_told_of_each_alert_and_each_reason(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    told = set(re.findall(r"`(FunSpeech[A-Z]\w+)` \| (critical|warning)", text))
    assert told == {(rule["alert"], rule["labels"]["severity"]) for rule in rules()}
    reasons = set(re.findall(r"\| `(\w+)` \|", text))
    assert {each.reason for each in Overloaded.__subclasses__()} <= reasons
    told_of_metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for each in Overloaded.__subclasses__():
        assert f"`{each.reason}` (" in told_of_metrics


@pytest.mark.parametrize("name", DOCUMENTS)
def test_metrics_that_are_named_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    names = set(exported()) | {each.removesuffix("_bucket") for each in exported()}
    assert set(re.findall(r"funspeech_\w+", text)) <= names
