"""sherpa-onnx: zipformer or Paraformer for interim results, SenseVoice or Paraformer over whole
sentences, and punctuation, on a CPU and without torch.

``parts.py`` puts the recogniser together from folders that the settings name;
``docs/sherpa-engine.md`` tells what the runtime does, and what must not be done to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from app.core.errors import EngineNotUsable
from app.engines.registry import how_to_install

if TYPE_CHECKING:
    from app.engines.base import EngineFamily, Progress, Recognizer, Synthesizer


class _SherpaFamily:
    """Recognition only, on the CPU, whatever ``device`` is."""

    def recognizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Recognizer:
        from app.engines.sherpa.settings import SherpaOptions

        options = SherpaOptions.parse(settings)
        progress("importing sherpa-onnx")
        try:
            from app.engines.sherpa.parts import load_parts
        except ImportError as error:
            raise _not_usable(error) from error
        return load_parts(options, progress)

    def synthesizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Synthesizer:
        raise EngineNotUsable("engine 'sherpa' has no tts half")


def _not_usable(error: ImportError) -> EngineNotUsable:
    if error.name == "sherpa_onnx":
        return EngineNotUsable(f"the sherpa engine needs sherpa_onnx; {how_to_install('sherpa')}")
    return EngineNotUsable(f"a library of the sherpa engine does not load: {error}")


FAMILY: Final[EngineFamily] = _SherpaFamily()
