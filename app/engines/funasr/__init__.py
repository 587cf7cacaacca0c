"""FunASR's models, many streams at a time: Paraformer for interim results, SenseVoice or Paraformer
over whole sentences, punctuation and VAD.

The networks are our own (``layers.py`` …) and load FunASR's checkpoints; the package ``funasr``
itself, which serves one stream at a time, is only what the tests compare with. ``parts.py`` puts
the recogniser together; ``docs/funasr-engine.md`` tells how it computes what FunASR does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from app.core.errors import EngineNotUsable
from app.engines.registry import how_to_install

if TYPE_CHECKING:
    # Not at run time: the supervisor looks at catalogue.py beside this file, and stays light.
    from app.engines.base import EngineFamily, Progress, Recognizer, Synthesizer


class _FunasrFamily:
    """Recognition only."""

    def recognizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Recognizer:
        from app.engines.funasr.settings import FunasrOptions

        options = FunasrOptions.parse(settings)
        progress("importing torch")
        try:
            from app.engines.funasr.parts import load_parts
        except ImportError as error:
            raise _not_usable(error) from error
        return load_parts(device, options, progress)

    def synthesizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Synthesizer:
        raise EngineNotUsable("engine 'funasr' has no tts half")


def _not_usable(error: ImportError) -> EngineNotUsable:
    if error.name in ("torch", "sentencepiece", "yaml", "modelscope_hub"):
        return EngineNotUsable(f"the funasr engine needs {error.name}; {how_to_install('funasr')}")
    return EngineNotUsable(f"a library of the funasr engine does not load: {error}")


FAMILY: Final[EngineFamily] = _FunasrFamily()
