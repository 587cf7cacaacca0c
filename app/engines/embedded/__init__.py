"""Engines that come with ``pip`` alone, without a model to download, for trying the server out.

Recognition is pocketsphinx (``recognizer.py``): English commands and clear read speech.
Synthesis is espeak-ng (``synthesizer.py``): intelligible and robotic, in five languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.core.errors import EngineNotUsable
from app.engines.base import (
    EngineFamily,
    Progress,
    Recognizer,
    Synthesizer,
)
from app.engines.registry import how_to_install


class _EmbeddedFamily:
    """Both halves run on the CPU, whatever ``device`` is, and have no settings."""

    def recognizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Recognizer:
        try:
            from app.engines.embedded.recognizer import PocketsphinxRecognizer
        except ImportError as error:
            raise _not_usable("pocketsphinx", error) from error
        return PocketsphinxRecognizer(progress)

    def synthesizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Synthesizer:
        try:
            from app.engines.embedded.synthesizer import EspeakSynthesizer
        except ImportError as error:
            raise _not_usable("espeakng_loader", error) from error
        progress("espeak-ng")
        return EspeakSynthesizer()


def _not_usable(module: str, error: ImportError) -> EngineNotUsable:
    if error.name != module:
        return EngineNotUsable(f"{module} is installed but does not load: {error}")
    return EngineNotUsable(f"the embedded engine needs {module}; {how_to_install('embedded')}")


FAMILY: Final[EngineFamily] = _EmbeddedFamily()
