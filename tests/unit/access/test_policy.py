"""Who may enter, as which project, and what a refusal shows."""

from __future__ import annotations

import hmac
from typing import Any

import msgspec
import pytest

from app.access.policy import AccessPolicy
from app.access.snapshot import EMPTY, Snapshot
from app.access.tokens import issue
from app.core.errors import (
    AccessDenied,
    AppkeyMismatch,
    DailyQuotaUsed,
    SpeechError,
    UnknownAppkey,
)
from app.core.project import DEFAULT_PROJECT, Project

TOKEN = "right-token-0123"
KEY = "right-appkey-0123"
NOW = 1_800_000_000

SEAL = b"seal"
REVOKED_ID = b"\x02" * 8
FILM = Project(appkey="film", name="Film")
CLOSED = Project(appkey="closed", enabled=False)
SNAPSHOT = Snapshot(
    projects={each.appkey: each for each in (Project(name="all"), FILM, CLOSED)},
    token_key=SEAL,
    revoked=frozenset({REVOKED_ID}),
)


def issued(
    appkey: str | None = None, *, expires_at: int = NOW + 1, token_id: bytes = b"\x01" * 8
) -> str:
    """A token of ours."""
    return issue(SEAL, expires_at=expires_at, appkey=appkey, token_id=token_id)


ANY, FILMS = issued(), issued("film")
EXPIRED = issued(expires_at=NOW)
REVOKED = issued(token_id=REVOKED_ID)
FORGED = issue(b"another seal", expires_at=NOW + 1, appkey=None, token_id=b"\x01" * 8)


def policy(
    apptoken: str | None = None,
    appkey: str | None = None,
    *,
    require_token: bool = False,
    snapshot: Snapshot = SNAPSHOT,
    used: tuple[int, int] = (0, 0),
) -> AccessPolicy:
    """A policy on a snapshot, at a fixed time."""
    return AccessPolicy(
        apptoken,
        appkey,
        require_token=require_token,
        projects=lambda: snapshot,
        clock=lambda: NOW,
        used=lambda _: used,
    )


@pytest.mark.parametrize(
    ("policy", "token", "appkey"),
    [
        (AccessPolicy(None, None), None, None),
        (AccessPolicy("", ""), None, None),
        (AccessPolicy(None, None), "anything", "anything"),
        (AccessPolicy(TOKEN, None), TOKEN, None),
        (AccessPolicy(TOKEN, KEY), TOKEN, None),
        (AccessPolicy(TOKEN, KEY), TOKEN, "another project"),
        (AccessPolicy(None, KEY), None, KEY),
        (AccessPolicy(None, KEY), "SDKs always send one", KEY),
        (AccessPolicy("令牌" * 8, None), "令牌" * 8, None),
    ],
)
def test_lets_in(policy: AccessPolicy, token: str | None, appkey: str | None) -> None:
    assert policy.check(token, appkey) == DEFAULT_PROJECT


@pytest.mark.parametrize(
    ("policy", "token", "appkey", "text"),
    [
        (AccessPolicy(TOKEN, None), None, None, "Missing authorization header"),
        (AccessPolicy(TOKEN, None), "", None, "Missing authorization header"),
        (AccessPolicy(TOKEN, None), "wrong-and-wrong", None, "The token 'wron****rong' is invalid"),
        (AccessPolicy(TOKEN, None), TOKEN[:-1], None, "The token 'righ****-012' is invalid"),
        (AccessPolicy(TOKEN, None), "短" * 20, None, "The token '____****____' is invalid"),
        (AccessPolicy(TOKEN, None), "\ud800" * 20, None, "is invalid"),
        # An appkey is no credential where a token is set.
        (AccessPolicy(TOKEN, KEY), None, KEY, "Missing authorization header"),
        (AccessPolicy(TOKEN, KEY), KEY, KEY, "The token"),
        (AccessPolicy(None, KEY), "token", None, "Missing appkey"),
        (AccessPolicy(None, KEY), KEY, "wrong-and-wrong", "The appkey 'wron****rong' is invalid"),
        # Before the database is there, no token can be one of ours.
        (AccessPolicy(None, None, require_token=True), ANY, None, "is invalid"),
        (
            AccessPolicy(None, None, require_token=True, projects=lambda: EMPTY),
            issue(b"", expires_at=NOW + 1, appkey=None, token_id=b"\x01" * 8),
            None,
            "is invalid",
        ),
    ],
)
def test_refuses(policy: AccessPolicy, token: str | None, appkey: str | None, text: str) -> None:
    with pytest.raises(AccessDenied) as refusal:
        policy.check(token, appkey)
    assert text in refusal.value.text


def test_policy_does_not_show_its_secrets() -> None:
    shown = repr(AccessPolicy(TOKEN, KEY, projects=lambda: SNAPSHOT))
    assert "right" not in shown and "seal" not in repr(SNAPSHOT) + shown


@pytest.mark.parametrize("settings", [{"apptoken": TOKEN}, {"require_token": True}], ids=str)
def test_issued_tokens(settings: dict[str, Any]) -> None:
    ours = policy(**settings)
    assert ours.check(ANY, "film") == FILM
    assert ours.check(ANY, None).name == "all"
    assert ours.check(FILMS, "film") == FILM
    for token, text in (
        (EXPIRED, f"The token '{EXPIRED[:4]}****{EXPIRED[-4:]}' has expired!"),
        (REVOKED, f"The token '{REVOKED[:4]}****{REVOKED[-4:]}' is invalid!"),
        (FORGED, f"The token '{FORGED[:4]}****{FORGED[-4:]}' is invalid!"),
    ):
        for refused in (lambda t=token: ours.check(t, "film"), lambda t=token: ours.admits(t)):
            with pytest.raises(AccessDenied) as refusal:
                refused()
            assert refusal.value.text == text


