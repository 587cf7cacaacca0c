"""Everything of access together, as an API process has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.access.rows import ProjectRow
from app.access.running import running_access
from app.core.config import Config
from app.core.errors import AccessDenied, DailyQuotaUsed
from app.core.usage import Used
from app.storage.errors import StorageError

ALL = ("2000-01-01", "2100-01-01")


async def test_two_processes_on_one_database(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"data_dir": tmp_path, "require_token": True, "max_tasks_per_appkey": 7}
    )
    async with running_access(config) as one, running_access(config) as other:
        await one.store.save_project(
            ProjectRow(appkey="a", max_tasks=0, daily_characters=10), new=True
        )
        token, row = await one.store.create_token(seconds=60, appkey="a")
        await other.projects.reload()
        assert other.policy.check(token, "a").daily_characters == 10
        assert (other.max_tasks("a"), other.max_tasks("b")) == (0, 7)
        other.ledger.record("a", Used(kind="tts", characters=10))
        with pytest.raises(DailyQuotaUsed):
            other.policy.check(token, "a")
        await one.store.revoke_token(row.id)
        await other.projects.reload()
        with pytest.raises(AccessDenied):
            other.policy.check(token, "a")
    async with running_access(config) as again:
        assert [each.used.characters for each in await again.store.usage(*ALL)] == [10]
        assert again.ledger.used_today("a") == (0, 10)


async def test_a_token_is_good_elsewhere_at_once(tmp_path: Path) -> None:
    config = Config.model_validate({"data_dir": tmp_path, "apptoken": "the-owners-token"})
    async with running_access(config) as one, running_access(config) as other:
        token, _ = await one.store.create_token(seconds=60)
        other.policy.admits(token)
        other.policy.admits("the-owners-token")
        with pytest.raises(AccessDenied):
            other.policy.admits(None)


async def test_no_database_no_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        async with running_access(Config(data_dir=tmp_path / "file")):
            pass
