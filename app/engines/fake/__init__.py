"""An engine without a model: what it hears and says can be computed, so that lost, swapped or
late audio shows. The whole server is tested on it, and its overhead measured.

Recognition tells how long the sound lasted (``recognizer.py``), or what a script says
(``script.py``); synthesis is a sine whose pitch and length follow from the text
(``synthesizer.py``). Its settings are in ``options.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.engines.base import EngineFamily, Progress, Recognizer, Synthesizer


class _FakeFamily:
    """Both halves run anywhere: ``device`` is ignored."""

    def recognizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Recognizer:
        from app.engines.fake.options import FakeOptions
        from app.engines.fake.recognizer import FakeRecognizer
        from app.engines.fake.script import load_script

        options = FakeOptions.parse(settings)
        progress("fake recogniser")
        script = load_script(options.asr_script) if options.asr_script else ()
        return FakeRecognizer(options, script)

    def synthesizer(
        self, device: str, settings: Mapping[str, object], progress: Progress
    ) -> Synthesizer:
        from app.engines.fake.options import FakeOptions
        from app.engines.fake.synthesizer import FakeSynthesizer

        progress("fake synthesiser")
        return FakeSynthesizer(FakeOptions.parse(settings))


FAMILY: Final[EngineFamily] = _FakeFamily()
