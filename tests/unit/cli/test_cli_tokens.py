"""``funspeech token`` and ``funspeech key``."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.access.policy import AccessPolicy
from app.access.rows import KeyRow
from app.access.snapshot import Snapshot
from app.access.store import open_store
from app.cli import cli
from app.core.config import load
from app.core.errors import AccessDenied, AppkeyMismatch

NO_TOKEN_NEEDED = "funspeech: no token is needed here: set REQUIRE_TOKEN=true, or APPTOKEN\n"


@pytest.fixture(autouse=True)
def token_is_needed(clean_settings: None) -> None:
    Path(".env").write_text("REQUIRE_TOKEN=true\n")


def funspeech(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def done(*arguments: str) -> Result:
    result = funspeech(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refusal(*arguments: str) -> str:
    result = funspeech(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("funspeech: ") and result.stderr.count("\n") == 1
    return result.stderr


def admitted(token: str, appkey: str = "any", *, after_s: float = 0) -> None:
    """Use a token as a server would that has just looked at the database."""

    async def work() -> Snapshot:
        async with open_store(load()) as store:
            return await store.snapshot()

    snapshot = asyncio.run(work())
    now = datetime.now(UTC).timestamp() + after_s
    policy = AccessPolicy(
        apptoken=None,
        appkey=None,
        require_token=True,
        projects=lambda: snapshot,
        clock=lambda: now,
    )
    policy.check(token, appkey)


def keys() -> list[KeyRow]:
    async def work() -> list[KeyRow]:
        async with open_store(load()) as store:
            return await store.keys()

    return asyncio.run(work())


def test_a_token_opens_the_server_until_it_expires() -> None:
    result = done("token", "create", "--hours", "2", "--note", "for the door")
    token = result.stdout.strip()
    assert result.stderr.startswith(
        "funspeech: in effect at once (database data/funspeech.db)\n"
        "funspeech: it is shown this once; its id is "
    )
    admitted(token)
    admitted(token, after_s=7190)
    with pytest.raises(AccessDenied, match="has expired"):
        admitted(token, after_s=7210)
    (row,) = json.loads(done("token", "list", "--json").stdout)
    assert (row["state"], row["note"], row["appkey"]) == ("valid", "for the door", None)
    assert token not in done("token", "list").stdout
    assert row["id"] in result.stderr and row["expires_at"] in result.stderr


def test_without_hours_it_is_valid_as_long_as_those_of_createtoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN_HOURS", "3")
    made = json.loads(done("token", "create", "--json").stdout)
    created, expires = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    assert (expires - created).total_seconds() == 3 * 3600
    admitted(made["token"])


def test_a_token_for_one_appkey() -> None:
    done("project", "create", "film")
    token = done("token", "create", "--appkey", "film").stdout.strip()
    admitted(token, "film")
    with pytest.raises(AppkeyMismatch):
        admitted(token, "radio")
    told = done("token", "create", "--appkey", "radio").stderr
    assert "the appkey radio has no project of its own" in told


@pytest.mark.parametrize("by_id", [True, False])
def test_a_revoked_token_is_refused(by_id: bool) -> None:
    made = json.loads(done("token", "create", "--json").stdout)
    admitted(made["token"])
    named = made["id"] if by_id else made["token"]
    assert "within a second" in done("token", "revoke", named).stderr
    with pytest.raises(AccessDenied, match="is invalid"):
        admitted(made["token"])
    assert done("token", "list").stdout.split("\t")[:2] == [made["id"], "revoked"]
    told = refusal("token", "revoke", named)
    assert "1 of 1 not revoked" in told
    assert made["token"] not in told  # a mistyped token may be good elsewhere


def test_of_several_tokens_those_that_are_there_are_revoked() -> None:
    made = json.loads(done("token", "create", "--json").stdout)
    assert "1 of 2 not revoked" in refusal("token", "revoke", "unknown", made["id"])
    with pytest.raises(AccessDenied, match="is invalid"):
        admitted(made["token"])


def test_whoever_needs_no_token_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("token", "key"):
        assert NO_TOKEN_NEEDED not in done(command, "create").stderr
    monkeypatch.setenv("REQUIRE_TOKEN", "false")
    for command in ("token", "key"):
        assert done(command, "create").stderr.endswith(NO_TOKEN_NEEDED)
    monkeypatch.setenv("APPTOKEN", "secret")
    assert NO_TOKEN_NEEDED not in done("token", "create").stderr


@pytest.mark.parametrize("command", ["token", "key"])
def test_what_cannot_be_is_said_in_one_line(command: str) -> None:
    assert "no client" in refusal(command, "create", "--appkey", "*")
    assert "Invalid note" in refusal(command, "create", "--note", "two\nlines")
    assert funspeech("token", "create", "--hours", "0").exit_code == 2


def test_a_key_is_shown_once() -> None:
    printed = done("key", "create", "--appkey", "film", "--note", "n").stdout
    (row,) = keys()
    assert printed == f"AccessKeyId      {row.id}\nAccessKeySecret  {row.secret}\n"
    assert (row.appkey, row.note) == ("film", "n")
    for options in ([], ["--json"]):
        listed = done("key", "list", *options).stdout
        assert row.id in listed and row.secret not in listed


def test_a_key_in_json() -> None:
    made = json.loads(done("key", "create", "--json").stdout)
    (row,) = keys()
    assert (made["id"], made["secret"], made["state"]) == (row.id, row.secret, "valid")


def test_with_a_key_its_tokens_are_revoked() -> None:
    made = json.loads(done("key", "create", "--json").stdout)

    async def work() -> str:
        async with open_store(load()) as store:
            return (await store.create_token(seconds=60, key_id=made["id"]))[0]

    token = asyncio.run(work())
    admitted(token)
    assert done("token", "list").stdout.split("\t")[4] == made["id"]
    done("key", "revoke", made["id"])
    with pytest.raises(AccessDenied, match="is invalid"):
        admitted(token)
    assert done("key", "list").stdout.split("\t")[1] == "revoked"
    assert f"Not revoked: {made['id']};" in refusal("key", "revoke", made["id"])
