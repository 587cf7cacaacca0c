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

Dtype = Literal["fp32", "bf16", "fp16", "int8"]
Count = Annotated[int, msgspec.Meta(ge=0)]

ModelRole = Literal[
    "streaming", "offline", "offline 8 kHz", "punctuation", "interim punctuation", "vad"
]

NONE: Final = "none"
"""In place of a model's name: there is to be no such model."""

AUTO: Final = "auto"
"""In place of the VAD's name: as the device is."""

_NAMES: Final = {
    "streaming_model": "FUNASR_STREAMING_MODEL",
    "offline_model": "FUNASR_OFFLINE_MODEL",
    "offline_model_8k": "FUNASR_OFFLINE_MODEL_8K",
    "punctuation_model": "FUNASR_PUNCTUATION_MODEL",
    "realtime_punctuation_model": "FUNASR_REALTIME_PUNCTUATION_MODEL",
    "vad_model": "FUNASR_VAD_MODEL",
    "dtype": "FUNASR_DTYPE",
    "chunk_ms": "FUNASR_CHUNK_MS",
    "slots": "FUNASR_SLOTS",
    "max_batch": "FUNASR_MAX_BATCH",
    "threads": "FUNASR_THREADS",
    "replicas": "REPLICAS",
    "mode": "ASR_MODEL_MODE",
    "realtime_punctuation": "ASR_ENABLE_REALTIME_PUNC",
    "cache": "MODELSCOPE_CACHE",
    "offline": "OFFLINE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FunasrOptions:
    """The settings of README.md's table, with its names in lower case and its defaults.

    Models are names of the catalogue or folders; ``offline_model_8k``, ``punctuation_model`` and
    ``vad_model`` may be ``none``, and the last one ``auto``. ``slots``, ``max_batch``, ``threads``:
    0 for "as the device is". ``replicas``: those that share the CPU's cores. ``mode``: which
    recognition models to load. ``cache``: folder of downloaded models; ``offline``: nothing is
    ever downloaded.
    """

    streaming_model: str = "paraformer-zh-streaming"
    offline_model: str = "sensevoice-small"
    offline_model_8k: str = NONE
    punctuation_model: str = "ct-punc"
    realtime_punctuation_model: str = "ct-punc-realtime"
    vad_model: str = AUTO
    dtype: Dtype = "fp32"
    chunk_ms: Literal[600, 480, 300] = 600
    slots: Count = 0
    max_batch: Count = 0
    threads: Count = 0
    replicas: Count = 1
    mode: Literal["all", "realtime", "offline"] = "all"
    realtime_punctuation: bool = False
    cache: Path = Path("~/.cache/modelscope")
    offline: bool = False

    @classmethod
    def parse(cls, settings: Mapping[str, object]) -> FunasrOptions:
        """From the settings by their upper-case names; what is not there has its default.

        Raises:
            EngineNotUsable: a value is none that the setting can have.
        """
        found = named(settings, _NAMES)
        try:
            found["cache"] = expanded(str(found.get("cache", cls().cache)))
        except ValueError as error:
            raise EngineNotUsable(f"MODELSCOPE_CACHE: {error}") from None
        # Not strict: a chunk's length is a text among the settings.
        return converted(found, cls, _NAMES, strict=False)

    def models(self, *, on_card: bool) -> dict[ModelRole, str]:
        """What is loaded, and for what: names of the catalogue, or folders. On a CPU the server's
        own VAD costs a quarter as much as FunASR's."""
        wanted: dict[ModelRole, str] = {}
        if self.mode != "offline":
            wanted["streaming"] = self.streaming_model
        if self.mode != "realtime":
            wanted["offline"] = self.offline_model
            wanted["offline 8 kHz"] = self.offline_model_8k
        wanted["punctuation"] = self.punctuation_model
        if self.mode != "offline" and self.realtime_punctuation:
            wanted["interim punctuation"] = self.realtime_punctuation_model
        chosen = "fsmn-vad" if on_card else NONE
        wanted["vad"] = chosen if self.vad_model.lower() == AUTO else self.vad_model
        return {role: model for role, model in wanted.items() if model.lower() != NONE}

    def check_device(self, device: str) -> None:
        """``device`` is ``cpu`` or ``cuda:0``.

        Raises:
            EngineNotUsable: ``dtype`` is not for it.
        """
        if device == "cpu" and self.dtype == "fp16":
            raise EngineNotUsable("FUNASR_DTYPE=fp16 is for GPUs; on a CPU set int8 or fp32")
        if device != "cpu" and self.dtype == "int8":
            raise EngineNotUsable("FUNASR_DTYPE=int8 is for CPUs; on a GPU set bf16, fp16 or fp32")
