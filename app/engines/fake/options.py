"""The settings of the fake engine, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.core.errors import EngineNotUsable


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeOptions:
    """What the fake engine costs and says.

    ``asr_delay_ms`` + n * ``asr_item_ms``: the cost of one recognition step of n streams.
    ``asr_batch``: streams in one step, None for no limit. ``asr_script``: path of a script
    (``script.py``), empty for none. ``tts_delay_ms``: the cost of each piece of synthesis.
    """

    asr_delay_ms: float = 0.0
    asr_item_ms: float = 0.0
    asr_batch: int | None = None
    asr_script: str = ""
    tts_delay_ms: float = 0.0

    @classmethod
    def parse(cls, settings: Mapping[str, object]) -> FakeOptions:
        """Read the ``FAKE_*`` settings; those that are missing, empty or None have their default.

        Raises:
            EngineNotUsable: a value is not a number, or negative.
        """
        return cls(
            asr_delay_ms=_number(settings, "FAKE_ASR_DELAY_MS"),
            asr_item_ms=_number(settings, "FAKE_ASR_ITEM_MS"),
            asr_batch=int(_number(settings, "FAKE_ASR_BATCH")) or None,
            asr_script=str(settings.get("FAKE_ASR_SCRIPT") or ""),
            tts_delay_ms=_number(settings, "FAKE_TTS_DELAY_MS"),
        )


def _number(settings: Mapping[str, object], name: str) -> float:
    value = settings.get(name) or 0
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise EngineNotUsable(f"{name}={value} is not usable: give a number, 0 or more")
    return number
