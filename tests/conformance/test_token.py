"""nls-protocol.md 9, Token: numbers 74 to 77, by real sockets. The signatures are made here, from
the words of section 7, not by what checks them."""

from __future__ import annotations

import base64
import hmac
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.access.rows import KeyRow
from app.access.store import Store, open_store
from app.core.config import Config
from app.nls import pop
from tests.support.live import Live, live_server
from tests.support.rawsocket import Refused, check_shown, handshake, opened, whole_task

ROA_PATH = "/pop/2018-05-18/tokens"
PATHS = ["/", "/pop/2019-02-28/tokens"]
UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"

KNOWN = {
    "AccessKeyId": "testid",
    "Action": "DescribeRegions",
    "Format": "XML",
    "SignatureMethod": "HMAC-SHA1",
    "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
    "SignatureVersion": "1.0",
    "Timestamp": "2016-02-23T12:46:24Z",
    "Version": "2014-05-26",
}
"""The vector of 7.2; its secret is ``testsecret``."""
KNOWN_SIGNATURE = "OLeaidS1JvxuMvnyHOwuJ+uX5qY="
KNOWN_TIME = 1_456_231_584.0
"""Its timestamp, in seconds since 1970."""


class At(NamedTuple):
    """Where one API server listens alone."""

    host: str
    port: int


@dataclass
class Site:
    """A server of two API servers that wants tokens, and an access key of it. ``https``: a client
    of each API server."""

    live: Live
    store: Store
    key: KeyRow
    https: list[httpx.AsyncClient]

    @property
    def http(self) -> httpx.AsyncClient:
        """The first one's."""
        return self.https[0]

    def query(self, method: str, secret: str | None = None, **more: str) -> dict[str, str]:
        """What the SDKs put into it."""
        query = {
            "AccessKeyId": self.key.id,
            "Action": "CreateToken",
            "Version": "2019-02-28",
            "Format": "JSON",
            "RegionId": "cn-shanghai",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "SignatureMethod": "HMAC-SHA1",
            "SignatureVersion": "1.0",
            "SignatureNonce": str(uuid.uuid4()),
            **more,
        }
        return {**query, "Signature": signature(method, query, secret or self.key.secret)}

    def java(self, path: str = ROA_PATH, secret: str | None = None) -> dict[str, str]:
        """The headers of its AccessToken."""
        headers = {
            "Accept": "application/json",
            "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg==",
            "Content-Type": "application/octet-stream;charset=utf-8",
            "Date": formatdate(time.time(), usegmt=True),
        }
        signed = "\n".join(["POST", *headers.values(), path])
        made = base64_hmac(secret or self.key.secret, signed)
        return {**headers, "Authorization": f"acs {self.key.id}:{made}"}


def base64_hmac(key: str, signed: str) -> str:
    return base64.b64encode(hmac.digest(key.encode(), signed.encode(), "sha1")).decode()


def percent_encoded(text: str) -> str:
    return "".join(chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def signature(method: str, parameters: Mapping[str, str], secret: str) -> str:
    """By the six steps of 7.2."""
    pairs = sorted(parameters.items())
    canonical = "&".join(f"{percent_encoded(n)}={percent_encoded(v)}" for n, v in pairs)
    return base64_hmac(f"{secret}&", f"{method}&%2F&{percent_encoded(canonical)}")


@asynccontextmanager
async def a_site(folder: Path) -> AsyncIterator[Site]:
    config = Config.model_validate({"data_dir": folder / "data"})
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(
            live_server(folder, apis=2, require_token=True, ws_token_in_message=False)
        )
        store = await stack.enter_async_context(open_store(config))
        https = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://{live.host}:{port}", timeout=60)
            )
            for port in live.own_ports
        ]
        yield Site(live, store, await store.create_key(), https)


def created(answer: httpx.Response) -> tuple[str, int]:
    """The token of a good answer, and when it ends."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"NlsRequestId", "RequestId", "ErrMsg", "Token"}
    assert body["ErrMsg"] == ""
    token = body["Token"]
    assert set(token) == {"ExpireTime", "Id", "UserId"}
    assert type(token["ExpireTime"]) is int
    return token["Id"], token["ExpireTime"]


def refused(answer: httpx.Response) -> str:
    """The code of a refusal, which has the shape of the open API's."""
    assert 400 <= answer.status_code < 500
    body = answer.json()
    assert set(body) == {"RequestId", "HostId", "Code", "Message"}
    assert all(isinstance(value, str) and value for value in body.values())
    check_shown(body["Message"].replace(ROA_PATH, ""))  # what the client has signed
    code: str = body["Code"]
    return code


