"""int8 models whose streams depend on each other are made independent while they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # the package has no py.typed marker
import pytest

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Hypothesis, RecognizerParts, Segment
from app.engines.sherpa import FAMILY
from app.engines.sherpa.kinds import ModelRole, find_model
from app.engines.sherpa.onnx_file import read_onnx
from app.engines.sherpa.rows import CannotRewrite, independent, rewrite
from app.engines.sherpa.streaming import StreamingRecognizer
from tests.support.sherpa import paraformer, sense_voice, zipformer1, zipformer2
from tests.support.sherpa.graphs import FLOAT, Graph
from tests.support.sherpa.hearing import padded
from tests.support.sherpa.int8 import in_int8, quantising_inside
from tests.support.sherpa.tones import LETTERS, spoken

RNG = np.random.default_rng(6)
WEIGHTS = RNG.integers(-127, 128, (16, 5)).astype(np.int8)


def product(
    path: Path, *, consumer: str = "MatMulInteger", version: int = 17, bias: float | None = None
) -> Path:
    """x (N, T, 16) times WEIGHTS / 100, in int8 as quantize_dynamic writes it, and ``bias``."""
    graph = Graph()
    values = graph.input("x", FLOAT, ["N", "T", 16])
    quantised, scale, zero = graph.ops(3, "DynamicQuantizeLinear", values)
    weights = graph.constant(WEIGHTS)
    if consumer == "MatMulInteger":
        whole = graph.op(consumer, quantised, weights, zero)
    else:
        whole = graph.op(consumer, quantised, quantised)
    by = graph.op("Mul", scale, graph.floats(0.01))
    found = graph.op("Mul", graph.as_float(whole), by)
    if bias is not None:
        found = graph.op("Add", found, graph.floats([bias] * 5))
    graph.output(found, "y", FLOAT, ["N", "T", 5])
    graph.save(path, {"key": "value"})
    if version != 17:
        model = onnx.load(str(path))
        model.opset_import[0].version = version
        onnx.save(model, str(path))
    return path


def computed(path: Path, values: Float32) -> Float32:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: Float32 = session.run(None, {"x": values})[0]
    return found


@pytest.mark.parametrize("version", [11, 13, 17, 18, 21])
def test_rows_are_independent_and_right(tmp_path: Path, version: int) -> None:
    old, new = product(tmp_path / "old.onnx", version=version), tmp_path / "new.onnx"
    assert rewrite(old, new) == 1
    onnx.checker.check_model(str(new))
    quiet = RNG.normal(0, 1, (1, 3, 16)).astype(np.float32)
    both = np.concatenate([quiet, 300 * quiet])
    assert not np.array_equal(computed(old, both)[:1], computed(old, quiet))
    np.testing.assert_array_equal(computed(new, both)[:1], computed(new, quiet))
    exact = quiet @ (WEIGHTS.astype(np.float32) / 100)
    assert np.abs(computed(new, quiet) - exact).max() < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("version", [11, 13, 17, 18, 21])
def test_a_bias_is_not_scaled(tmp_path: Path, version: int) -> None:
    """By the runtime, which makes one operator of a product and what follows."""
    new = tmp_path / "new.onnx"
    rewrite(product(tmp_path / "old.onnx", version=version, bias=10.0), new)
    onnx.checker.check_model(str(new))
    values = RNG.normal(0, 1, (2, 3, 16)).astype(np.float32)
    exact = values @ (WEIGHTS.astype(np.float32) / 100)
    assert np.abs(computed(new, values) - 10.0 - exact).max() < 0.03 * np.abs(exact).max()


def test_all_else_stays(tmp_path: Path) -> None:
    old, new = product(tmp_path / "old.onnx"), tmp_path / "new.onnx"
    rewrite(old, new)
    before, after = read_onnx(old), read_onnx(new)
    assert before.scaled_by_call and not after.scaled_by_call
    assert (before.metadata, before.outputs) == (after.metadata, after.outputs)


def test_silence_stays_silence(tmp_path: Path) -> None:
    new = tmp_path / "new.onnx"
    rewrite(product(tmp_path / "old.onnx"), new)
    assert not computed(new, np.zeros((2, 3, 16), np.float32)).any()


def test_a_file_without_scales_stays_as_it_is(tmp_path: Path) -> None:
    old = zipformer2.ctc(tmp_path) / "model.onnx"
    assert rewrite(old, tmp_path / "new.onnx") == 0
    before, after = onnx.load(str(old)), onnx.load(str(tmp_path / "new.onnx"))
    assert list(before.graph.node) == list(after.graph.node)


def test_another_use_of_a_scale_is_refused(tmp_path: Path) -> None:
    old = product(tmp_path / "old.onnx", consumer="Add")
    with pytest.raises(CannotRewrite, match="Add"):
        rewrite(old, tmp_path / "new.onnx")


@pytest.mark.parametrize("operator", ["DynamicQuantizeLSTM", "DynamicQuantizeMatMul"])
def test_a_scale_inside_of_an_operator_is_refused(operator: str, tmp_path: Path) -> None:
    quantising_inside(tmp_path / "old.onnx", operator)
    with pytest.raises(CannotRewrite, match=operator):
        rewrite(tmp_path / "old.onnx", tmp_path / "new.onnx")


# Models in int8, as they are published


KINDS: dict[str, tuple[Callable[[Path], Path], ModelRole, str]] = {
    "zipformer2": (zipformer2.transducer, "streaming", "encoder.onnx"),
    "zipformer1": (zipformer1.transducer, "streaming", "encoder.onnx"),
    "ctc": (zipformer2.ctc, "streaming", "model.onnx"),
    "paraformer": (paraformer.streaming, "streaming", "encoder.onnx"),
    "sense-voice": (sense_voice.sense_voice, "offline", "model.onnx"),
    "offline-paraformer": (paraformer.offline, "offline", "model.onnx"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_streams_in_int8_share_calls_and_give_what_they_give_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, role, name = KINDS[kind]
    folder = build(tmp_path)
    in_int8(folder / name)
    setting = f"SHERPA_{role.upper()}_MODEL"
    others = {f"SHERPA_{part}_MODEL": "none" for part in ("STREAMING", "OFFLINE", "PUNCTUATION")}
    parts = FAMILY.recognizer("cpu", {**others, setting: str(folder)}, lambda doing: None)
    assert isinstance(parts, RecognizerParts)
    gains = [1.0, 0.4, 0.2, 0.1] * 3
    sounds = [np.float32(gain) * padded(spoken(LETTERS)) for gain in gains]
    if parts.offline is not None:
        segments = [Segment(sound, RecognitionOptions(words=True)) for sound in sounds]
        together = list(parts.offline.recognize(segments))
        assert together == [parts.offline.recognize([segment])[0] for segment in segments]
    else:
        assert isinstance(parts.streaming, StreamingRecognizer)
        calls = counted(parts.streaming, monkeypatch)
        together = heard(parts.streaming, sounds)
        assert max(calls) == len(sounds)
        assert together == [heard(parts.streaming, [sound])[0] for sound in sounds]
    first = together[0]
    assert isinstance(first, Hypothesis) and first.text


def counted(recognizer: StreamingRecognizer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many streams each call has, from now on."""
    calls: list[int] = []
    runtime = recognizer._recognizer

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(runtime, name)

        def decode_streams(self, streams: list[Any]) -> None:
            calls.append(len(streams))
            runtime.decode_streams(streams)

    monkeypatch.setattr(recognizer, "_recognizer", Counting())
    return calls


