"""Who may enter, and what a refusal shows."""

from __future__ import annotations

import pytest

from app.access.tokens import AccessPolicy, mask
from app.core.errors import AccessDenied

TOKEN = "right-token-0123"
KEY = "right-appkey-0123"


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
    policy.check(token, appkey)


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
    ],
)
def test_refuses(policy: AccessPolicy, token: str | None, appkey: str | None, text: str) -> None:
    with pytest.raises(AccessDenied) as refusal:
        policy.check(token, appkey)
    assert text in refusal.value.text


@pytest.mark.parametrize("secret", ["", "a", "12345678901"])
def test_masks_short_secrets_whole(secret: str) -> None:
    assert mask(secret) == "****"


def test_mask_keeps_out_what_could_break_a_line_or_a_quotation() -> None:
    assert mask("a'\r\n--------\"<>b") == "a___****_<>b".replace("<>", "__")


def test_policy_does_not_show_its_secrets() -> None:
    assert "right" not in repr(AccessPolicy(TOKEN, KEY))


@pytest.mark.parametrize(
    ("token", "token_in_message", "admitted"),
    [
        (TOKEN, True, True),
        (TOKEN, False, True),
        (None, True, True),
        (None, False, False),
        ("wrong-and-wrong", True, False),
        ("wrong-and-wrong", False, False),
    ],
)
def test_handshake(token: str | None, token_in_message: bool, admitted: bool) -> None:
    policy = AccessPolicy(TOKEN, None)
    if admitted:
        policy.check_handshake(token, token_in_message=token_in_message)
    else:
        with pytest.raises(AccessDenied):
            policy.check_handshake(token, token_in_message=token_in_message)


def test_handshake_does_not_ask_for_the_appkey() -> None:
    AccessPolicy(None, KEY).check_handshake(None, token_in_message=False)
