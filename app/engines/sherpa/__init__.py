"""sherpa-onnx, on a CPU and without torch: zipformer or Paraformer for interim results, SenseVoice
or Paraformer over whole sentences, punctuation; and synthesis with Kokoro, Matcha, VITS, Melo and,
in voices of the owner's, ZipVoice.

``models.toml`` is the list of models that are downloaded, ``parts.py`` puts the recogniser
together, ``synthesis.py`` has the synthesiser;
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
    """Both halves run on the CPU, whatever ``device`` is."""

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
        from app.engines.sherpa.settings import SherpaOptions

        options = SherpaOptions.parse(settings)
        progress("importing sherpa-onnx")
        try:
            from app.engines.sherpa import files, synthesis, voice_kinds
        except ImportError as error:
            raise _not_usable(error) from error
        folder = files.folders(options, "tts", progress)["voice"]
        return synthesis.load_synthesizer(voice_kinds.find_voice_model(folder), options, progress)


def _not_usable(error: ImportError) -> EngineNotUsable:
    if error.name == "sherpa_onnx":
        return EngineNotUsable(f"the sherpa engine needs sherpa_onnx; {how_to_install('sherpa')}")
    return EngineNotUsable(f"a library of the sherpa engine does not load: {error}")


FAMILY: Final[EngineFamily] = _SherpaFamily()
