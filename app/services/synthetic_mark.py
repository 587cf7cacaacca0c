"""What audio says of itself when a machine has made it: the implicit label of GB 45438-2025, which
clients ask for with ``enable_aigc_tag`` (nls-protocol.md 5.1)."""

from __future__ import annotations

from typing import Final

import msgspec

from app.core.speech import SyntheticMark

_PRODUCER: Final = "FunSpeech"
_GENERATED: Final = "1"
"""The content is generated, not only perhaps."""

_MAX_CHARS: Final = 256
"""Of what the client gives: names and numbers, not texts."""


def mark_text(mark: SyntheticMark, task_id: str) -> str:
    """The label as JSON. ``task_id``: the number that the producer has for this audio."""
    label = {
        "Label": _GENERATED,
        "ContentProducer": _PRODUCER,
        "ProduceID": task_id,
        "ContentPropagator": mark.propagator[:_MAX_CHARS],
        "PropagateID": mark.propagate_id[:_MAX_CHARS],
    }
    return msgspec.json.encode(label).decode()
