"""What is known about one HTTP request from its first moment: its task id, for the answer and the
log, and whose error codes apply to it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from starlette.types import Scope

from app.nls.status import SUCCESS, Family


def new_task_id() -> str:
    """32 hex digits, as the cloud makes them."""
    return uuid.uuid4().hex


@dataclass(slots=True)
class Call:
    """One request. A door sets ``family`` when it is not a recognition; ``code`` is that of its
    failure, where it failed; ``reason`` of an Overloaded, what was full; ``details``: what its
    line in the log says besides."""

    task_id: str = field(default_factory=new_task_id)
    family: Family = "recognition"
    code: int = SUCCESS.code
    reason: str = ""
    details: dict[str, object] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The task id under the cloud's name (nls-protocol.md 6.2) and under that of the earlier
        FunSpeech (zaigie/FunSpeech)."""
        return {"X-NLS-RequestId": self.task_id, "task_id": self.task_id}


def call_of(scope: Scope) -> Call:
    """The call that ``scope`` belongs to; made at the first use."""
    state = scope.setdefault("state", {})
    call = state.get("call")
    if not isinstance(call, Call):
        call = state["call"] = Call()
    return call
