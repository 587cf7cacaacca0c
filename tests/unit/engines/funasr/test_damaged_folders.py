"""Folders that hold anything in place of a model: one line, whatever it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from app.core.errors import EngineNotUsable
from app.engines.funasr.offline import load_offline
from app.engines.funasr.parts import load_parts
from app.engines.funasr.punctuation import load_punctuator
from app.engines.funasr.settings import FunasrOptions
from app.engines.funasr.streaming import load_model
from app.engines.funasr.vad import load_detector
from tests.support import random_offline
from tests.support.random_paraformer import write_streaming

OPTIONS = FunasrOptions(threads=1)


def nothing(doing: str) -> None:
    pass


def punctuation(folder: Path) -> Path:
    return random_offline.punctuation(folder, realtime=False)


def load_punctuation(folder: Path) -> object:
    return load_punctuator(folder, "cpu", OPTIONS, nothing, realtime=False)


def load_sentences(folder: Path) -> object:
    return load_offline(folder, "cpu", OPTIONS, nothing)


def load_vad(folder: Path) -> object:
    return load_detector(folder, "cpu", OPTIONS, nothing)


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "streaming": (write_streaming, load_model),
    "paraformer": (random_offline.paraformer, load_sentences),
    "seaco": (random_offline.seaco, load_sentences),
    "sensevoice": (random_offline.sensevoice, load_sentences),
    "punctuation": (punctuation, load_punctuation),
    "vad": (random_offline.vad, load_vad),
}


def refused(kind: str, folder: Path) -> str:
    with pytest.raises(EngineNotUsable) as raised:
        KINDS[kind][1](folder)
    text = str(raised.value)
    assert "\n" not in text and len(text) < 600
    return text.removeprefix(str(folder))


def edit(folder: Path, place: str, value: object) -> None:
    path = folder / "config.yaml"
    config: Any = yaml.safe_load(path.read_text("utf-8"))
    part = config
    *parents, name = place.split(".")
    for parent in parents:
        part = part[parent]
    part[name] = value
    path.write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")


# Sizes


@pytest.mark.parametrize(
    "kind, place",
    [
        (kind, place)
        for kind in ("streaming", "paraformer", "seaco", "sensevoice", "punctuation")
        for place in (
            "encoder_conf.output_size",
            "encoder_conf.attention_heads",
            "encoder_conf.linear_units",
            "encoder_conf.num_blocks",
            "encoder_conf.kernel_size",
        )
    ]
    + [
        (kind, place)
        for kind in ("streaming", "paraformer")
        for place in (
            "decoder_conf.attention_heads",
            "decoder_conf.linear_units",
            "decoder_conf.att_layer_num",
            "decoder_conf.kernel_size",
            "predictor_conf.l_order",
            "predictor_conf.r_order",
            "predictor_conf.tail_threshold",
        )
    ]
    + [
        ("sensevoice", "encoder_conf.tp_blocks"),
        ("seaco", "predictor_conf.upsample_times"),
        ("seaco", "seaco_decoder_conf.linear_units"),
        ("seaco", "model_conf.NO_BIAS"),
        ("punctuation", "model_conf.embed_unit"),
        ("vad", "encoder_conf.linear_dim"),
        ("vad", "encoder_conf.proj_dim"),
        ("vad", "encoder_conf.lorder"),
        ("vad", "encoder_conf.fsmn_layers"),
        ("vad", "encoder_conf.output_dim"),
    ],
)
def test_sizes_that_no_model_has(tmp_path: Path, kind: str, place: str) -> None:
    folder = KINDS[kind][0](tmp_path / "model")
    for value in (-1, 10**9, 2**70):
        edit(folder, place, value)
        assert "is not a model that FunSpeech knows" in refused(kind, folder)


@pytest.mark.parametrize("kind", ["streaming", "paraformer", "seaco", "sensevoice", "punctuation"])
def test_heads_that_do_not_divide_the_width(tmp_path: Path, kind: str) -> None:
    folder = KINDS[kind][0](tmp_path / "model")
    edit(folder, "encoder_conf.attention_heads", 3)
    assert "attention_heads must divide output_size" in refused(kind, folder)


@pytest.mark.parametrize(
    "kind, part",
    [
        ("streaming", "decoder_conf"),
        ("paraformer", "decoder_conf"),
        ("seaco", "decoder_conf"),
        ("seaco", "seaco_decoder_conf"),
    ],
)
def test_heads_of_the_decoder_that_do_not(tmp_path: Path, kind: str, part: str) -> None:
    folder = KINDS[kind][0](tmp_path / "model")
    edit(folder, f"{part}.attention_heads", 3)
    assert "the decoder's attention_heads must divide" in refused(kind, folder)


@pytest.mark.parametrize(
    "kind, place, value, says",
    [
        ("paraformer", "encoder_conf.sanm_shfit", 6, "sanm_shfit must be half"),
        ("paraformer", "decoder_conf.sanm_shfit", 6, "sanm_shfit must be half"),
        ("seaco", "model_conf.NO_BIAS", 5000, "NO_BIAS is 5000"),
        ("vad", "model_conf.sil_pdf_ids", [248], "sil_pdf_ids"),
        ("vad", "model_conf.sil_pdf_ids", [], "sil_pdf_ids"),
        ("paraformer", "model", "x" * 5000, "model is 'xxx"),
        ("paraformer", "model", [["x"] * 5000], "model is no name"),
    ],
)
def test_values_that_do_not_fit(
    tmp_path: Path, kind: str, place: str, value: object, says: str
) -> None:
    folder = KINDS[kind][0](tmp_path / "model")
    edit(folder, place, value)
    assert says in refused(kind, folder)


# Files


@pytest.fixture
def folder(streaming_folder: Path, tmp_path: Path) -> Path:
    """Links to a model's files, to put something else in their place."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in streaming_folder.iterdir():
        (copy / path.name).symlink_to(path)
    load_model(copy)
    return copy


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000 + "]" * 5000,
        "{a: " * 2000,
        "a: 2020-99-99",
        "a: " + "9" * 5000,
        "a: !!timestamp x",
        "a: !!bool x",
        "? [1]\n: 2",
        "a: &a {x: 1}\nb: {<<: *a}",
        "# " + "x" * 1_000_000,
    ],
    ids=lambda text: text[:20],
)
def test_yaml_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").write_text(text)
    assert refused("streaming", folder).startswith("/config.yaml cannot be used")


