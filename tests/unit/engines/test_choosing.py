"""Which engine ``auto`` takes: no surprise downloads, no silent second best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from app.core.config import Config
from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import registry
from app.engines.funasr.catalogue import MODELS
from app.engines.sherpa.files import folders
from app.engines.sherpa.settings import SherpaOptions
from tests.support.sherpa.placed import put, put_damaged

ROLES: Final[tuple[Role, ...]] = ("asr", "tts")


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


def test_nobody_s_laptop_downloads_gigabytes_unasked(config: Config) -> None:
    assert registry.choose("auto", "asr", config.engine_settings) == "embedded"
    assert registry.choose("auto", "tts", config.engine_settings) == "embedded"
    advice = registry.advice("embedded", "asr", config.engine_settings)
    assert advice == "funspeech models pull zh-small, then restart"
    advice = registry.advice("embedded", "tts", config.engine_settings, program="./funspeech")
    assert advice == "./funspeech models pull voice-zh-en, then restart"


@pytest.mark.parametrize("name", ["zh-small", "zh-large", "sensevoice-int8"])
def test_one_model_of_sherpa_s_is_enough(config: Config, name: str) -> None:
    put(config.modelscope_cache, name)
    assert registry.choose("auto", "asr", config.engine_settings) == "sherpa"
    assert registry.advice("sherpa", "asr", config.engine_settings) == ""
    assert registry.choose("auto", "tts", config.engine_settings) == "embedded"


def test_a_voice_is_for_synthesis_only(config: Config) -> None:
    put(config.modelscope_cache, "voice-zh-en")
    assert registry.choose("auto", "tts", config.engine_settings) == "sherpa"
    assert registry.choose("auto", "asr", config.engine_settings) == "embedded"


def test_models_that_are_here_are_used(config: Config) -> None:
    put_models(config.modelscope_cache)
    assert registry.choose("auto", "asr", config.engine_settings) == "funasr"
    # On a CPU it is slower than sherpa, and no worse.
    assert registry.advice("funasr", "asr", config.engine_settings) == ""
    put(config.modelscope_cache, "zh-small")
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
    put(config.modelscope_cache, "zh-small")
    choose = registry.choose
    assert choose("auto", "asr", config.engine_settings) == "funasr"
    assert choose("auto", "asr", config.engine_settings, ["cuda:1", "cpu"]) == "funasr"
    assert choose("auto", "asr", config.engine_settings, ["cpu", "cpu"]) == "sherpa"
    assert choose("auto", "tts", config.engine_settings) == "embedded"
    advice = registry.advice("sherpa", "asr", config.engine_settings)
    assert advice == "funspeech models pull, then restart"


def changed(config: Config, **settings: str) -> Config:
    return config.model_copy(update=settings)


def needed(config: Config, role: Role = "asr") -> list[str]:
    """What sherpa would load."""
    files = registry.model_files("sherpa")
    assert files is not None
    return list(files.needed(config.engine_settings("sherpa"), role, on_card=False))


def to_pull(config: Config) -> list[str]:
    """What would be fetched for recognition by sherpa, where nobody names a model."""
    files = registry.model_files("sherpa")
    assert files is not None
    return list(files.to_pull(config.engine_settings("sherpa"), "asr", on_card=False))


@pytest.mark.parametrize(
    ("role", "whole", "damaged"),
    [
        ("asr", [], "zh-small"),
        ("asr", ["sensevoice-int8"], "zh-small"),
        ("asr", [], "sensevoice-int8"),
        ("tts", [], "voice-zh-en"),
    ],
)
def test_a_damaged_model_stops_the_start_and_is_not_replaced_by_another_engine(
    config: Config, role: Role, whole: list[str], damaged: str
) -> None:
    cache = config.modelscope_cache
    put(cache, *whole)
    put_damaged(cache, damaged)
    assert registry.choose("auto", role, config.engine_settings) == "sherpa"
    with pytest.raises(EngineNotUsable, match=f"is damaged: .*models pull {damaged}$"):
        folders(SherpaOptions(cache=cache), role, lambda doing: None)


@pytest.mark.parametrize("damaged", ["punctuation-int8", "sensevoice-int8", "zh-large"])
def test_a_damaged_part_that_recognition_can_do_without_is_left_out_with_a_warning(
    config: Config, damaged: str
) -> None:
    cache = config.modelscope_cache
    put(cache, "zh-small")
    put_damaged(cache, damaged)
    assert registry.choose("auto", "asr", config.engine_settings) == "sherpa"
    with capture_logs() as logs:
        found = folders(SherpaOptions(cache=cache), "asr", lambda doing: None)
    assert [folder.name for folder in found.values()] == needed(config) == ["zh-small"]
    warning = {"model": damaged, "mend": f"funspeech models pull {damaged}"}
    assert [warning.items() <= line.items() for line in logs] == [True]


def test_a_damaged_part_that_is_asked_for_is_not_left_out(config: Config) -> None:
    put(config.modelscope_cache, "zh-small")
    put_damaged(config.modelscope_cache, "punctuation-int8")
    named = changed(config, sherpa_punctuation_model="punctuation-int8")
    assert registry.choose("auto", "asr", named.engine_settings) == "sherpa"
    assert needed(named) == ["zh-small", "punctuation-int8"]


def test_what_is_switched_off_leaves_the_place_to_the_next_engine(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(config.modelscope_cache, "zh-small", "voice-zh-en")
    off = changed(
        config,
        sherpa_voice_model="none",
        sherpa_streaming_model="none",
        sherpa_offline_model="none",
    )
    settings = off.engine_settings
    for role in ROLES:
        assert registry.choose("auto", role, settings) == "embedded"
    assert registry.recommended("tts", settings) is None
    assert registry.recommended("asr", settings) == "funasr"
    assert registry.advice("embedded", "tts", settings) == ""
    assert registry.advice("embedded", "asr", settings) == "funspeech models pull, then restart"

    def find_spec(name: str) -> object:
        return object() if name == "sherpa_onnx" else None

    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", find_spec)
    with pytest.raises(registry.NotInstalled, match="SHERPA_VOICE_MODEL"):
        registry.choose("auto", "tts", settings)


@pytest.mark.parametrize(
    ("role", "setting", "value", "says"),
    [
        ("asr", "sherpa_streaming_model", "zh-smal", "no folder zh-smal .*zh-large, zh-small"),
        ("asr", "sherpa_offline_model", "/no/such/folder", "SHERPA_OFFLINE_MODEL: there is no"),
        ("asr", "sherpa_streaming_model", "voice-zh-en", "voice-zh-en is a model for voice"),
        ("tts", "sherpa_voice_model", "zh-small", "zh-small is a model for streaming"),
        ("tts", "sherpa_mirrors", "nowhere", "SHERPA_MIRRORS"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_whoever_chooses(
    config: Config, role: Role, setting: str, value: str, says: str
) -> None:
    wrong = changed(config, **{setting: value})
    with pytest.raises(EngineNotUsable, match=says) as raised:
        registry.choose("auto", role, wrong.engine_settings)
    assert not isinstance(raised.value, registry.NotInstalled)
    assert "\n" not in str(raised.value)
    with pytest.raises(EngineNotUsable, match=says):
        needed(wrong, role)


def test_a_wrong_setting_of_the_next_engine_is_told_too(config: Config) -> None:
    wrong = changed(config, funasr_offline_model="paraformer-z")
    with pytest.raises(EngineNotUsable, match="no folder 'paraformer-z'"):
        registry.choose("auto", "asr", wrong.engine_settings)


def test_a_pull_without_names_is_never_without_interim_results(
    config: Config, tmp_path: Path
) -> None:
    put(config.modelscope_cache, "sensevoice-int8")
    assert needed(config) == ["sensevoice-int8"]
    assert to_pull(config) == ["zh-small", "sensevoice-int8"]
    own = changed(config, sherpa_offline_model=str(tmp_path))
    assert to_pull(own) == ["zh-small", str(tmp_path)]
    assert to_pull(changed(config, sherpa_streaming_model="none")) == ["sensevoice-int8"]
    assert to_pull(changed(config, asr_model_mode="offline")) == ["sensevoice-int8"]
    put(config.modelscope_cache, "zh-large")
    assert to_pull(config) == ["zh-large", "sensevoice-int8"]


def test_what_to_pull_is_for_the_best_of_the_installed(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.engine_settings
    assert registry.recommended("asr", settings) == "sherpa"
    assert registry.recommended("tts", settings) == "sherpa"
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    assert registry.recommended("asr", settings) == "funasr"
    assert registry.recommended("asr", settings, ["cpu"]) == "sherpa"
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: None)
    assert registry.recommended("asr", settings) is None
    with pytest.raises(registry.NotInstalled):
        registry.choose("auto", "asr", config.engine_settings)


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
