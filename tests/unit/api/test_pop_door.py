"""The signed calls at the door, on a real database: CreateToken in every style that SDKs have, and
everything that is refused; nothing of a key is ever logged."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.access import tokens
from app.access.running import Access, running_access
from app.core.config import Config
from app.nls import pop
from app.storage.errors import StorageError

ROUTES = [
    ("GET", "/"),
    ("POST", "/"),
    ("GET", "/pop/2019-02-28/tokens"),
    ("POST", "/pop/2019-02-28/tokens"),
    ("POST", "/pop/2018-05-18/tokens"),
]


@dataclass
class Caller:
    """An access key, and a client that signs with it."""

    http: httpx.AsyncClient
    key_id: str
    secret: str

    def parameters(self, method: str, action: str, **more: str) -> dict[str, str]:
        """A signed set, as the SDKs make it; an empty value leaves the parameter out."""
        found = {
            "AccessKeyId": self.key_id,
            "Action": action,
            "Format": "JSON",
            "RegionId": "cn-shanghai",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": str(uuid.uuid4()),
            "SignatureVersion": "1.0",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Version": "2019-02-28",
            **more,
        }
        found = {name: value for name, value in found.items() if value}
        return {"Signature": pop.sign_rpc(method, found, self.secret), **found}

    async def call(
        self, action: str, method: str = "GET", path: str = "/", **more: str
    ) -> httpx.Response:
        """All parameters in the query."""
        return await self.http.request(method, path, params=self.parameters(method, action, **more))

    def roa(self, path: str, secret: str, sent: float) -> dict[str, str]:
        """The headers of Java's AccessToken."""
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/octet-stream;charset=utf-8",
            "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg==",
            "Date": formatdate(sent, usegmt=True),
        }
        signed = {name.lower(): value for name, value in headers.items()}
        signature = pop.sign_roa("POST", signed, path, secret)
        return {**headers, "Authorization": f"acs {self.key_id}:{signature}"}


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    config = Config.model_validate({"data_dir": tmp_path / "data", "require_token": True})
    async with running_access(config) as running:
        yield running


@pytest.fixture
async def caller(world: Any, access: Access) -> AsyncIterator[Caller]:
    key = await access.store.create_key()
    async with world.client(
        access=access.policy, store=access.store, projects=access.projects, token_s=3600
    ) as http:
        yield Caller(http, key.id, key.secret)


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Of a refusal in the cloud's shape."""
    body = answer.json()
    assert set(body) == {"RequestId", "HostId", "Code", "Message"}
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, body["Code"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_token_that_opens_the_doors(
    caller: Caller, access: Access, method: str, path: str
) -> None:
    began = time.time()
    answer = await caller.call("CreateToken", method, path)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"NlsRequestId", "RequestId", "ErrMsg", "Token"}
    assert re.fullmatch("[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", body["RequestId"])
    token = body["Token"]
    assert type(token["ExpireTime"]) is int
    assert began + 3590 < token["ExpireTime"] <= time.time() + 3600
    with_it = await caller.http.get(
        "/stream/v1/tts", params={"text": "hi"}, headers={"X-NLS-Token": token["Id"]}
    )
    without = await caller.http.get("/stream/v1/tts", params={"text": "hi"})
    assert (with_it.status_code, without.status_code) == (200, 401)
    (row,) = await access.store.tokens()
    assert row.key_id == caller.key_id


async def test_parameters_may_be_in_a_form(caller: Caller) -> None:
    parameters = caller.parameters("POST", "CreateToken")
    whole = await caller.http.post("/", data=parameters)
    again = await caller.http.post("/", data=parameters)
    parameters = caller.parameters("POST", "CreateToken")
    half = {name: parameters.pop(name) for name in ("Action", "Version")}
    halves = await caller.http.post("/", params=parameters, data=half)
    assert (whole.status_code, halves.status_code) == (200, 200)
    assert refused(again) == (400, "SignatureNonceUsed")


async def test_a_body_that_is_no_form_is_not_looked_at(caller: Caller) -> None:
    """C++ and Java label their empty bodies in other ways."""
    answer = await caller.http.post(
        "/pop/2019-02-28/tokens",
        params=caller.parameters("POST", "CreateToken"),
        content=b"Action=Nonsense",
        headers={"Content-Type": "application/octet-stream"},
    )
    assert answer.status_code == 200


async def test_the_roa_style_of_java(caller: Caller) -> None:
    path = "/pop/2018-05-18/tokens"
    good = await caller.http.post(path, headers=caller.roa(path, caller.secret, time.time()))
    wrong = await caller.http.post(path, headers=caller.roa(path, "wrong", time.time()))
    elsewhere = await caller.http.post(
        "/pop/2019-02-28/tokens", headers=caller.roa(path, caller.secret, time.time())
    )
    old = await caller.http.post(path, headers=caller.roa(path, caller.secret, time.time() - 1000))
    assert good.json()["Token"]["ExpireTime"] > time.time()
    assert refused(wrong) == refused(elsewhere) == (400, "SignatureDoesNotMatch")
    assert refused(old) == (400, "InvalidTimeStamp.Expired")


