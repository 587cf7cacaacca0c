"""What the benchmark of the sherpa engine computes, and that its models and sides do real work."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Hypothesis
from app.engines.sherpa.kinds import find_model
from benchmarks import __main__ as command
from benchmarks import random_zipformer, sherpa_batching, sherpa_engine
from benchmarks.asr_batching import finite
from benchmarks.asr_server import Found
from benchmarks.asr_speech import heard
from benchmarks.random_zipformer import LARGE, SMALL, TINY, Size, log_mels
from benchmarks.server import ROOT
from benchmarks.sherpa_engine import Costs, Stepping, compare, load_form
from benchmarks.zipformer_encoder import Encoder, Stack
from tests.support.sherpa.tones import BANDS, frequency


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in both forms."""
    found = tmp_path_factory.mktemp("models")
    sherpa_engine.write_models(found, {"tiny": TINY})
    return found / "tiny"


# The models


@pytest.mark.parametrize(("size", "millions"), [(LARGE, 66), (SMALL, 24)])
def test_sizes_are_those_that_are_published(
    size: Size, millions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[Sequence[int]] = []

    def small(self: object, *shape: int, deviation: float) -> str:
        shapes.append(shape)
        return "weights"

    monkeypatch.setattr("benchmarks.zipformer_encoder.RandomLayers.weights", small)
    Encoder(np.random.default_rng(0), size.stacks, size.joined)
    rest = 2 * size.vocabulary * size.joined + size.joined**2
    assert sum(map(math.prod, shapes)) + rest == pytest.approx(millions * 1e6, rel=0.04)


def test_the_engine_takes_them(folder: Path) -> None:
    model = find_model(folder / "fp32", "streaming")
    assert (model.kind, model.chunk_ms, model.batches) == ("transducer", 320, True)
    model = find_model(folder / "int8", "streaming")
    assert {path.name for path in model.files.values()} == {
        "encoder.int8.onnx",
        "decoder.int8.onnx",
        "joiner.int8.onnx",
    }
    assert not model.batches
    operators = {node.op_type for node in onnx.load(model.files["encoder"]).graph.node}
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= operators


def test_what_they_hear_depends_on_what_is_said(folder: Path) -> None:
    texts = sherpa_engine._results(load_form(folder, "fp32", 3), range(3))
    finals = {each[-1] for each in texts}
    assert len(finals) == 3
    # The calibration is for full size, and without a search; a tiny model differs more.
    assert all(10 <= len(text) <= 110 for text in finals)  # of 120 frames


def test_models_are_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> Path:
        raise AssertionError("it is there")

    monkeypatch.setattr(sherpa_engine, "write_transducer", never)
    sherpa_engine.write_models(folder.parent, {"tiny": TINY})


def test_the_first_frames_do_not_look_at_what_was_never_heard(tmp_path: Path) -> None:
    stack = Stack(1, 32, 48, 2, 15, 2)
    path = tmp_path / "encoder.onnx"
    Encoder(np.random.default_rng(0), [stack], 8).save(path)
    session = random_zipformer._session(path)
    rng = np.random.default_rng(1)
    inputs = {
        each.name: rng.normal(size=[1 if n == "N" else n for n in each.shape]).astype(np.float32)
        for each in session.get_inputs()
    }
    key = "cached_key_0"
    for seen, depends in ((0, False), (200, True)):
        inputs["processed_lens"] = np.array([seen])
        first = session.run(None, inputs)[0]
        other = session.run(None, {**inputs, key: inputs[key] + 1})[0]
        assert (np.abs(first - other).max() > 1e-3) == depends


def test_a_tone_is_loudest_in_its_band() -> None:
    times = np.arange(16_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * frequency(3) * times)).astype(np.float32)
    mels = log_mels(tone)
    assert mels.shape == (98, 80)
    # The tone lies between the bands of two kinds of models.
    assert abs(int(mels[50].argmax()) - BANDS[3]) <= 1


# The sides


class _Engine:
    """Notes what it gets; the chunk it fails in is ``fails``."""

    class capabilities:
        step_ms = 320

    def __init__(self, fails: int = -1) -> None:
        self.batches: list[list[Feed]] = []
        self._fails = fails

    def open(self, options: RecognitionOptions) -> object:
        return object()

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis | Exception]:
        self.batches.append(list(batch))
        if len(self.batches) == self._fails:
            return [ValueError("no")] * len(batch)
        return [Hypothesis("")] * len(batch)

    def close(self, stream: object) -> None:
        raise AssertionError("nobody gives up")


