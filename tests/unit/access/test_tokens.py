"""Issued tokens, and what a refusal shows of a credential."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.tokens import ANY_APPKEY, TokenFacts, digest, issue, mask, read, scope_of

KEY = bytes(range(32))
TOKEN = issue(KEY, expires_at=1_893_456_000, appkey="an-appkey", token_id=b"\x11" * 8)


@given(
    key=st.binary(min_size=1, max_size=64),
    expires_at=st.integers(0, 2**40 - 1),
    appkey=st.none() | st.text(st.characters()),
    token_id=st.binary(min_size=8, max_size=8),
)
def test_says_what_was_sealed(
    key: bytes, expires_at: int, appkey: str | None, token_id: bytes
) -> None:
    token = issue(key, expires_at=expires_at, appkey=appkey, token_id=token_id)
    scope = ANY_APPKEY if appkey is None else scope_of(appkey)
    assert len(token) == 72
    assert read(token, key) == TokenFacts(token_id, expires_at, scope)
    assert read(token, key + b"x") is None
    assert read(token, b"") is None


def test_the_format_does_not_change() -> None:
    """Tokens outlive an update of the server."""
    assert TOKEN[:44] == "01" + "11" * 8 + "0070dbd880" + scope_of("an-appkey").hex()
    assert TOKEN[:44] + hmac.digest(KEY, bytes.fromhex(TOKEN[:44]), "sha256").hex()[:28] == TOKEN


@given(place=st.integers(0, 72 * 8 - 1))
def test_any_flipped_bit_is_refused(place: int) -> None:
    """Of the 72 characters: an upper-case digit would be the same number."""
    raw = bytearray(TOKEN.encode())
    raw[place // 8] ^= 1 << place % 8
    assert read(raw.decode("latin-1"), KEY) is None


@given(st.text(max_size=80) | st.text("0123456789abcdefABCDEF ", min_size=72, max_size=72))
def test_what_is_not_ours_is_refused(text: str) -> None:
    assert read(text, KEY) is None


def test_another_version_is_refused() -> None:
    sealed = b"\x02" + bytes.fromhex(TOKEN)[1:22]
    assert read((sealed + hmac.digest(KEY, sealed, "sha256")[:14]).hex(), KEY) is None


@pytest.mark.parametrize("token", [TOKEN, "0" * 72])
def test_seals_are_compared_in_constant_time(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noted(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    read(token, KEY)
    assert [len(each) for each in compared[0]] == [14, 14] and len(compared) == 1


def test_a_scope_is_one_appkey() -> None:
    facts = read(TOKEN, KEY)
    assert facts is not None
    assert facts.is_for("an-appkey")
    assert not facts.is_for("another") and not facts.is_for(None) and not facts.is_for("")
    anybodys = read(issue(KEY, expires_at=1, appkey=None, token_id=b"\x12" * 8), KEY)
    assert anybodys is not None
    assert anybodys.is_for("an-appkey") and anybodys.is_for(None)


def test_digests_are_sha256() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("secret", ["", "a", "12345678901"])
def test_masks_short_secrets_whole(secret: str) -> None:
    assert mask(secret) == "****"


def test_mask_keeps_out_what_could_break_a_line_or_a_quotation() -> None:
    assert mask("a'\r\n--------\"<>b") == "a___****_<>b".replace("<>", "__")
