"""``funspeech key``: access keys, with which SDKs ask for tokens themselves (CreateToken)."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from app.access.rows import KeyRow, ProjectRow
from app.access.store import Store
from app.cli.database import AT_ONCE, asked, changed, moment, note, settings
from app.cli.listing import show_json, show_list
from app.cli.token import advise, check_bound
from app.storage.errors import NotThere


def create(appkey: str | None, text: str, *, json: bool) -> None:
    """Make a pair of keys and print it, the id first. ``text``: a note."""
    config = settings()

    async def work(store: Store) -> tuple[KeyRow, ProjectRow | None]:
        check_bound(appkey, text)
        row = await store.create_key(appkey, text)
        return row, await store.project(appkey) if appkey is not None else None

    row, project = changed(config, work, AT_ONCE)
    note("the secret is shown this once")
    advise(config, appkey, project)
    if json:
        show_json({**_fields(row), "secret": row.secret})
    else:
        typer.echo(f"AccessKeyId      {row.id}\nAccessKeySecret  {row.secret}")


def list_keys(*, json: bool) -> None:
    """Print all keys, the oldest first, without their secrets."""
    rows = asked(settings(), lambda store: store.keys())
    show_list(
        ("Id", "State", "Created", "Appkey", "Note"),
        [
            (row.id, _state(row), moment(row.created_at) or "", row.appkey or "any", row.note)
            for row in rows
        ],
        [_fields(row) for row in rows],
        json=json,
    )


def revoke(ids: Sequence[str]) -> None:
    """Make keys invalid, and the tokens that were made with them."""

    async def work(store: Store) -> None:
        missing = [key_id for key_id in ids if not await store.revoke_key(key_id)]
        if missing:
            raise NotThere(
                f"Not revoked: {', '.join(missing)}; there is no such key, or it was revoked "
                "before; 'funspeech key list' has all"
            )

    changed(settings(), work)


def _state(row: KeyRow) -> str:
    return "valid" if row.revoked_at is None else "revoked"


def _fields(row: KeyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "state": _state(row),
        "appkey": row.appkey,
        "note": row.note,
        "created_at": moment(row.created_at),
        "revoked_at": moment(row.revoked_at),
    }
