"""The NLS namespaces that this server knows. A new one is one class in one file, entered here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.nls.flowing import FlowingSynthesizer
from app.nls.long_synthesizer import LongSynthesizer
from app.nls.recognizer import Recognizer
from app.nls.synthesizer import Synthesizer
from app.nls.task import Task
from app.nls.transcriber import Transcriber

NAMESPACES: Final[Mapping[str, type[Task]]] = {
    task.NAMESPACE: task
    for task in (Transcriber, Recognizer, Synthesizer, LongSynthesizer, FlowingSynthesizer)
}
