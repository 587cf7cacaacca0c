"""What the benchmark of batching across sessions computes, and that its sides do the real work."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.engines.funasr.recognizer import load_streaming
from app.engines.funasr.settings import FunasrOptions
from benchmarks import __main__ as command
from benchmarks import asr_batching, asr_engine, asr_funasr, asr_gpu, turns
from benchmarks.asr_engine import CHUNKING, Costs, Loaded, Ours
from benchmarks.asr_server import Found, Trial, most_sustained
from benchmarks.asr_speech import heard, speech, write_model
from benchmarks.asr_streams import Noticed
from benchmarks.random_paraformer import SMALL
from benchmarks.turns import take_turns


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """The models are small, and other tests want the cores as well."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return write_model(tmp_path_factory.mktemp("model"), SMALL)


# The search for the most streams


@pytest.mark.parametrize("guess", [0, 1, 7, 20, 64, 500])
@pytest.mark.parametrize("limit", [0, 1, 2, 5, 19, 40, 63, 64])
async def test_the_search_finds_the_limit_from_any_guess(limit: int, guess: int) -> None:
    tried: list[int] = []

    async def sustained(streams: int) -> bool:
        tried.append(streams)
        return streams <= limit

    found = await most_sustained(sustained, guess, most=64)
    assert found <= limit <= max(found + 1, found * 1.15)
    assert found in tried or found == 0
    assert all(1 <= streams <= 64 for streams in tried)
    assert len(set(tried)) == len(tried) <= 15


def test_in_real_time_is_soon_enough_for_nearly_all_and_nobody_left_out() -> None:
    good = _trial([400.0] * 99 + [5000.0])
    assert good.sustained
    assert good.p99_ms == 400.0
    assert not _trial([400.0] * 98 + [1000.0] * 2).sustained
    assert not _trial([400.0] * 49).sustained  # of 100 chunks: it hardly says anything
    assert not _trial([400.0] * 100, failed=["refused"]).sustained
    assert "2 failed: refused" in str(_trial([], failed=["refused", "lost"]))


# Costs


def test_a_ratio_is_the_median_of_the_turns() -> None:
    costs = Costs({"dear": [1.0, 8.0, 3.0], "cheap": [0.5, 1.0, 1.0]})
    assert costs.ratio("dear", "cheap") == 3.0
    assert costs.ms("dear") == 3000.0
    assert math.isnan(costs.ratio("dear", "none"))
    assert math.isnan(costs.ms("none"))


def test_all_sides_warm_up_and_then_take_turns() -> None:
    calls: list[str] = []
    numbers = itertools.count()

    def side(name: str) -> Callable[[], float]:
        def call() -> float:
            calls.append(name)
            return float(next(numbers))

        return call

    costs = Costs()
    take_turns({"a": side("a"), "b": side("b")}, 3, costs)
    warm = 2 * turns.WARM_UPS
    assert calls[warm:] == ["a", "b", "b", "a", "a", "b"]
    assert costs.seconds == {
        "a": [warm, warm + 3.0, warm + 4.0],
        "b": [warm + 1.0, warm + 2.0, warm + 5.0],
    }


def test_without_funasr_nothing_is_said_about_it() -> None:
    costs = Costs({"fp32_b1": [2.0], "fp32_b8": [1.0], "old": [1.0], "young": [1.0]})
    measured = asr_batching.Measured(costs)
    line = asr_batching.finite(measured.as_dict())
    assert (line["fp32_b8"], line["int8_b16"], line["age_2h"]) == (None, None, 1.0)
    assert line["engine"]["ratio"]["fp32_b8"] == 2.0
    assert "our own" in line["engine"]["base"]
    first = measured.figures()[0].name
    assert "FunASR is not installed" in first
    assert not any(figure.target == "≥ 2.6" for figure in measured.figures())


def test_the_line_has_what_was_asked_for() -> None:
    seconds = {"funasr_fp32": [2.7], "fp32_b8": [1.0], "int8_b16": [0.3], "old": [1.0]}
    costs = Costs({**seconds, "young": [1.0]}, versions={"funasr": "1.4.16"})
    found = Found(4, 10, 7.5, {"another": 9})
    line = json.loads(
        json.dumps(asr_batching.finite(asr_batching.Measured(costs, found).as_dict()))
    )
    assert line["fp32_b8"] == 2.7
    assert line["int8_b16"] == 9.0
    assert line["age_2h"] == 1.0
    assert (line["server_cap1_streams"], line["server_cap16_streams"]) == (4, 10)
    assert (line["server_ratio"], line["server_mean_batch_16"]) == (2.5, 7.5)
    assert line["gpu"] is None
    targets = {row.name.strip().split(":")[0]: row.target for row in costs.figures()}
    assert (targets["fp32_b8"], targets["int8_b16"]) == ("≥ 2.6", "≥ 7")


