"""Tokens, projects and usage across the processes of a real server, and a database that cannot be
had."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from pathlib import Path

import httpx
import pytest

from app.access.rows import KeyRow, UsageRow
from app.access.store import open_store
from app.client.nls import NlsClient
from app.core.config import Config
from app.nls import pop
from tests.support.process import Served, serving
from tests.support.rawsocket import handshake
from tests.support.sound import tone


def settings_of(folder: Path) -> Config:
    """What the server in ``folder`` has, as far as the database goes."""
    return Config(data_dir=folder / "data")


async def new_key(folder: Path) -> KeyRow:
    async with open_store(settings_of(folder)) as store:
        return await store.create_key()


async def usage(folder: Path) -> list[UsageRow]:
    async with open_store(settings_of(folder)) as store:
        return await store.usage("2000-01-01", "2999-12-31")


async def created(served: Served, key: KeyRow) -> tuple[str, int]:
    """A new token, and the process that has issued it."""
    parameters = {
        "AccessKeyId": key.id,
        "Action": "CreateToken",
        "SignatureNonce": str(uuid.uuid4()),
        "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    parameters["Signature"] = pop.sign_rpc("GET", parameters, key.secret)
    async with (
        httpx.AsyncClient(base_url=served.http, timeout=30) as http,
        http.stream("GET", "/", params=parameters) as answer,
    ):
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        issuer = served.process_at(port)
        await answer.aread()
    return str(answer.json()["Token"]["Id"]), issuer


async def test_a_token_opens_any_process_and_usage_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path, WORKERS="2", REQUIRE_TOKEN="true") as served:
        key = await new_key(tmp_path)
        met: set[bool] = set()  # whether the process that issued the token was asked to take it
        async with asyncio.timeout(60):  # the kernel chooses the process
            while met != {True, False}:
                token, issuer = await created(served, key)
                socket = await handshake(served, headers=[f"X-NLS-Token: {token}"])
                met.add(served.process_at(socket.local_port) == issuer)
                socket.abort(reset=False)
        client = NlsClient(served.ws, token)
        await client.synthesize("hello")
        await client.transcribe(tone(700).tobytes())
        assert await served.stop() == 0
    rows = {row.kind: row for row in await usage(tmp_path)}
    assert {row.appkey for row in rows.values()} == {"*"}
    assert (rows["tts"].used.tasks, rows["tts"].used.failed) == (1, 0)
    assert (rows["tts"].used.characters, rows["tts"].used.audio_ms) == (5, 1000)
    assert (rows["asr"].used.tasks, rows["asr"].used.audio_ms) == (1, 700)


async def test_a_database_that_cannot_be_had_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as ended:
        async with serving(tmp_path, DATABASE_URL="mysql://user:hidden-word@host/name"):
            pass
    output = str(ended.value)
    assert len(re.findall("DATABASE_URL must be sqlite:///path or postgresql://", output)) == 1
    assert "Traceback" not in output
    assert "hidden-word" not in output
