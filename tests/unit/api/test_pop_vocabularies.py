"""The cloud's calls for hotword vocabularies, signed, on a real database."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.running import Access, running_access
from app.core.config import Config
from app.nls import pop

WORDS = {"西瓜": 3, "苹果": -2}
Call = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    async with running_access(Config(data_dir=tmp_path / "data")) as running:
        yield running


@pytest.fixture
async def http(world: Any, access: Access) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client(store=access.store, projects=access.projects) as client:
        yield client


def _signing(http: httpx.AsyncClient, key_id: str, secret: str) -> Call:
    async def call(action: str, **form: str) -> httpx.Response:
        """As the Java SDK's CommonRequest sends it: what is common in the query, the rest in a
        form."""
        query = {
            "AccessKeyId": key_id,
            "Action": action,
            "Format": "JSON",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": str(uuid.uuid4()),
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Version": "2018-11-20",
        }
        query["Signature"] = pop.sign_rpc("POST", {**query, **form}, secret)
        return await http.post("/", params=query, data=form)

    return call


@pytest.fixture
async def call(http: httpx.AsyncClient, access: Access) -> Call:
    key = await access.store.create_key()
    return _signing(http, key.id, key.secret)


async def created(call: Call, name: str = "测试词表") -> str:
    answer = await call("CreateAsrVocab", Name=name, WordWeights=json.dumps(WORDS))
    assert answer.status_code == 200
    assert set(answer.json()) == {"RequestId", "VocabId"}
    return str(answer.json()["VocabId"])


async def test_a_vocabulary_is_in_effect_when_the_call_returns(call: Call, access: Access) -> None:
    vocabulary = await created(call)
    assert re.fullmatch("[0-9a-f]{32}", vocabulary)
    assert dict(access.projects.current.vocabularies[vocabulary]) == WORDS
    assert access.policy.check(None, "any").hotwords_of(vocabulary)


async def test_its_whole_life(call: Call, access: Access) -> None:
    vocabulary = await created(call)
    shown = (await call("GetAsrVocab", Id=vocabulary)).json()["Vocab"]
    assert (shown["Id"], shown["Name"], shown["Description"]) == (vocabulary, "测试词表", "")
    assert shown["WordWeights"] == WORDS
    assert re.fullmatch("[0-9a-f]{32}", shown["Md5"])
    assert shown["Size"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown["CreateTime"])

    await call("UpdateAsrVocab", Id=vocabulary, Name="n", Description="d", WordWeights='{"a":1}')
    changed = (await call("GetAsrVocab", Id=vocabulary)).json()["Vocab"]
    assert (changed["Name"], changed["Description"]) == ("n", "d")
    assert changed["WordWeights"] == {"a": 1}
    assert changed["Md5"] != shown["Md5"]
    assert changed["CreateTime"] == shown["CreateTime"]
    assert access.projects.current.vocabularies[vocabulary] == (("a", 1.0),)

    assert set((await call("DeleteAsrVocab", Id=vocabulary)).json()) == {"RequestId"}
    assert vocabulary not in access.projects.current.vocabularies
    gone = await call("GetAsrVocab", Id=vocabulary)
    assert (gone.status_code, gone.json()["Code"]) == (404, "Vocab.NotFound")


async def test_a_description_stays_where_none_is_given(call: Call) -> None:
    answer = await call("CreateAsrVocab", Name="n", Description="two\nlines", WordWeights='{"a":1}')
    vocabulary = answer.json()["VocabId"]
    await call("UpdateAsrVocab", Id=vocabulary, Name="m", WordWeights='{"b":1}')
    shown = (await call("GetAsrVocab", Id=vocabulary)).json()["Vocab"]
    assert (shown["Name"], shown["Description"]) == ("m", "two\nlines")


async def test_the_list_has_pages(call: Call) -> None:
    ids = {await created(call, f"number {number}") for number in range(5)}
    first = (await call("ListAsrVocab", PageSize="3")).json()["Page"]
    second = (await call("ListAsrVocab", PageNumber="2", PageSize="3")).json()["Page"]
    beyond = (await call("ListAsrVocab", PageNumber="3", PageSize="3")).json()["Page"]
    whole = (await call("ListAsrVocab")).json()["Page"]
    assert {each["Id"] for each in first["Content"] + second["Content"]} == ids
    assert [len(page["Content"]) for page in (first, second, beyond, whole)] == [3, 2, 0, 5]
    assert (first["TotalItems"], first["TotalPages"], first["PageNumber"]) == (5, 2, 1)
    assert (whole["PageSize"], whole["PageNumber"]) == (10, 1)
    assert "WordWeights" not in first["Content"][0]


@pytest.mark.parametrize(
    ("action", "form", "http_status", "code"),
    [
        ("CreateAsrVocab", {"WordWeights": "{}"}, 400, "MissingParameter"),
        ("CreateAsrVocab", {"Name": "n"}, 400, "MissingParameter"),
        ("CreateAsrVocab", {"Name": "n", "WordWeights": "{}"}, 400, "InvalidParameter"),
        ("CreateAsrVocab", {"Name": "n", "WordWeights": '{"a":9}'}, 400, "InvalidParameter"),
        ("CreateAsrVocab", {"Name": "n" * 129, "WordWeights": '{"a":1}'}, 400, "InvalidParameter"),
        ("CreateAsrVocab", {"Name": "\x00", "WordWeights": '{"a":1}'}, 400, "InvalidParameter"),
        ("GetAsrVocab", {}, 400, "MissingParameter"),
        ("GetAsrVocab", {"Id": "\x00"}, 404, "Vocab.NotFound"),
        ("GetAsrVocab", {"Id": "x" * 10_000}, 404, "Vocab.NotFound"),
        ("UpdateAsrVocab", {"Id": "no", "Name": "n"}, 404, "Vocab.NotFound"),
        ("DeleteAsrVocab", {"Id": "no"}, 404, "Vocab.NotFound"),
        ("ListAsrVocab", {"PageNumber": "two"}, 400, "InvalidParameter"),
    ],
)
async def test_refusals(
    call: Call, access: Access, action: str, form: dict[str, str], http_status: int, code: str
) -> None:
    answer = await call(action, **form)
    assert (answer.status_code, answer.json()["Code"]) == (http_status, code)
    assert await access.store.vocabularies() == []


@pytest.mark.parametrize(
    "action", ["CreateAsrVocab", "GetAsrVocab", "UpdateAsrVocab", "DeleteAsrVocab", "ListAsrVocab"]
)
async def test_a_key_of_one_appkey_may_not(
    http: httpx.AsyncClient, access: Access, action: str
) -> None:
    key = await access.store.create_key(appkey="mine")
    form = {"Name": "n", "WordWeights": '{"a":1}'}
    answer = await _signing(http, key.id, key.secret)(action, **form)
    assert (answer.status_code, answer.json()["Code"]) == (403, "NoPermission")
    assert await access.store.vocabularies() == []


async def test_a_vocabulary_of_the_largest_size_fits(call: Call) -> None:
    words = {f"{'热' * 60}{number:04}": 5 for number in range(1000)}
    answer = await call(
        "CreateAsrVocab", Name="n", WordWeights=json.dumps(words, ensure_ascii=False)
    )
    shown = await call("GetAsrVocab", Id=answer.json()["VocabId"])
    assert shown.json()["Vocab"]["WordWeights"] == words
