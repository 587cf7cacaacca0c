"""SpeechLongSynthesizer: the same for long texts (nls-protocol.md 4.1)."""

from __future__ import annotations

from typing import ClassVar

from app.nls.synthesizer import Synthesizer


class LongSynthesizer(Synthesizer):
    """One SpeechLongSynthesizer task. Only the limit of the text differs: Go's SDK sends this
    namespace for short texts too, once it has sent a long one."""

    NAMESPACE: ClassVar[str] = "SpeechLongSynthesizer"

    @property
    def _max_text_chars(self) -> int:
        return self._limits.max_long_text_chars
