"""Reading a model's folder, and refusing what is not the model that is computed here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from app.core.errors import EngineNotUsable
from app.engines.funasr import checkpoint
from app.engines.funasr.features import WIDTH
from app.engines.funasr.streaming import load_model


@pytest.fixture
def folder(streaming_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(streaming_folder, tmp_path / "model"))


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    change(config)
    path.write_text(yaml.safe_dump(config), "utf-8")


def _one_line(error: pytest.ExceptionInfo[EngineNotUsable]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def test_a_sound_folder_loads(folder: Path) -> None:
    model, names = load_model(folder)
    saved = torch.load(folder / "model.pt", weights_only=True)
    assert set(model.state_dict()) == set(saved)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, saved[name])
    assert len(names) == len(set(names)) == 300
    assert not model.training


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda c: c.update(model="Paraformer"), "model"),
        (lambda c: c.update(encoder="ConformerEncoder"), "encoder"),
        (lambda c: c.pop("predictor_conf"), "predictor_conf"),
        (lambda c: c["encoder_conf"].update(sanm_shfit=5), "encoder_conf.sanm_shfit"),
        (lambda c: c["encoder_conf"].update(normalize_before=False), "normalize_before"),
        (lambda c: c["encoder_conf"].update(attention_heads=5), "attention_heads"),
        (lambda c: c["encoder_conf"].update(novelty=1), "novelty"),
        (lambda c: c["decoder_conf"].update(att_layer_num=1), "att_layer_num"),
        (lambda c: c["decoder_conf"].update(sanm_shfit=0), "sanm_shfit"),
        (lambda c: c["predictor_conf"].update(threshold=0.9), "predictor_conf.threshold"),
        (lambda c: c["predictor_conf"].update(smooth_factor=1.2), "smooth_factor"),
        (lambda c: c["frontend_conf"].update(fs=8000), "frontend_conf.fs"),
        (lambda c: c["frontend_conf"].update(lfr_n=1), "frontend_conf.lfr_n"),
    ],
)
def test_another_architecture_is_refused_by_the_key_that_differs(
    folder: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    _edit(folder, change)
    with pytest.raises(EngineNotUsable, match="is not a model that FunSpeech knows") as error:
        load_model(folder)
    assert named in _one_line(error)


def test_what_only_training_knows_does_not_matter(folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["train_conf"] = {"max_epoch": 3}
        config["encoder_conf"]["dropout_rate"] = 0.5
        config["model_conf"]["lsm_weight"] = 0.2

    _edit(folder, change)
    load_model(folder)


@pytest.mark.parametrize("name", ["config.yaml", "model.pt", "tokens.json"])
def test_a_missing_file_is_named_with_the_command_that_mends_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(EngineNotUsable, match=f"{name} is missing") as error:
        load_model(folder)
    assert "funspeech models verify" in _one_line(error)


@pytest.mark.parametrize(
    "name, content",
    [
        ("config.yaml", b"a: [b"),
        ("config.yaml", b"- 1"),
        ("config.yaml", b"\xff\xfe"),
        ("tokens.json", b'["a", 1]'),
        ("tokens.json", b"["),
        ("model.pt", b""),
        ("model.pt", b"not a checkpoint"),
    ],
)
def test_a_damaged_file_is_named_with_the_command_that_mends_it(
    folder: Path, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(EngineNotUsable, match=f"{name} cannot be used") as error:
        load_model(folder)
    assert "funspeech models verify" in _one_line(error)


def test_a_broken_off_checkpoint_is_refused(folder: Path) -> None:
    path = folder / "model.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(EngineNotUsable, match=r"model\.pt cannot be used") as error:
        load_model(folder)
    _one_line(error)


def test_a_checkpoint_of_other_parameters_is_refused(folder: Path) -> None:
    path = folder / "model.pt"
    weights = torch.load(path, weights_only=True)
    weights["ctc.ctc_lo.weight"] = weights.pop("predictor.cif_output.bias")
    torch.save(weights, path)
    with pytest.raises(EngineNotUsable, match="is not a model that FunSpeech knows") as error:
        load_model(folder)
    text = _one_line(error)
    assert "lacks predictor.cif_output.bias" in text
    assert "ctc.ctc_lo.weight" in text


def test_a_checkpoint_of_another_size_is_refused(folder: Path) -> None:
    _edit(folder, lambda config: config["encoder_conf"].update(linear_units=64))
    with pytest.raises(EngineNotUsable, match=r"model\.pt cannot be used") as error:
        load_model(folder)
    _one_line(error)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_may_be_inside_of_a_checkpoint_of_training(folder: Path, key: str) -> None:
    path = folder / "model.pt"
    weights = torch.load(path, weights_only=True)
    torch.save({key: weights, "epoch": 3}, path)
    model, _ = load_model(folder)
    name = "decoder.output_layer.bias"
    assert torch.equal(model.state_dict()[name], weights[name])


def test_a_checkpoint_in_the_old_format_loads(folder: Path) -> None:
    path = folder / "model.pt"
    weights = torch.load(path, weights_only=True)
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    model, _ = load_model(folder)
    name = "decoder.output_layer.bias"
    assert torch.equal(model.state_dict()[name], weights[name])


def test_a_checkpoint_runs_no_code(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "was-run",))

    torch.save({"weights": Evil()}, folder / "model.pt")
    with pytest.raises(EngineNotUsable, match=r"model\.pt cannot be used"):
        load_model(folder)
    assert not (folder / "was-run").exists()


def test_the_normalisation_is_read(tmp_path: Path) -> None:
    (tmp_path / "am.mvn").write_text(
        "<Nnet> \n<Splice> 3 3 \n[ 0 ] \n<AddShift> 3 3 \n"
        "<LearnRateCoef> 0 [ -1.5 2 3e-1 ] \n<Rescale> 3 3 \n<LearnRateCoef> 0 [ 1 0.5 4 ] \n"
        "</Nnet> \n"
    )
    found = checkpoint.read_normalisation(tmp_path, 3)
    assert found is not None
    assert torch.equal(found[0], torch.tensor([-1.5, 2.0, 0.3]))
    assert torch.equal(found[1], torch.tensor([1.0, 0.5, 4.0]))


def test_a_model_may_have_no_normalisation(tmp_path: Path) -> None:
    assert checkpoint.read_normalisation(tmp_path, WIDTH) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<AddShift> 2 2 <LearnRateCoef> 0 [ 1 2 ]",
        "<AddShift> 2 2 <LearnRateCoef> 0 [ 1 ] <Rescale> 2 2 <LearnRateCoef> 0 [ 1 1 ]",
        "<AddShift> 2 2 <LearnRateCoef> 0 [ 1 nan ] <Rescale> 2 2 <LearnRateCoef> 0 [ 1 1 ]",
        "<AddShift> 2 2 <LearnRateCoef> 0 [ 1 x ] <Rescale> 2 2 <LearnRateCoef> 0 [ 1 1 ]",
        "<AddShift> 2 2 <LearnRateCoef> 0 [ 1 2",
    ],
)
def test_a_damaged_normalisation_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "am.mvn").write_text(text)
    with pytest.raises(EngineNotUsable, match=r"am\.mvn cannot be used"):
        checkpoint.read_normalisation(tmp_path, 2)
