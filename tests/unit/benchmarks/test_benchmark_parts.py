"""What the benchmarks compute: statistics, tables, and what they expect to hear."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from app.core.speech import RecognitionOptions, SentenceEnded
from app.engines.base import Feed
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from benchmarks import audio, measure, recognition_load, report
from benchmarks.options import Options


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_percentiles_are_samples(percent: float, value: float) -> None:
    assert measure.percentile(list(range(100, 0, -1)), percent) == value


def test_no_samples_have_no_percentile() -> None:
    assert math.isnan(measure.percentile([], 50))


def test_a_lost_process_spoils_the_measurement() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    meter = measure.CpuMeter(os.getpid())
    child.communicate(b"\n")
    with pytest.raises(measure.ProcessChanged):
        meter.used()


def test_the_table_shows_what_was_measured_beside_the_target() -> None:
    figures = [
        report.Figure("lag", 284.6, "ms", "≤ 400"),
        report.Figure("nothing", math.nan, "ms"),
        report.Figure("small", 1.234, "ms"),
    ]
    rows = [line.split() for line in report.table("Title", figures).splitlines()[3:]]
    assert rows == [
        ["lag", "285", "ms", "≤", "400"],
        ["nothing", "-", "ms"],
        ["small", "1.23", "ms"],
    ]


def test_the_json_line_is_one_line_and_valid() -> None:
    line = report.json_line(
        "lag", [report.Figure("p99", math.nan, "ms")], {"cores": "2"}, Options()
    )
    assert "\n" not in line
    assert json.loads(line) == {
        "benchmark": "lag",
        "figures": [{"name": "p99", "value": None, "unit": "ms", "target": "", "runs": []}],
        "options": {"seconds": None, "sessions": None, "full": False},
        "machine": {"cores": "2"},
    }


@pytest.mark.parametrize(
    "script", [recognition_load.sentences(9.5), recognition_load.utterance(1270)]
)
def test_the_engine_says_what_the_load_expects(script: recognition_load.Script) -> None:
    pcm = b"".join(recognition_load.frame(ms, is_sound) for ms, is_sound in script)
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(32768)
    engine = FakeRecognizer(FakeOptions())
    stream = engine.open(RecognitionOptions())
    events = [
        event
        for start in range(0, len(samples), 3200)
        for event in engine.step(
            [Feed(stream, samples[start : start + 3200], start + 3200 >= len(samples))]
        )[0]
    ]
    heard = [event.text for event in events if isinstance(event, SentenceEnded)]
    assert heard == recognition_load.expected(script)


def test_sound_is_found_where_it_is() -> None:
    pcm = audio.silence(300) + audio.tone(400) + audio.silence(700) + audio.tone(100)
    samples = np.frombuffer(pcm, dtype="<i2")
    assert audio.spoken(samples) == [(300, 700), (1400, 1500)]
