"""Every WebSocket route and namespace without a token, with a wrong and with the right one, in all
places where a client may put it. The REST routes are in tests/unit/api/test_doors_access.py."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from app.api.nls_ws import PATHS
from app.nls.namespaces import NAMESPACES
from tests.support.live import live_server
from tests.support.rawsocket import (
    STARTS,
    Refused,
    bystander,
    handshake,
    message,
    nothing_left,
    opened,
    whole_task,
)

TOKEN = "right-token-0123"
WRONG = "wrong-and-secret-token-wrong"
KEY = "right-appkey-0123"
WRONG_KEY = "wrong-and-secret-appkey-wrong"

every_namespace = pytest.mark.parametrize("namespace", STARTS)


def everywhere(token: str) -> list[tuple[str, list[str]]]:
    """Path and headers of the handshakes with ``token``: three places, on every path."""
    return [
        handshake
        for path in PATHS
        for handshake in (
            (path, [f"X-NLS-Token: {token}"]),
            (path, [f"Authorization: Bearer {token}"]),
            (f"{path}?token={token}", []),
        )
    ]


def test_no_route_or_namespace_is_forgotten() -> None:
    assert set(PATHS) == {
        "/ws/v1",
        "/ws/v1/asr",
        "/ws/v1/tts",
        "/stream/v1/asr",
        "/stream/v1/tts",
    }
    assert set(STARTS) == set(NAMESPACES)


@pytest.mark.parametrize("token_in_message", [True, False])
async def test_a_wrong_token_never_passes_the_handshake(
    tmp_path: Path, token_in_message: bool
) -> None:
    async with (
        live_server(tmp_path, apptoken=TOKEN, ws_token_in_message=token_in_message) as live,
        bystander(live, TOKEN),
        nothing_left(live),
    ):
        for url, headers in [
            *everywhere(WRONG),
            *everywhere(TOKEN[:-1]),
            # The header wins.
            *((f"{path}?token={TOKEN}", [f"X-NLS-Token: {WRONG}"]) for path in PATHS),
        ]:
            with pytest.raises(Refused) as refused:
                await handshake(live, url, headers)
            assert refused.value.status == 403
            assert refused.value.body.startswith("Meta:ACCESS_DENIED:The token '")
            assert refused.value.body.endswith("' is invalid!")
            for secret in (WRONG, TOKEN, TOKEN[:-1]):
                assert secret not in refused.value.body


async def test_no_token_is_refused_at_the_handshake_where_messages_may_not_bring_it(
    tmp_path: Path,
) -> None:
    nothing: list[tuple[str, list[str]]] = [(path, []) for path in PATHS]
    appkey: list[tuple[str, list[str]]] = [(f"{path}?appkey={TOKEN}", []) for path in PATHS]
    async with live_server(tmp_path, apptoken=TOKEN, ws_token_in_message=False) as live:
        for url, headers in [*nothing, *appkey, *everywhere("")]:
            with pytest.raises(Refused) as refused:
                await handshake(live, url, headers)
            assert refused.value.status == 403
            assert refused.value.body.startswith("Meta:ACCESS_DENIED:Missing authorization header")


@every_namespace
@pytest.mark.parametrize("token_in_message", [True, False])
async def test_the_right_token_in_the_handshake_opens_every_namespace(
    tmp_path: Path, namespace: str, token_in_message: bool
) -> None:
    async with live_server(tmp_path, apptoken=TOKEN, ws_token_in_message=token_in_message) as live:
        for url, headers in everywhere(TOKEN):
            async with opened(live, url, headers) as client:
                await whole_task(client, namespace)
                # Whoever has proved himself need not do so again: a message cannot undo it.
                await whole_task(client, namespace, token=WRONG)


@every_namespace
async def test_the_token_of_a_message(tmp_path: Path, namespace: str) -> None:
    name = STARTS[namespace]
    refusals = {
        message(namespace, name): "Missing authorization header",
        message(namespace, name, token=""): "Missing authorization header",
        message(namespace, name, {"token": [TOKEN]}): "Missing authorization header",
        message(namespace, name, token=WRONG): "The token 'wron****rong' is invalid!",
        message(namespace, name, {"token": WRONG}): "The token 'wron****rong' is invalid!",
    }
    async with live_server(tmp_path, apptoken=TOKEN) as live, nothing_left(live):
        for path, (start, text) in itertools.product(PATHS, refusals.items()):
            async with opened(live, path) as client:
                await client.text(start)
                header = await client.failure()
                assert header["status"] == 40000001
                assert header["status_text"].startswith(f"Gateway:ACCESS_DENIED:{text}")
                assert header["namespace"] == "Default"
        for path in PATHS:
            async with opened(live, path) as client:
                await whole_task(client, namespace, token=TOKEN)
                # Each Start is checked: the connection itself has proved nothing.
                await client.text(message(namespace, name, {"text": "ab"}))
                assert (await client.failure())["status"] == 40000001


@pytest.mark.parametrize("place", ["payload", "context"])
async def test_browsers_may_put_the_token_beside_the_header(tmp_path: Path, place: str) -> None:
    start = json.loads(message("SpeechSynthesizer", "StartSynthesis", {"text": "ab"}))
    start[place] = {**start.get(place, {}), "token": TOKEN}
    async with live_server(tmp_path, apptoken=TOKEN) as live, opened(live) as client:
        await client.text(json.dumps(start))
        assert len((await client.frame()).payload) > 1000


@every_namespace
async def test_an_appkey_alone_is_the_credential(tmp_path: Path, namespace: str) -> None:
    name = STARTS[namespace]
    refusals: list[tuple[str, str, int, str]] = [
        ("", message(namespace, name, appkey=None), 40000003, "appkey not set"),
        ("", message(namespace, name, appkey=""), 40000003, "appkey not set"),
        ("", message(namespace, name, appkey=WRONG_KEY), 40000001, "The appkey 'wron****rong'"),
        ("", message(namespace, name, token=KEY), 40000001, "The appkey '****'"),
        (f"?token={KEY}", message(namespace, name), 40000001, "The appkey '****'"),
    ]
    async with live_server(tmp_path, appkey=KEY) as live, nothing_left(live):
        for path, (query, start, status, text) in itertools.product(PATHS, refusals):
            async with opened(live, path + query) as client:
                await client.text(start)
                header = await client.failure()
                assert header["status"] == status
                assert header["status_text"].split(":", 2)[2].startswith(text)
        for path in PATHS:
            async with opened(live, path) as client:
                await whole_task(client, namespace, appkey=KEY)


@every_namespace
async def test_an_appkey_is_no_credential_beside_a_token(tmp_path: Path, namespace: str) -> None:
    async with live_server(tmp_path, apptoken=TOKEN, appkey=KEY) as live:
        async with opened(live, f"/ws/v1?appkey={KEY}") as client:
            await client.text(message(namespace, STARTS[namespace], appkey=KEY))
            header = await client.failure()
            assert header["status"] == 40000001
            assert "Missing authorization header" in header["status_text"]
        async with opened(live, headers=[f"X-NLS-Token: {TOKEN}"]) as client:
            await whole_task(client, namespace, appkey="any")


async def test_without_credentials_of_the_owner_everybody_may_enter(tmp_path: Path) -> None:
    nothing: list[tuple[str, list[str]]] = [(path, []) for path in PATHS]
    async with live_server(tmp_path) as live:
        for url, headers in [*nothing, *everywhere("whatever")]:
            async with opened(live, url, headers) as client:
                for namespace in STARTS:  # one after the other on one connection
                    await whole_task(client, namespace)


async def test_an_unknown_path_is_404_whatever_the_token(tmp_path: Path) -> None:
    paths = ["/ws/v2", "/ws/v1/", "/ws", "/stream/v1", "/etc/passwd", "/ws/v1/../../etc/passwd"]
    tokens: list[list[str]] = [[], [f"X-NLS-Token: {TOKEN}"], [f"X-NLS-Token: {WRONG}"]]
    async with live_server(tmp_path, apptoken=TOKEN) as live:
        for path, headers in itertools.product(paths, tokens):
            with pytest.raises(Refused) as refused:
                await handshake(live, path, headers)
            assert refused.value.status == 404
