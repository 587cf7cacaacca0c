"""MODELS_FILE: further recognition models of one server, for projects to choose.

    [telephone]
    ASR_ENGINE = "funasr"
    ASR_GPUS = "1"
    FUNASR_OFFLINE_MODEL = "paraformer-zh-8k"

A table for each model, by its label; in it the settings that differ from the server's, by the names
of their variables. Each model has workers of its own, which are loaded beside the server's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.core.config import Config, ConfigError, overruled
from app.engines import registry

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
"""As a part of a worker's name and of its socket's path; 32 characters at most."""

_OF_THE_API: Final = ("ASR_ENABLE_NEARFIELD_FILTER", "ASR_NEARFIELD_")
"""What works on the audio before it is known which model will hear it."""


def recognition_models(config: Config) -> dict[str, Config]:
    """The settings of each recognition model, by its label: the server's own is "" and comes first,
    then those of MODELS_FILE.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong; the text says what.
    """
    models = {"": config}
    if config.models_file is not None:
        for label, table in _read(config.models_file).items():
            models[label] = _model(config, label, table)
    return models


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"MODELS_FILE: {path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"MODELS_FILE: {path} cannot be read: {error.strerror}") from None


def _model(config: Config, label: str, table: object) -> Config:
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"MODELS_FILE: {label} is outside of a table; write it under [a-label-of-the-model]"
        )
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            f"MODELS_FILE: [{label[:80]}] is no label; it has up to 32 of a-z, 0-9 and -, and "
            "neither begins nor ends with -"
        )
    values = {name: _text(label, name, value) for name, value in table.items()}
    try:
        return overruled(config, values)
    except ConfigError as error:
        raise ConfigError(f"MODELS_FILE: [{label}]: {error}") from None


def _text(label: str, name: str, value: object) -> str:
    """A value as it would stand in the environment."""
    if not _may_differ(name):
        raise ConfigError(
            f"MODELS_FILE: [{label}]: {name[:80]} cannot differ between models; what can are "
            "MAX_STREAMS, settings of recognition (ASR_…), and those of an engine (FUNASR_…)"
        )
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"MODELS_FILE: [{label}]: {name} must be a text, a number, or true or false")


def _may_differ(name: str) -> bool:
    engines = tuple(f"{engine.upper()}_" for engine in registry.ENGINES)
    is_setting = name.isupper() and name.lower() in Config.model_fields
    is_of_a_model = name == "MAX_STREAMS" or name.startswith(("ASR_", *engines))
    return is_setting and is_of_a_model and not name.startswith(_OF_THE_API)
