"""What an action of the POP door is given (``pop.py``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from app.access.policy import AccessPolicy
from app.access.projects import Projects
from app.access.rows import KeyRow
from app.access.store import Store
from app.jobs.runner import Runner
from app.nls.pop import missing


@dataclass(frozen=True, slots=True, kw_only=True)
class PopCall:
    """A call whose signature is good. ``key``: whose it is; ``token_s``: how long tokens are valid,
    in seconds. ``jobs``: None where none are run; ``draining``: the process is about to end."""

    parameters: Mapping[str, str]
    key: KeyRow
    request_id: str
    store: Store
    projects: Projects
    token_s: int
    access: AccessPolicy
    jobs: Runner | None = None
    draining: bool = False

    def required(self, name: str) -> str:
        """A parameter.

        Raises:
            PopError: it is not there, or empty.
        """
        value = self.parameters.get(name)
        if not value:
            raise missing(name)
        return value


Action = Callable[[PopCall], Awaitable[dict[str, object]]]
"""Returns the body of the answer. Raises PopError, InvalidRequest, Overloaded and StorageError."""