def test_streams_say_one_thing_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sherpa_engine, "_SPEECH_S", 0.7)
    engine = _Engine()
    side = Stepping(engine, 2, steps=3)  # type: ignore[arg-type]  # what is needed of one
    assert side() >= 0
    second = heard(1, 0.7)
    said = [batch[1].samples for batch in engine.batches]
    np.testing.assert_array_equal(said[0], second[:5120])
    np.testing.assert_array_equal(said[1], second[5120:10240])
    np.testing.assert_array_equal(said[2], second[:5120])
    assert len({id(batch[0].stream) for batch in engine.batches}) == 1


def test_costs_are_for_a_second_of_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 10.64])
    side = Stepping(_Engine(), 4, steps=2)  # type: ignore[arg-type]  # what is needed of one
    monkeypatch.setattr("time.process_time", lambda: next(ticks))
    assert side() == pytest.approx(0.25)  # 0.64 s for 2 chunks of 0.32 s of 4 streams


def test_a_stream_that_fails_ends_the_measurement() -> None:
    with pytest.raises(ValueError, match="no"):
        Stepping(_Engine(fails=1), 1)()  # type: ignore[arg-type]  # what is needed of one


def test_what_streams_hear_together_is_compared_with_what_they_hear_alone(folder: Path) -> None:
    assert compare(load_form(folder, "fp32", 16))[0] == 16
    same, news = compare(load_form(folder, "int8", 16))
    assert same == 16
    assert 0.1 < news < 1.0
    # The published form is why there is another one.
    assert compare(load_form(folder, "published", 16))[0] < 16


def test_greedy_search_is_another_one(folder: Path) -> None:
    greedy = sherpa_engine.load_greedy(folder, 1)
    assert not greedy.capabilities.hotwords
    assert load_form(folder, "int8", 1).capabilities.hotwords
    assert Stepping(greedy, 1)() > 0


# The figures


def _costs() -> Costs:
    seconds = {
        "small_int8_b1": [0.05],
        "small_int8_b16": [0.02],
        "small_greedy_b16": [0.016],
        "embedded": [0.1],
        "funasr_int8_b1": [0.1],
        "funasr_int8_b16": [0.04],
    }
    return Costs(seconds, alike={"small_int8": 16}, news={"small_int8": 0.5})


def test_costs_become_streams_per_core() -> None:
    rows = {figure.name: figure.value for figure in _costs().figures()}
    assert rows["small, int8 by rows, batch 16: streams per core"] == pytest.approx(50)
    assert rows["small, int8 by rows, greedy search, batch 16: streams per core"] == 62.5
    assert rows["funasr, int8, batch 1: streams per core"] == pytest.approx(10)
    assert rows["small, int8 by rows, batch 16, against embedded"] == pytest.approx(5)
    assert rows["small, int8 by rows, batch 16, against funasr, int8, batch 16"] == 2
    assert rows["small, int8 by rows: of 16 streams together, as alone"] == 16
    assert not any("fp32" in name for name in rows)


def test_the_line_has_all() -> None:
    measured = sherpa_batching.Measured(_costs(), Found(10, 25, 8.0, {"two": 40}))
    line = json.loads(json.dumps(finite(measured.as_dict())))
    engine = line["engine"]
    assert engine["ms"]["small_int8_b16"] == 20
    assert engine["gain"] == {
        "small_int8_b1": 1.0,
        "small_int8_b16": 2.5,
        "small_greedy_b16": None,
        "funasr_int8_b1": 1.0,
        "funasr_int8_b16": 2.5,
    }
    assert line["server_ratio"] == 2.5
    assert sherpa_batching.Measured().as_dict()["engine"] is None


def test_the_search_for_streams_begins_near_what_the_engine_allows() -> None:
    assert sherpa_batching.guesses(_costs()) == (12, 30)
    assert sherpa_batching.guesses(None) == sherpa_batching.GUESSES


def test_only_the_funasr_engine_needs_torch() -> None:
    script = "import sys; sys.modules['torch'] = None; import benchmarks.__main__, benchmarks.{}"
    for module in ("sherpa_engine", "sherpa_server"):
        subprocess.run([sys.executable, "-c", script.format(module)], check=True, cwd=ROOT)


def test_the_sherpa_benchmark_runs_only_when_asked_for() -> None:
    assert "sherpa_batching" in command.BENCHMARKS
    assert "sherpa_batching" not in command._by_default()
    assert command.ON_REQUEST <= command.SINGLE