def test_a_server_that_sustains_nothing_has_no_ratio() -> None:
    line = asr_batching.finite(asr_batching.Measured(None, Found(0, 3, 1.0, {})).as_dict())
    assert line["server_ratio"] is None
    assert line["server_cap1_streams"] == 0


def test_the_search_begins_near_what_the_costs_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    costs = Costs({"int8_b1": [0.09], "int8_b8": [0.036]})
    assert asr_batching.guesses(costs) == (8, 20)
    assert asr_batching.guesses(None) == asr_batching.GUESSES


def test_it_runs_only_when_asked_for() -> None:
    assert "asr_batching" in command.BENCHMARKS
    assert "asr_batching" not in command._by_default()
    assert "streaming" in command._by_default()


# What is said and heard


def test_streams_say_the_same_from_different_places_on() -> None:
    whole = speech(0, 60.0)
    second = speech(1, 5.0)
    assert len(whole) == 60 * 16_000
    assert not np.array_equal(whole[: len(second)], second)
    windows = np.lib.stride_tricks.sliding_window_view(whole, 1000)
    assert (windows == second[:1000]).all(1).any()
    assert np.abs(heard(0, 1.0)).max() < 1.0


def test_our_engine_hears_tokens_and_can_be_made_old(folder: Path) -> None:
    ours = Ours(Loaded.of(folder, "fp32"), 3)
    assert all(ours() > 0 for _ in range(6))
    # The calibration is for full size; a small model differs more.
    assert 1.0 < ours.tokens_per_chunk < 5.0
    old = ours.aged(asr_engine.TWO_HOURS)
    assert old() > 0
    assert ours._executor._chunks[:3].tolist() == [asr_engine.TWO_HOURS + 1] * 3


def test_the_linear_layers_are_counted(folder: Path) -> None:
    width, hidden, rows, tokens = SMALL.width, SMALL.hidden, CHUNKING.span, CHUNKING.rows
    feed_forward = 2 * width * hidden
    encoder = sum(
        wide * 3 * width + width * width + feed_forward
        for wide in [560] + [width] * (SMALL.encoder_blocks - 1)
    )
    decoder = SMALL.decoder_blocks * (2 * width * width + feed_forward)
    keys = SMALL.decoder_blocks * 2 * width * width
    rest = feed_forward + width * SMALL.vocabulary
    expected = 2 * ((encoder + keys + width) * rows + (decoder + rest) * tokens)
    assert asr_gpu.linear_flop(Loaded.of(folder, "fp32")) == expected


def test_steps_are_timed_after_a_warm_up_and_leave_no_stream_open(folder: Path) -> None:
    options = FunasrOptions(slots=2, threads=1)
    engine = load_streaming(folder, "cpu", options, lambda _: None)
    for _ in range(2):  # the slots are free again
        seconds = asr_gpu.timed(engine, 2, 3)
        assert len(seconds) == 3
        assert min(seconds) > 0


def test_steps_become_rates() -> None:
    batch = asr_gpu.batch_of(10, [0.1, 0.1, 0.2], flop=1e9, peak=1e12)
    assert batch.chunks_per_s == pytest.approx(75.0)
    assert (batch.p50_ms, batch.p99_ms) == (100.0, 200.0)
    assert batch.real_time == pytest.approx(45.0)
    assert batch.share_of_peak == pytest.approx(0.075)


# FunASR's process


def test_the_other_process_answers_chunk_by_chunk() -> None:
    script = (
        "import json, sys\n"
        'print(json.dumps({"funasr": "1", "torch": "2"}), flush=True)\n'
        "for line in sys.stdin:\n"
        '    print(json.dumps({"seconds": len(line) / 2, "tokens": 3}), flush=True)\n'
    )
    with _process(script) as process:
        reference = asr_funasr.Reference(process)
        assert reference.versions == {"funasr": "1", "torch": "2"}
        assert [reference.chunk("fp32")(), reference.chunk("old")()] == [2.5, 2.0]
        assert (reference.tokens, reference.chunks) == (6, 2)


def test_a_process_that_ends_is_told() -> None:
    with _process("print('{}')") as process:
        reference = asr_funasr.Reference(process)
        with pytest.raises(asr_funasr.ReferenceFailed, match="status 0"):
            reference.chunk("fp32")()


def test_an_interpreter_without_funasr_says_so(folder: Path) -> None:
    python = Path(sys.executable)
    with (
        pytest.raises(asr_funasr.ReferenceFailed, match="No module named 'funasr'"),
        asr_funasr.started(python, folder, heard(0, 1.0), 0),
    ):
        pass


def test_no_interpreter_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_REFERENCE_PYTHON", "/nowhere/python")
    assert asr_funasr.interpreter() is None
    monkeypatch.setenv("FUNASR_REFERENCE_PYTHON", sys.executable)
    assert asr_funasr.interpreter() == Path(sys.executable)


def _process(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _trial(lags: list[float], failed: list[str] | None = None) -> Trial:
    return Trial(4, Noticed(chunks=100.0, lags=lags, failed=failed or []), 2.0, 100.0)