async def opens(live: Live, token: str) -> None:
    """A task runs on either API server with it, in the header and in the query."""
    for port in live.own_ports:
        where = At(live.host, port)
        async with opened(where, headers=[f"X-NLS-Token: {token}"]) as client:
            await whole_task(client, "SpeechRecognizer")
            await whole_task(client, "SpeechSynthesizer")
        async with opened(where, f"/ws/v1?token={token}") as client:
            await whole_task(client, "SpeechTranscriber")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_74_create_token(tmp_path: Path, method: str, path: str) -> None:
    """The path that is signed is ``/`` at either."""
    async with a_site(tmp_path) as site:
        for number, http in enumerate(site.https):
            made = site.query(method, RegionId=f"a b*~+/&=%中 {number}")
            created(await http.request(method, path, params=made))
        if method == "POST":
            created(await site.http.post(path, data=site.query(method)))
            query = site.query(method)
            form = {name: query.pop(name) for name in ("Action", "Signature")}
            created(await site.http.post(path, params=query, data=form))
        other = {"GET": "POST", "POST": "GET"}[method]
        wrong = await site.http.request(method, path, params=site.query(other))
        assert refused(wrong) == "SignatureDoesNotMatch"


def test_74_the_known_vector() -> None:
    assert signature("GET", KNOWN, "testsecret") == KNOWN_SIGNATURE
    request = pop.read_rpc("GET", {**KNOWN, "Signature": KNOWN_SIGNATURE}, KNOWN_TIME)
    request.verify("testsecret")
    for method, secret in (("POST", "testsecret"), ("GET", "testsecreT")):
        request = pop.read_rpc(method, {**KNOWN, "Signature": KNOWN_SIGNATURE}, KNOWN_TIME)
        with pytest.raises(pop.PopError) as error:
            request.verify(secret)
        assert error.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_75_a_wrong_secret(tmp_path: Path, method: str, path: str) -> None:
    async with a_site(tmp_path) as site:
        for query in (
            site.query(method, "wrong-secret"),
            site.query(method, site.key.secret + "x"),
            {**site.query(method), "RegionId": "cn-beijing"},
            {**site.query(method), "Unsigned": "1"},
            {**site.query(method), "Signature": "forged"},
        ):
            answer = await site.http.request(method, path, params=query)
            assert refused(answer) == "SignatureDoesNotMatch"
            assert site.key.secret not in answer.text
        unknown = await site.http.request(
            method, path, params=site.query(method, AccessKeyId="nobody")
        )
        assert refused(unknown) == "InvalidAccessKeyId.NotFound"
        assert await site.store.tokens() == []


async def test_76_the_token_opens_a_websocket(tmp_path: Path) -> None:
    """Of whichever API server it is."""
    async with a_site(tmp_path) as site:
        for http in site.https:
            token, expires_at = created(await http.get("/", params=site.query("GET")))
            assert time.time() < expires_at < time.time() + 48 * 3600
            await opens(site.live, token)
        forged = token[:-1] + ("0" if token[-1] != "0" else "1")
        for port in site.live.own_ports:
            for headers in ([], ["X-NLS-Token: 0123"], [f"X-NLS-Token: {forged}"]):
                with pytest.raises(Refused) as error:
                    await handshake(At(site.live.host, port), headers=headers)
                assert error.value.status == 403


async def test_77_the_roa_style_of_java(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        for http in site.https:
            token, expires_at = created(await http.post(ROA_PATH, headers=site.java()))
            assert expires_at > time.time()
            await opens(site.live, token)
        issued = len(await site.store.tokens())
        later = formatdate(time.time() + 2, usegmt=True)
        changes: list[dict[str, Any]] = [
            {"Accept": "*/*"},
            {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="},
            {"Content-Type": "application/json"},
            {"Date": later},
        ]
        for headers in (
            site.java(secret="wrong-secret"),
            site.java(path="/"),
            *({**site.java(), **change} for change in changes),
        ):
            answer = await site.http.post(ROA_PATH, headers=headers)
            assert refused(answer) == "SignatureDoesNotMatch", headers
        unsigned = site.java()
        del unsigned["Authorization"]
        assert refused(await site.http.post(ROA_PATH, headers=unsigned)) == "MissingParameter"
        assert len(await site.store.tokens()) == issued
