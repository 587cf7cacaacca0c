"""Who may use the server, put together for an API process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from app.access.policy import AccessPolicy
from app.access.projects import Projects
from app.access.store import Store, open_store
from app.access.usage import UsageLedger
from app.core.config import Config


@dataclass(frozen=True, slots=True)
class Access:
    """All that the doors and the services need. ``ledger.record`` is the services' account."""

    store: Store
    projects: Projects
    ledger: UsageLedger
    policy: AccessPolicy
    max_tasks_per_appkey: int

    def max_tasks(self, appkey: str) -> int:
        """How many tasks this appkey may run at the same time; 0: no limit."""
        own = self.projects.current.project_of(appkey).max_tasks
        return self.max_tasks_per_appkey if own is None else own


@asynccontextmanager
async def running_access(config: Config) -> AsyncIterator[Access]:
    """The database with all that follows it, inside the block. What the block has counted is saved
    at its end, so the services belong inside it.

    Raises:
        StorageError: the database cannot be had; the text is one line for the owner of the server.
    """
    async with open_store(config) as store:
        projects = Projects(store)
        ledger = UsageLedger(store, projects)
        policy = AccessPolicy(
            apptoken=_plain(config.apptoken),
            appkey=_plain(config.appkey),
            require_token=config.require_token,
            projects=lambda: projects.current,
            used=ledger.used_today,
        )
        async with projects.running(), ledger.running():
            yield Access(store, projects, ledger, policy, config.max_tasks_per_appkey)


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
