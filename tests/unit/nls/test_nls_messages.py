from __future__ import annotations

import json

import pytest

from app.nls.messages import Events, Request, decode, task_failed
from app.nls.status import (
    DIRECTIVE_INVALID,
    IDLE_TIMEOUT,
    MESSAGE_INVALID,
    ProtocolError,
)

HEADER = {
    "message_id": "0f3a6c1e9b7d4c52a8e1d5f60b2c3d4e",
    "task_id": "6b1f0c2d3e4f5a6b7c8d9e0f1a2b3c4d",
    "namespace": "SpeechTranscriber",
    "name": "StartTranscription",
    "appkey": "demo-appkey",
}
DEPTH = 100_000


def request(**over: object) -> Request:
    return decode(json.dumps({"header": HEADER, **over}))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "hello",
        "null",
        "[]",
        "{}",
        '{"header":null}',
        '{"header":[]}',
        '{"header":{"name":1}}',
        '{"header":{"task_id":["x"]}}',
        '{"header":{}',
        '{"header":{"name":"\\ud800"}}',
        "\ud800",
        "[" * DEPTH,
        '{"a":' * DEPTH,
        '{"header":{},"payload":' + "[" * DEPTH + "]" * DEPTH + "}",
        '{"header":{},"unknown":' + '{"a":' * DEPTH + "1" + "}" * DEPTH + "}",
        '{"header":{},"payload":' + "1" * 5000 + "}",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_malformed_messages_have_one_code(data: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert caught.value.status is MESSAGE_INVALID
    assert len(caught.value.text) < 100


def test_unknown_keys_and_nulls_are_ignored() -> None:
    header = {**HEADER, "extra": [1], "appkey": None}
    found = decode(json.dumps({"header": header, "payload": None, "context": None, "more": 1}))
    found.check_ids()
    assert found.parameters() == {}
    assert found.header.appkey is None


def test_parameters_must_be_an_object() -> None:
    assert request(payload={"format": "pcm"}).parameters() == {"format": "pcm"}
    with pytest.raises(ProtocolError, match=r"'SpeechTranscriber\.StartTranscription'") as caught:
        request(payload="x").parameters()
    assert caught.value.status is DIRECTIVE_INVALID


@pytest.mark.parametrize(
    "given",
    ["0F3A6C1E9B7D4C52A8E1D5F60B2C3D4E", "0f3a6c1e-9b7d-4c52-a8e1-d5f60b2c3d4e"],
)
def test_ids_are_kept_as_received(given: str) -> None:
    found = request(header={**HEADER, "message_id": given, "task_id": given})
    found.check_ids()
    assert found.task_id == given


@pytest.mark.parametrize(
    "bad",
    ["", "0" * 31, "0" * 33, "g" * 32, "0" * 32 + "\n", "0f3a6c1e9b7d-4c52-a8e1-d5f60b2c3d4e"],
)
def test_ill_formed_ids(bad: str) -> None:
    for name in ("message_id", "task_id"):
        found = request(header={**HEADER, name: bad})
        with pytest.raises(ProtocolError, match=f"Invalid {name.replace('_', ' ')} '"):
            found.check_ids()
    assert found.task_id == ""


def test_missing_message_id_has_the_documented_text() -> None:
    header = {key: value for key, value in HEADER.items() if key != "message_id"}
    with pytest.raises(ProtocolError) as caught:
        request(header=header).check_ids()
    assert caught.value.text == "Invalid message id ''!"


@pytest.mark.parametrize(
    ("header_token", "payload", "context", "token"),
    [
        ("h", {"token": "p"}, {"token": "c"}, "h"),
        (None, {"token": "p"}, {"token": "c"}, "p"),
        ("", {"token": 1}, {"token": "c"}, "c"),
        (None, [], "token", None),
        (None, None, None, None),
    ],
)
def test_token_in_the_message(
    header_token: str | None, payload: object, context: object, token: str | None
) -> None:
    header = {**HEADER, "token": header_token}
    assert request(header=header, payload=payload, context=context).token == token


def test_event_is_compact_utf8_without_null() -> None:
    events = Events("SpeechTranscriber", "t" * 32, lambda: "m" * 32)
    header = (
        '{"header":{"namespace":"SpeechTranscriber","name":"X","status":20000000,'
        f'"message_id":"{"m" * 32}","task_id":"{"t" * 32}",'
        '"status_text":"Gateway:SUCCESS:Success.","status_message":"Gateway:SUCCESS:Success."}'
    )
    assert events.success("X").decode() == header + "}"
    assert events.success("X", {"result": "今天"}).decode() == (
        header + ',"payload":{"result":"今天"}}'
    )


def test_task_failed() -> None:
    event = json.loads(task_failed("t", "m", IDLE_TIMEOUT, "too long"))
    text = "Gateway:IDLE_TIMEOUT:too long"
    assert event == {
        "header": {
            "namespace": "Default",
            "name": "TaskFailed",
            "status": 40000004,
            "message_id": "m",
            "task_id": "t",
            "status_text": text,
            "status_message": text,
        },
        "payload": {"error_info": {"error_code": 40000004, "error_message": text}},
    }