async def test_a_key_of_one_appkey_makes_tokens_for_it(caller: Caller, access: Access) -> None:
    key = await access.store.create_key(appkey="mine")
    bound = Caller(caller.http, key.id, key.secret)
    token = (await bound.call("CreateToken")).json()["Token"]["Id"]
    facts = tokens.read(token, access.projects.current.token_key)
    assert facts is not None
    assert facts.is_for("mine")
    assert not facts.is_for("another")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"AccessKeyId": "unknown"}, (404, "InvalidAccessKeyId.NotFound")),
        ({"AccessKeyId": "\x00\ud7ff"}, (404, "InvalidAccessKeyId.NotFound")),
        ({"Action": "SubmitTsk"}, (404, "InvalidAction.NotFound")),
        ({"Timestamp": "2019-03-25T09:07:52Z"}, (400, "InvalidTimeStamp.Expired")),
        ({"Timestamp": "now"}, (400, "InvalidTimeStamp.Format")),
        ({"SignatureNonce": ""}, (400, "MissingParameter")),
        ({"SignatureMethod": "HMAC-MD5"}, (400, "InvalidParameter")),
    ],
)
async def test_refusals(
    caller: Caller, access: Access, changes: dict[str, str], expected: tuple[int, str]
) -> None:
    action = changes.get("Action", "CreateToken")
    answer = await caller.call(action, **{n: v for n, v in changes.items() if n != "Action"})
    assert refused(answer) == expected
    assert await access.store.tokens() == []


async def test_a_wrong_secret_and_a_revoked_key(caller: Caller, access: Access) -> None:
    wrong = await Caller(caller.http, caller.key_id, "wrong").call("CreateToken")
    await access.store.revoke_key(caller.key_id)
    revoked = await caller.call("CreateToken")
    assert refused(wrong) == (400, "SignatureDoesNotMatch")
    assert caller.secret not in wrong.text
    assert "server string to sign is:GET&%2F&AccessKeyId%3D" in wrong.json()["Message"]
    assert refused(revoked) == (404, "InvalidAccessKeyId.NotFound")


async def test_a_signature_is_for_one_method(caller: Caller) -> None:
    answer = await caller.http.post("/", params=caller.parameters("GET", "CreateToken"))
    assert refused(answer) == (400, "SignatureDoesNotMatch")


async def test_a_request_serves_once(caller: Caller) -> None:
    parameters = caller.parameters("GET", "CreateToken")
    first, second = await asyncio.gather(
        caller.http.get("/", params=parameters), caller.http.get("/", params=parameters)
    )
    assert sorted([first.status_code, second.status_code]) == [200, 400]


async def test_a_refused_request_uses_no_nonce(caller: Caller) -> None:
    parameters = caller.parameters("GET", "CreateToken")
    await caller.http.get("/", params={**parameters, "Signature": "forged"})
    assert (await caller.http.get("/", params=parameters)).status_code == 200


async def test_a_plus_may_stand_for_itself(caller: Caller) -> None:
    """In the query of a client that encodes spaces only."""
    for number in range(200):
        parameters = caller.parameters("GET", "CreateToken", RegionId=f"{number}")
        if "+" in parameters["Signature"]:
            break
    query = "&".join(f"{name}={quote(value, safe='+')}" for name, value in parameters.items())
    assert (await caller.http.get(f"/?{query}")).status_code == 200


async def test_without_an_action_this_is_no_call(caller: Caller) -> None:
    index = await caller.http.get("/")
    post = await caller.http.post("/", data={"AccessKeyId": "x"})
    tokens_of_nobody = await caller.http.get("/pop/2019-02-28/tokens")
    assert index.json()["name"] == "FunSpeech"
    assert (post.status_code, post.json()["status"]) == (405, 40000000)
    assert post.headers["allow"] == "GET"
    assert refused(tokens_of_nobody) == (400, "MissingParameter")


async def test_what_is_too_much(caller: Caller) -> None:
    many = await caller.http.get("/?Action=CreateToken&" + "&".join(f"p{n}=1" for n in range(101)))
    twice = await caller.http.get("/?Action=CreateToken&Action=GetAsrVocab")
    large = await caller.http.post("/", params={"Action": "x"}, data={"a": "b" * 1_100_000})
    assert refused(many) == refused(twice) == (400, "InvalidParameter")
    assert refused(large) == (413, "InvalidParameter")


async def test_the_database_is_away(
    caller: Caller, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: object, key_id: str) -> None:
        raise StorageError("The database /secret/path cannot be used: away")

    monkeypatch.setattr(type(access.store), "key", away)
    answer = await caller.call("CreateToken")
    assert refused(answer) == (503, "ServiceUnavailable")
    assert "secret" not in answer.text


async def test_there_is_no_database(world: Any) -> None:
    async with world.client() as http:
        answer = await Caller(http, "key", "secret").call("CreateToken")
    assert refused(answer) == (503, "ServiceUnavailable")


async def test_nothing_of_a_key_or_a_token_is_logged(
    world: Any,
    access: Access,
    live: Any,
    logged: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "uvicorn")
    key = await access.store.create_key()
    app = world.app(access=access.policy, store=access.store, projects=access.projects)
    async with (
        live(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        caller = Caller(http, key.id, key.secret)
        good = await caller.call("CreateToken")
        wrong = await Caller(http, key.id, "wrong").call("CreateToken")
    assert (good.status_code, wrong.status_code) == (200, 400)
    lines = str(logged) + "".join(record.getMessage() for record in caplog.records)
    assert "'action': 'CreateToken'" in lines
    assert "'refused': 'SignatureDoesNotMatch'" in lines
    for secret in (key.id, key.secret, good.json()["Token"]["Id"], "AccessKeyId"):
        assert secret not in lines