@pytest.mark.parametrize("appkey", [None, "", "other", "FILM", "*"])
def test_a_token_is_for_its_appkey_only(appkey: str | None) -> None:
    with pytest.raises(AppkeyMismatch):
        policy(TOKEN).check(FILMS, appkey)


def test_the_owners_token_is_for_every_appkey() -> None:
    assert policy(TOKEN).check(TOKEN, "film") == FILM


def test_tokens_are_not_looked_at_where_none_is_needed() -> None:
    for open_to_all in (policy(), policy(appkey="film")):
        assert open_to_all.check(REVOKED, "film") == FILM
        open_to_all.check_handshake(REVOKED, token_in_message=False)
        open_to_all.admits(None)


def test_an_appkey_of_a_project_is_a_credential_like_the_owners() -> None:
    assert policy(appkey=KEY).check(None, "film") == FILM
    for wrong in ("other", "*"):
        with pytest.raises(AccessDenied):
            policy(appkey=KEY).check(None, wrong)


def test_a_project_may_be_switched_off() -> None:
    for way in (policy(), policy(TOKEN), policy(appkey=KEY)):
        with pytest.raises(UnknownAppkey):
            way.check(TOKEN, "closed")


def test_unknown_appkeys_may_be_refused() -> None:
    closed = msgspec.structs.replace(SNAPSHOT, projects={"*": Project(enabled=False), "film": FILM})
    ours = policy(snapshot=closed)
    assert ours.check(None, "film") == FILM
    for unknown in ("other", "*", "", None):
        with pytest.raises(UnknownAppkey):
            ours.check(None, unknown)


@pytest.mark.parametrize(
    ("daily_audio_s", "daily_characters", "used", "refused"),
    [
        (0, 0, (10**9, 10**9), False),
        (60, 0, (59, 10**9), False),
        (60, 0, (60, 0), True),
        (0, 100, (10**9, 99), False),
        (0, 100, (0, 100), True),
        (60, 100, (59, 101), True),
    ],
)
def test_daily_quotas(
    daily_audio_s: int, daily_characters: int, used: tuple[int, int], refused: bool
) -> None:
    project = Project(appkey="film", daily_audio_s=daily_audio_s, daily_characters=daily_characters)
    ours = policy(snapshot=Snapshot(projects={"film": project}), used=used)
    if refused:
        with pytest.raises(DailyQuotaUsed):
            ours.check(None, "film")
    else:
        assert ours.check(None, "film") == project
    assert ours.check(None, "other") == DEFAULT_PROJECT


def test_wrong_tokens_hear_nothing_of_projects() -> None:
    for appkey in ("film", "closed"):
        with pytest.raises(AccessDenied):
            policy(TOKEN).check("wrong", appkey)


@pytest.mark.parametrize(
    ("token", "token_in_message", "admitted"),
    [
        (TOKEN, True, True),
        (TOKEN, False, True),
        (FILMS, False, True),
        (EXPIRED, True, False),
        (None, True, True),
        (None, False, False),
        ("", False, False),
        ("wrong-and-wrong", True, False),
        ("wrong-and-wrong", False, False),
    ],
)
@pytest.mark.parametrize("require_token", [False, True])
def test_handshake(
    token: str | None, token_in_message: bool, admitted: bool, require_token: bool
) -> None:
    ours = policy(TOKEN, require_token=require_token)
    if admitted:
        ours.check_handshake(token, token_in_message=token_in_message)
    else:
        with pytest.raises(AccessDenied):
            ours.check_handshake(token, token_in_message=token_in_message)


def test_handshake_asks_for_no_appkey_and_no_quota() -> None:
    AccessPolicy(None, KEY).check_handshake(None, token_in_message=False)
    nothing_left = Snapshot(projects={"*": Project(enabled=False, daily_audio_s=1)})
    policy(snapshot=nothing_left, used=(2, 0)).check_handshake(None, token_in_message=False)


@pytest.mark.parametrize("given", [TOKEN, "wrong", "wrong-token-0123"])
def test_credentials_are_compared_in_constant_time(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def counted(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for ours in (policy(TOKEN), policy(appkey=TOKEN)):
        try:
            ours.check(given, given)
        except SpeechError:
            assert given != TOKEN
        assert compared[0] == (given.encode(), TOKEN.encode())
        compared.clear()


def test_a_signed_call_needs_no_token() -> None:
    policy = AccessPolicy(TOKEN, KEY, require_token=True, projects=lambda: SNAPSHOT)
    assert policy.check_signed("film", None) is policy.check_signed("film", "film") is FILM
    assert policy.check_signed("unknown", None).name == "all"
    with pytest.raises(AppkeyMismatch):
        policy.check_signed("film", "other")
    with pytest.raises(UnknownAppkey):
        policy.check_signed("closed", None)


def test_a_signed_call_uses_the_quota() -> None:
    limited = Project(appkey="film", daily_audio_s=10)
    snapshot = Snapshot(projects={"film": limited})
    policy = AccessPolicy(None, None, projects=lambda: snapshot, used=lambda appkey: (10, 0))
    with pytest.raises(DailyQuotaUsed):
        policy.check_signed("film", None)
