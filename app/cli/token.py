"""``funspeech token``: tokens that this server issues."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import typer

from app.access.rows import ProjectRow, TokenRow
from app.access.store import Store
from app.access.values import check_appkey, check_text
from app.cli.database import AT_ONCE, asked, changed, moment, note, settings
from app.cli.listing import show_json, show_list
from app.core.config import Config
from app.storage.errors import NotThere

_HOUR_S: Final = 3600


def create(hours: float | None, appkey: str | None, text: str, *, json: bool) -> None:
    """Issue a token and print it: it can be read now and never again. ``text``: a note."""
    config = settings()
    seconds = round((config.token_hours if hours is None else hours) * _HOUR_S)

    async def work(store: Store) -> tuple[str, TokenRow, ProjectRow | None]:
        check_bound(appkey, text)
        token, row = await store.create_token(seconds=seconds, appkey=appkey, note=text)
        return token, row, await store.project(appkey) if appkey is not None else None

    token, row, project = changed(config, work, AT_ONCE)
    note(f"it is shown this once; its id is {row.id}, it expires {moment(row.expires_at)}")
    advise(config, appkey, project)
    if json:
        show_json({"token": token, **_fields(row)})
    else:
        typer.echo(token)


def list_tokens(*, json: bool) -> None:
    """Print what is known of tokens, the oldest first; the tokens themselves are not kept."""
    rows = asked(settings(), lambda store: store.tokens())
    show_list(
        ("Id", "State", "Expires", "Appkey", "Access key", "Note"),
        [
            (
                row.id,
                _state(row),
                moment(row.expires_at) or "",
                row.appkey or "any",
                row.key_id or "-",
                row.note,
            )
            for row in rows
        ],
        [_fields(row) for row in rows],
        json=json,
    )


def revoke(names: Sequence[str]) -> None:
    """Make tokens invalid, each named by its id or by itself."""

    async def work(store: Store) -> None:
        missing = [name for name in names if not await store.revoke_token(name)]
        if missing:
            # Without the name, which may be a token.
            raise NotThere(
                f"{len(missing)} of {len(names)} not revoked: there is no such token, or it was "
                "revoked before; 'funspeech token list' has all"
            )

    changed(settings(), work)


def check_bound(appkey: str | None, text: str) -> None:
    """Whether a credential may be for this appkey, and have this note.

    Raises:
        InvalidRequest: it may not.
    """
    if appkey is not None:
        check_appkey(appkey)
    check_text("note", text)


def advise(config: Config, appkey: str | None, project: ProjectRow | None) -> None:
    """What may be a surprise about a new credential for this appkey."""
    if appkey is not None and project is None:
        note(f"the appkey {appkey} has no project of its own: the default one's settings hold")
    if config.apptoken is None and not config.require_token:
        note("no token is needed here: set REQUIRE_TOKEN=true, or APPTOKEN")


def _state(row: TokenRow) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "valid" if row.expires_at > time.time() else "expired"


def _fields(row: TokenRow) -> dict[str, object]:
    return {
        "id": row.id,
        "state": _state(row),
        "appkey": row.appkey,
        "access_key": row.key_id,
        "note": row.note,
        "created_at": moment(row.created_at),
        "expires_at": moment(row.expires_at),
        "revoked_at": moment(row.revoked_at),
    }
