"""What the owner has set for this family, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from app.core.errors import EngineNotUsable
from app.core.paths import expanded
from app.engines.options import converted, named
from app.engines.sherpa.kinds import Role

Count = Annotated[int, msgspec.Meta(ge=1)]

NONE: Final = "none"
"""In place of a model's folder: there is to be no such model."""

_NAMES: Final = {
    "streaming_model": "SHERPA_STREAMING_MODEL",
    "offline_model": "SHERPA_OFFLINE_MODEL",
    "punctuation_model": "SHERPA_PUNCTUATION_MODEL",
    "threads": "SHERPA_THREADS",
    "slots": "SHERPA_SLOTS",
    "max_batch": "SHERPA_MAX_BATCH",
    "mode": "ASR_MODEL_MODE",
    "realtime_punctuation": "ASR_ENABLE_REALTIME_PUNC",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SherpaOptions:
    """The settings of README.md's table, with its names in lower case and its defaults.

    Models are folders, or ``none``. ``threads``: of the CPU, for each model. ``slots``: sentences
    that may be open at once. ``max_batch``: streams in one call. ``mode``: which recognition
    models to load.
    """

    streaming_model: str = NONE
    offline_model: str = NONE
    punctuation_model: str = NONE
    threads: Count = 1
    slots: Count = 64
    max_batch: Count = 16
    mode: Literal["all", "realtime", "offline"] = "all"
    realtime_punctuation: bool = False

    @classmethod
    def parse(cls, settings: Mapping[str, object]) -> SherpaOptions:
        """From the settings by their upper-case names; what is not there has its default.

        Raises:
            EngineNotUsable: a value is none that the setting can have.
        """
        return converted(named(settings, _NAMES), cls, _NAMES)

    def folders(self) -> dict[Role, Path]:
        """The folders of the models that are to be loaded.

        Raises:
            EngineNotUsable: a path cannot be one, or nothing would recognise speech.
        """
        wanted: dict[Role, str] = {}
        if self.mode != "offline":
            wanted["streaming"] = self.streaming_model
        if self.mode != "realtime":
            wanted["offline"] = self.offline_model
        wanted["punctuation"] = self.punctuation_model
        found = {
            role: _folder(role, model)
            for role, model in wanted.items()
            if model.strip().lower() not in ("", NONE)
        }
        if not found.keys() & {"streaming", "offline"}:
            names = {"realtime": "SHERPA_STREAMING_MODEL", "offline": "SHERPA_OFFLINE_MODEL"}
            either = "SHERPA_STREAMING_MODEL or SHERPA_OFFLINE_MODEL"
            raise EngineNotUsable(
                f"nothing would recognise speech: set {names.get(self.mode, either)} to the folder "
                f"of a model (README.md, Engines); ASR_MODEL_MODE is {self.mode}"
            )
        return found


def _folder(role: Role, model: str) -> Path:
    try:
        return expanded(model.strip())
    except ValueError as error:
        raise EngineNotUsable(f"{_NAMES[f'{role}_model']}: {error}") from None
