"""Which engine ``auto`` takes: no surprise downloads, no silent second best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.core.config import Config
from app.core.errors import EngineNotUsable
from app.engines import registry
from app.engines.funasr.catalogue import MODELS


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is installed, and there is no card."""
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: False)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(modelscope_cache=tmp_path)


def put_models(cache: Path) -> None:
    """All of FunASR's, as small files in the places of the real ones."""
    for model in MODELS:
        for name in model.files:
            path = cache / "models" / model.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")


def put_sherpa(cache: Path, name: str) -> None:
    """One model of sherpa's, as small files in the places of the real ones."""
    files = registry.model_files("sherpa")
    assert files is not None
    (model,) = (each for each in files.models() if each.name == name)
    folder = cache / "sherpa" / name
    folder.mkdir(parents=True)
    for file in model.files:
        (folder / file).write_text("x")


def test_nobody_s_laptop_downloads_gigabytes_unasked(config: Config) -> None:
    assert registry.choose("auto", "asr", config.engine_settings) == "embedded"
    assert registry.choose("auto", "tts", config.engine_settings) == "embedded"
    advice = registry.advice("embedded", "asr", config.engine_settings)
    assert advice == "funspeech models pull zh-small, then restart"
    advice = registry.advice("embedded", "tts", config.engine_settings, program="./funspeech")
    assert advice == "./funspeech models pull voice-zh-en, then restart"


@pytest.mark.parametrize("name", ["zh-small", "zh-large", "sensevoice-int8"])
def test_one_model_of_sherpa_s_is_enough(config: Config, name: str) -> None:
    put_sherpa(config.modelscope_cache, name)
    assert registry.choose("auto", "asr", config.engine_settings) == "sherpa"
    assert registry.advice("sherpa", "asr", config.engine_settings) == ""
    assert registry.choose("auto", "tts", config.engine_settings) == "embedded"


def test_a_voice_is_for_synthesis_only(config: Config) -> None:
    put_sherpa(config.modelscope_cache, "voice-zh-en")
    assert registry.choose("auto", "tts", config.engine_settings) == "sherpa"
    assert registry.choose("auto", "asr", config.engine_settings) == "embedded"


def test_models_that_are_here_are_used(config: Config) -> None:
    put_models(config.modelscope_cache)
    assert registry.choose("auto", "asr", config.engine_settings) == "funasr"
    # On a CPU it is slower than sherpa, and no worse.
    assert registry.advice("funasr", "asr", config.engine_settings) == ""
    put_sherpa(config.modelscope_cache, "zh-small")
    assert registry.choose("auto", "asr", config.engine_settings) == "sherpa"


def test_one_model_of_those_that_are_needed_is_not_enough(config: Config) -> None:
    put_models(config.modelscope_cache)
    (config.modelscope_cache / "models" / MODELS[0].source / "model.pt").unlink()
    assert registry.choose("auto", "asr", config.engine_settings) == "embedded"
    offline_only = config.model_copy(update={"asr_model_mode": "offline"})
    assert registry.choose("auto", "asr", offline_only.engine_settings) == "funasr"


def test_a_cpu_is_complete_without_the_vad_of_cards(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start on a CPU does not fetch it, and the next one takes the same engine."""
    put_models(config.modelscope_cache)
    (vad,) = (model for model in MODELS if model.name == "fsmn-vad")
    (config.modelscope_cache / "models" / vad.source / "model.pt").unlink()
    assert registry.choose("auto", "asr", config.engine_settings) == "funasr"
    settings = config.engine_settings("funasr")
    assert registry.absent_models("funasr", "asr", settings, on_card=True) == ["fsmn-vad"]
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    lacking = "funspeech models pull fsmn-vad, then restart"
    assert registry.advice("embedded", "asr", config.engine_settings) == lacking


def test_a_card_is_reason_enough(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    put_sherpa(config.modelscope_cache, "zh-small")
    choose = registry.choose
    assert choose("auto", "asr", config.engine_settings) == "funasr"
    assert choose("auto", "asr", config.engine_settings, ["cuda:1", "cpu"]) == "funasr"
    assert choose("auto", "asr", config.engine_settings, ["cpu", "cpu"]) == "sherpa"
    assert choose("auto", "tts", config.engine_settings) == "embedded"
    advice = registry.advice("sherpa", "asr", config.engine_settings)
    assert advice == "funspeech models pull, then restart"


def test_what_to_pull_is_for_the_best_of_the_installed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.recommended("asr") == "sherpa"
    assert registry.recommended("tts") == "sherpa"
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    assert registry.recommended("asr") == "funasr"
    assert registry.recommended("asr", ["cpu"]) == "sherpa"
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: None)
    assert registry.recommended("asr") is None


def test_what_is_asked_for_is_taken(config: Config) -> None:
    assert registry.choose("funasr", "asr", config.engine_settings) == "funasr"
    with pytest.raises(EngineNotUsable, match="no tts half"):
        registry.choose("funasr", "tts", config.engine_settings)


def test_where_nothing_else_is_installed_auto_takes_it_and_downloads(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> object:
        return None if name == "pocketsphinx" else object()

    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", find_spec)
    assert registry.choose("auto", "asr", config.engine_settings) == "sherpa"


def test_what_is_not_installed_is_advised_with_its_command(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> object:
        return None if name in ("torch", "sherpa_onnx") else object()

    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", find_spec)
    assert registry.choose("auto", "asr", config.engine_settings) == "embedded"
    advice = registry.advice("embedded", "asr", config.engine_settings)
    install, pull, restart = advice.split(", then ")
    assert install == registry.how_to_install("sherpa")
    assert (pull, restart) == ("funspeech models pull zh-small", "restart")
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    advice = registry.advice("embedded", "asr", config.engine_settings)
    install, pull, restart = advice.split(", then ")
    # torch comes first, and not by one command for all machines.
    assert "docs/models.md" in install and "Dockerfile.funasr" in install and "pip" not in install
    assert (pull, restart) == ("funspeech models pull", "restart")


def test_an_engine_without_models_needs_none() -> None:
    def settings(name: str) -> Mapping[str, object]:
        raise AssertionError(f"{name}'s settings are nobody's business")

    assert registry.model_files("embedded") is None
    assert registry.absent_models("embedded", "asr", {}, on_card=False) == []
    assert registry.choose("embedded", "asr", settings) == "embedded"
    assert registry.advice("fake", "asr", settings) == ""


def test_a_card_is_seen_by_its_device_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "nvidiactl").touch()  # the driver alone
    assert not registry.has_nvidia_card(tmp_path)
    (tmp_path / "nvidia3").touch()
    assert registry.has_nvidia_card(tmp_path)
