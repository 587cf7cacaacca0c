"""What the owner has set for this family, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from app.core.errors import EngineNotUsable
from app.core.paths import expanded
from app.engines.options import converted, named
from app.engines.sherpa import mirrors
from app.engines.sherpa.kinds import ModelRole

Count = Annotated[int, msgspec.Meta(ge=1)]

NONE: Final = "none"
"""In place of a model's name: there is to be no such model."""

AUTO: Final = "auto"
"""In place of a model's name: the best that is here, or what is needed least."""

_NAMES: Final = {
    "streaming_model": "SHERPA_STREAMING_MODEL",
    "offline_model": "SHERPA_OFFLINE_MODEL",
    "punctuation_model": "SHERPA_PUNCTUATION_MODEL",
    "voice_model": "SHERPA_VOICE_MODEL",
    "threads": "SHERPA_THREADS",
    "voice_threads": "SHERPA_VOICE_THREADS",
    "slots": "SHERPA_SLOTS",
    "max_batch": "SHERPA_MAX_BATCH",
    "mirrors": "SHERPA_MIRRORS",
    "mode": "ASR_MODEL_MODE",
    "realtime_punctuation": "ASR_ENABLE_REALTIME_PUNC",
    "cache": "MODELSCOPE_CACHE",
    "offline": "OFFLINE",
    "voices_dir": "VOICES_DIR",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SherpaOptions:
    """The settings of README.md's table, with its names in lower case and its defaults.

    Models are names of the catalogue, folders, ``none`` or ``auto``. ``threads``: of the CPU, for
    each model of recognition; ``voice_threads``: for that of synthesis. ``slots``: sentences that
    may be open at once. ``max_batch``: streams in one call. ``mirrors``: where to download from.
    ``mode``: which recognition models to load. ``cache``: folder of downloaded models;
    ``offline``: nothing is ever downloaded. ``voices_dir``: the owner's folder of voices.
    """

    streaming_model: str = AUTO
    offline_model: str = AUTO
    punctuation_model: str = AUTO
    voice_model: str = AUTO
    threads: Count = 1
    voice_threads: Count = 2
    slots: Count = 64
    max_batch: Count = 16
    mode: Literal["all", "realtime", "offline"] = "all"
    realtime_punctuation: bool = False
    mirrors: str = ""
    cache: Path = field(default_factory=lambda: expanded("~/.cache/modelscope"))
    offline: bool = False
    voices_dir: Path = Path("voices")

    @classmethod
    def parse(cls, settings: Mapping[str, object]) -> SherpaOptions:
        """From the settings by their upper-case names; what is not there has its default.

        Raises:
            EngineNotUsable: a value is none that the setting can have.
        """
        found = named(settings, _NAMES)
        for path in ("cache", "voices_dir"):  # a worker gets its settings as JSON
            if path in found:
                found[path] = _expanded(path, str(found[path]))
        options = converted(found, cls, _NAMES)
        mirrors.parse(options.mirrors)  # also where nothing is to be downloaded yet
        return options


def setting_of(role: ModelRole) -> str:
    """The name of the setting that chooses the model for a role."""
    return _NAMES[f"{role}_model"]


def own_folder(role: ModelRole, model: str) -> Path:
    """What the owner has set for a role, as a path.

    Raises:
        EngineNotUsable: no folder can have such a name.
    """
    return _expanded(f"{role}_model", model)


def _expanded(field: str, path: str) -> Path:
    try:
        return expanded(path)
    except ValueError as error:
        raise EngineNotUsable(f"{_NAMES[field]}: {error}") from None