def test_a_bomb_of_aliases_in_place_of_the_name(folder: Path) -> None:
    path = folder / "config.yaml"
    content = path.read_text("utf-8").replace("model: Paraformer", "model: *a30 #", 1)
    path.unlink()
    levels = [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 31)]
    path.write_text("\n".join(["a0: &a0 [lol]", *levels, content]), "utf-8")
    assert "is not a model that FunSpeech knows" in refused("streaming", folder)
    with pytest.raises(EngineNotUsable, match="model is no name"):
        load_sentences(folder)


@pytest.mark.parametrize("name", ["config.yaml", "model.pt", "tokens.json", "seg_dict"])
def test_what_is_no_file(folder: Path, name: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)  # opening it would wait for ever
    if name == "seg_dict":  # read beside the network
        options = FunasrOptions(streaming_model=str(folder), mode="realtime", threads=1)
        with pytest.raises(EngineNotUsable, match="seg_dict cannot be used"):
            load_parts("cpu", without_punctuation(options), nothing)
    else:
        assert f"/{name} cannot be used (it is no plain file)" in refused("streaming", folder)
    path.unlink()
    path.mkdir()
    if name != "seg_dict":
        assert f"/{name} cannot be used (it is no plain file)" in refused("streaming", folder)


def without_punctuation(options: FunasrOptions) -> FunasrOptions:
    return FunasrOptions(
        streaming_model=options.streaming_model,
        punctuation_model="none",
        mode=options.mode,
        threads=1,
    )


@pytest.mark.parametrize(
    "content", [b"hello", b"\x80\x02}.", b"<html>404", b"\x80\x02}q\x00(X\x01\x00\x00\x00au."]
)
def test_weights_that_are_none(folder: Path, content: bytes) -> None:
    (folder / "model.pt").unlink()
    (folder / "model.pt").write_bytes(content)
    text = refused("streaming", folder)
    assert text.startswith("/model.pt cannot be used (it is damaged, or no checkpoint")
    assert "weights_only" not in text


def test_weights_that_are_a_pointer_of_git_lfs(folder: Path) -> None:
    (folder / "model.pt").unlink()
    (folder / "model.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in refused("streaming", folder)


@pytest.mark.parametrize("value", [[1], {1: torch.zeros(1)}, {"a": "x"}, torch.zeros(1)])
def test_a_checkpoint_of_something_else(folder: Path, value: object) -> None:
    (folder / "model.pt").unlink()
    torch.save(value, folder / "model.pt")
    assert "/model.pt cannot be used (it is damaged" in refused("streaming", folder)


# Models that are not there


@pytest.mark.parametrize(
    "options, says",
    [
        (
            FunasrOptions(streaming_model="none", offline_model="None"),
            "FUNASR_STREAMING_MODEL and FUNASR_OFFLINE_MODEL are none",
        ),
        (
            FunasrOptions(streaming_model="none", mode="realtime"),
            "FUNASR_STREAMING_MODEL is none, and ASR_MODEL_MODE is realtime",
        ),
        (
            FunasrOptions(offline_model="none", mode="offline"),
            "FUNASR_OFFLINE_MODEL is none, and ASR_MODEL_MODE is offline",
        ),
    ],
)
def test_no_recognition_model_at_all(options: FunasrOptions, says: str) -> None:
    with pytest.raises(EngineNotUsable, match=says):
        load_parts("cpu", options, nothing)
