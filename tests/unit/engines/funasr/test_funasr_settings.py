"""The settings of the FunASR engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.config import Config
from app.core.errors import EngineNotUsable
from app.engines.funasr.settings import FunasrOptions


def test_the_servers_settings_are_understood() -> None:
    config = Config.model_validate(
        {"funasr_chunk_ms": "300", "funasr_dtype": "int8", "funasr_slots": 7, "offline": True}
    )
    options = FunasrOptions.parse(config.engine_settings("funasr"))
    assert options.chunk_ms == 300
    assert options.dtype == "int8"
    assert options.slots == 7
    assert options.offline
    assert options.cache == Path(config.modelscope_cache)


def test_defaults_are_the_servers() -> None:
    assert FunasrOptions.parse({}) == FunasrOptions.parse(
        Config.model_validate({}).engine_settings("funasr")
    )


@pytest.mark.parametrize(
    "setting, value",
    [
        ("FUNASR_DTYPE", "fp8"),
        ("FUNASR_CHUNK_MS", "500"),
        ("FUNASR_SLOTS", -1),
        ("FUNASR_THREADS", "many"),
        ("ASR_MODEL_MODE", "none"),
    ],
)
def test_nonsense_is_refused_by_the_settings_name(setting: str, value: object) -> None:
    with pytest.raises(EngineNotUsable, match=rf"^{setting}: [^\n]+$"):
        FunasrOptions.parse({setting: value})


@pytest.mark.parametrize("device, dtype", [("cpu", "fp16"), ("cuda:0", "int8")])
def test_arithmetic_that_is_not_for_the_device_is_refused(device: str, dtype: str) -> None:
    with pytest.raises(EngineNotUsable, match=f"FUNASR_DTYPE={dtype}"):
        FunasrOptions.parse({"FUNASR_DTYPE": dtype}).check_device(device)


@pytest.mark.parametrize(
    "device, dtype",
    [("cpu", "fp32"), ("cpu", "int8"), ("cpu", "bf16"), ("cuda:0", "fp16"), ("cuda:0", "bf16")],
)
def test_arithmetic_that_is_for_the_device(device: str, dtype: str) -> None:
    FunasrOptions.parse({"FUNASR_DTYPE": dtype}).check_device(device)