def heard(recognizer: StreamingRecognizer, sounds: list[Float32]) -> list[Hypothesis | Exception]:
    """The last hypotheses of sounds of one length."""
    streams = [recognizer.open(RecognitionOptions(words=True)) for _ in sounds]
    step = 16 * recognizer.capabilities.step_ms
    found: list[Hypothesis | Exception] = []
    for begin in range(0, sounds[0].size, step):
        last = begin + step >= sounds[0].size
        feeds = [
            Feed(stream, sound[begin : begin + step], last)
            for stream, sound in zip(streams, sounds, strict=True)
        ]
        found = recognizer.step(feeds)
    return found


def test_what_cannot_be_rewritten_does_not_batch(tmp_path: Path) -> None:
    folder = zipformer2.ctc(tmp_path)
    path = folder / "model.onnx"
    # A doc_string with the operator's name: the count of names is not that of operators.
    path.write_bytes(path.read_bytes() + b"\x32\x15DynamicQuantizeLinear")
    model = find_model(folder, "streaming")
    with independent(model) as found:
        assert found == model
    assert not found.batches


def test_the_rewritten_files_are_gone_after_loading(tmp_path: Path) -> None:
    folder = zipformer2.ctc(tmp_path)
    in_int8(folder / "model.onnx")
    with independent(find_model(folder, "streaming")) as found:
        path = found.files["model"]
        assert found.batches and path.parent != folder and path.is_file()
    assert not path.exists()
