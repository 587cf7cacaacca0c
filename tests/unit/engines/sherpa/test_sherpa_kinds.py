"""Files that would end the process, or be misread, are refused before the runtime sees them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.core.errors import EngineNotUsable
from app.engines.sherpa import folder as folder_module
from app.engines.sherpa.kinds import Kind, ModelRole, find_model
from app.engines.sherpa.onnx_file import read_onnx
from tests.support.sherpa import paraformer, punctuation, sense_voice, zipformer1, zipformer2
from tests.support.sherpa.graphs import FLOAT, Graph
from tests.support.sherpa.int8 import quantising_inside
from tests.support.sherpa.metadata import set_metadata

Build = Callable[[Path], Path]
KINDS: dict[str, tuple[Build, ModelRole, Kind]] = {
    "zipformer2": (zipformer2.transducer, "streaming", "transducer"),
    "zipformer1": (zipformer1.transducer, "streaming", "transducer"),
    "ctc": (zipformer2.ctc, "streaming", "ctc"),
    "streaming-paraformer": (paraformer.streaming, "streaming", "streaming Paraformer"),
    "sense-voice": (sense_voice.sense_voice, "offline", "SenseVoice"),
    "paraformer": (paraformer.offline, "offline", "Paraformer"),
    "punctuation": (punctuation.ct_transformer, "punctuation", "ct-transformer"),
}
WITH_TOKENS = [name for name in KINDS if name != "punctuation"]


def built(name: str, folder: Path) -> tuple[Path, ModelRole]:
    build, role, _ = KINDS[name]
    return build(folder), role


def main_file(folder: Path) -> Path:
    encoder = folder / "encoder.onnx"
    return encoder if encoder.exists() else folder / "model.onnx"


def refused(folder: Path, role: ModelRole) -> str:
    with pytest.raises(EngineNotUsable) as caught:
        find_model(folder, role)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


@pytest.mark.parametrize("name", KINDS)
def test_a_folders_kind_is_found(name: str, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    model = find_model(folder, role)
    assert model.kind == KINDS[name][2]
    assert model.batches
    assert all(path.is_file() for path in model.files.values())


def test_chunks_and_tails(tmp_path: Path) -> None:
    model = find_model(zipformer2.ctc(tmp_path), "streaming")
    assert (model.chunk_ms, model.tail_ms) == (320, 460)


@pytest.mark.parametrize("name", KINDS)
def test_metadata_are_those_of_onnx(name: str, tmp_path: Path) -> None:
    path = main_file(built(name, tmp_path)[0])
    model = onnx.load(str(path))
    found = read_onnx(path)
    assert found.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert found.outputs == tuple(
        tuple(
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in output.type.tensor_type.shape.dim
        )
        for output in model.graph.output
    )
    assert not found.scaled_by_call


@pytest.mark.parametrize("operator", ["DynamicQuantizeLSTM", "DynamicQuantizeMatMul"])
def test_operators_that_quantise_inside_are_seen(operator: str, tmp_path: Path) -> None:
    quantising_inside(tmp_path / "model.onnx", operator)
    assert read_onnx(tmp_path / "model.onnx").scaled_by_call


def test_the_operator_of_int8_is_seen(tmp_path: Path) -> None:
    graph = Graph()
    values = graph.input("x", FLOAT, ["N"])
    quantised = graph.ops(3, "DynamicQuantizeLinear", values)
    graph.output(quantised[1], "scale", FLOAT, [])
    graph.save(tmp_path / "model.onnx", {})
    assert read_onnx(tmp_path / "model.onnx").scaled_by_call


def test_int8_files_come_first(tmp_path: Path) -> None:
    folder = zipformer2.transducer(tmp_path)
    shutil.copy(folder / "encoder.onnx", folder / "encoder-epoch-9.int8.onnx")
    files = find_model(folder, "streaming").files
    assert files["encoder"].name == "encoder-epoch-9.int8.onnx"
    assert files["joiner"].name == "joiner.onnx"


def test_two_files_of_a_kind_are_refused(tmp_path: Path) -> None:
    folder = zipformer2.transducer(tmp_path)
    shutil.copy(folder / "encoder.onnx", folder / "encoder-epoch-9.onnx")
    assert "several" in refused(folder, "streaming")


@pytest.mark.parametrize("name", KINDS)
def test_a_model_for_something_else_is_refused(name: str, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    roles: list[ModelRole] = ["streaming", "offline", "punctuation"]
    for other in roles:
        if other != role:
            assert KINDS[name][2] in refused(folder, other)


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    assert "no folder" in refused(tmp_path / "none", "streaming")
    assert "has no *.onnx" in refused(tmp_path, "streaming")


@pytest.mark.parametrize("name", KINDS)
def test_every_missing_file_is_told(name: str, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        refused(folder, role)
        path.write_bytes(content)
    find_model(folder, role)


@pytest.mark.parametrize("name", KINDS)
def test_every_cut_of_a_file_is_told(name: str, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    for path in folder.glob("*.onnx"):
        content = path.read_bytes()
        for size in {0, 1, 2, 100, len(content) // 2, len(content) - 1}:
            path.write_bytes(content[:size])
            refused(folder, role)
        path.write_bytes(content)


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>404</html>", b"\0" * 500, b"\xff" * 500, b"version https"]
)
@pytest.mark.parametrize("name", KINDS)
def test_other_files_are_told(name: str, content: bytes, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    main_file(folder).write_bytes(content)
    refused(folder, role)


def test_random_damage_is_refused_or_read(tmp_path: Path) -> None:
    path = zipformer2.ctc(tmp_path) / "model.onnx"
    content = path.read_bytes()
    rng = np.random.default_rng(6)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            find_model(tmp_path, "streaming")
        except EngineNotUsable:
            outcomes.add("refused")
        else:
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


@pytest.mark.parametrize("value", [None, "", "nonsense", "-1", "1,,x", "9" * 30])
@pytest.mark.parametrize("name", KINDS)
def test_every_metadatum_is_checked(name: str, value: str | None, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    path = main_file(folder)
    original = path.read_bytes()
    unused = {"comment", "blank_id", "model_type" if name == "ctc" else ""}
    keys = read_onnx(path).metadata.keys() - unused
    for key in keys:
        set_metadata(path, **{key: value})
        refused(folder, role)
        path.write_bytes(original)
    find_model(folder, role)


@pytest.mark.parametrize("key", ["vocab_size", "context_size"])
def test_a_decoder_is_checked(key: str, tmp_path: Path) -> None:
    folder = zipformer2.transducer(tmp_path)
    set_metadata(folder / "decoder.onnx", **{key: None})
    assert key in refused(folder, "streaming")


def test_stacks_of_different_lengths_are_refused(tmp_path: Path) -> None:
    folder = zipformer2.ctc(tmp_path)
    set_metadata(folder / "model.onnx", num_heads="2,2")
    assert "num_heads" in refused(folder, "streaming")


def test_another_kind_of_transducer_is_refused(tmp_path: Path) -> None:
    folder = zipformer2.transducer(tmp_path)
    set_metadata(folder / "encoder.onnx", model_type="lstm")
    assert "'lstm'" in refused(folder, "streaming")


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_tokens_are_checked(name: str, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    path = folder / "tokens.txt"
    lines = path.read_bytes().splitlines()
    wrong = [b"\n".join(lines[:-1]), b"", b"<html>\n<p>not found</p>", b"a b 1\n" + lines[0]]
    for content in wrong:
        path.write_bytes(content)
        assert "tokens.txt" in refused(folder, role)


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_tokens_of_windows_and_further_ones_are_read(name: str, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    path = folder / "tokens.txt"
    count = len(find_model(folder, role).symbols)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\r\n".join([*lines, b"#0 %d" % len(lines)]) + b"\r\n\r\n")
    assert len(find_model(folder, role).symbols) == count


def test_ctc_without_a_blank_is_refused(tmp_path: Path) -> None:
    folder = zipformer2.ctc(tmp_path)
    path = folder / "tokens.txt"
    path.write_text(path.read_text("utf-8").replace("<blk>", "x"), "utf-8")
    assert "<blk>" in refused(folder, "streaming")


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_tokens_that_are_no_file_or_far_too_large_are_not_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, role = built(name, tmp_path)
    monkeypatch.setattr(folder_module, "_MOST_TEXT_BYTES", 10)
    assert "tokens.txt is not usable: it has more than 10 bytes" in refused(folder, role)
    path = folder / "tokens.txt"
    path.unlink()
    path.symlink_to("/dev/null")  # a FIFO, which would never end, is told in the same way
    assert "tokens.txt is not usable: it is no plain file" in refused(folder, role)


@pytest.mark.parametrize("name", KINDS)
def test_what_git_lfs_leaves_is_told_of_every_file(name: str, tmp_path: Path) -> None:
    folder, role = built(name, tmp_path)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        told = refused(folder, role)
        assert path.name in told and "git lfs pull" in told
        path.write_bytes(content)
