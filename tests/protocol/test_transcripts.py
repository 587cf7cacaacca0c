"""Golden transcripts: each file is one connection, replayed byte for byte.

A line is what happens at time ``t`` and what the connection answers. What happens is one of

    client         a text frame, as its JSON value      client_text    the same, as raw text
    client_binary  a binary frame of that many bytes    tick           the driver's timer
    ping           a ping of the client
    service        a report of the service task: an event of app/core/speech.py by its tag, or
                   opened, finished, audio (with "bytes"), failed (with "error", "text")
    server         the server ends: drain, finish_early, cut_off

and ``expect`` lists the outputs; of a request, the fields that are not the default. A first line
with ``about`` says what the file shows; with ``draining``, the connection is opened while the
server is about to end; with ``project``, everybody's project has these fields. Message ids count
from 1. Refused are the tokens "wrong" and "another's", and the appkeys "unknown" and "spent".
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields

from app.core.errors import (
    AccessDenied,
    AppkeyMismatch,
    DailyQuotaUsed,
    UnknownAppkey,
    from_wire,
)
from app.core.project import Project
from app.core.speech import (
    AudioProcessed,
    RecognitionEvent,
    SpeechBegan,
    SpeechEnded,
    SpeechEvent,
)
from app.nls.connection import Connection
from app.nls.outputs import (
    Abandon,
    Close,
    Configure,
    Feed,
    FinishAudio,
    FinishText,
    FlushText,
    OpenRecognition,
    OpenSynthesis,
    OpenTextStream,
    Output,
    Say,
    Send,
    SendAudio,
)
from app.nls.task import Limits

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.jsonl"))


def new_connection(about: dict[str, Any]) -> Connection:
    project = msgspec.convert(about.get("project", {}), Project)

    def authorize(token: str | None, appkey: str | None) -> Project:
        match token, appkey:
            case "wrong", _:
                raise AccessDenied("The token 'wrong' is invalid!")
            case "another's", _:
                raise AppkeyMismatch
            case _, "unknown":
                raise UnknownAppkey
            case _, "spent":
                raise DailyQuotaUsed
        return project

    ids = count(1)
    return Connection(
        authorize=authorize,
        new_id=lambda: f"{next(ids):032x}",
        limits=Limits(max_text_chars=20, max_long_text_chars=60, max_piece_chars=30),
        now=0.0,
        draining=about.get("draining", False),
    )


def apply(connection: Connection, line: dict[str, Any]) -> list[Output]:
    now = line["t"]
    if "client" in line:
        return connection.text(json.dumps(line["client"], ensure_ascii=False), now)
    if "client_text" in line:
        return connection.text(line["client_text"], now)
    if "client_binary" in line:
        return connection.binary(bytes(line["client_binary"]), now)
    if "tick" in line:
        return connection.tick(now)
    if "ping" in line:
        connection.ping(now)
        return []
    if "server" in line:
        return end(connection, line["server"], now)
    return report(connection, line["service"], now)


def end(connection: Connection, step: str, now: float) -> list[Output]:
    match step:
        case "drain":
            return connection.drain(now)
        case "finish_early":
            return connection.finish_early(now)
        case "cut_off":
            return connection.cut_off(now)
        case _:
            raise AssertionError(step)


def report(connection: Connection, service: dict[str, Any], now: float) -> list[Output]:
    match service["event"]:
        case "opened":
            return connection.opened(now)
        case "finished":
            return connection.finished(now)
        case "audio":
            return connection.audio(bytes(service["bytes"]), now)
        case "failed":
            return connection.failed(from_wire(service["error"], service["text"]), now)
        case _:
            event = msgspec.convert(service, RecognitionEvent | AudioProcessed | SpeechEvent)
            if isinstance(event, SpeechBegan | SpeechEnded):
                return connection.speech(event, now)
            return connection.event(event, now)


def to_json(value: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value, order="deterministic"))


def plain(request: msgspec.Struct) -> dict[str, Any]:
    """The fields that are not the default, in terms of JSON."""
    return {
        field.name: plain(value) if isinstance(value, msgspec.Struct) else to_json(value)
        for field in fields(request)
        if (value := getattr(request, field.name)) != field.default
    }


def show(output: Output) -> dict[str, Any]:
    """An output as the transcripts write it; a sent text stays exactly as it was sent."""
    match output:
        case Send(text, not_before, interim):
            shown: dict[str, Any] = {"send": text}
            if not_before is not None:
                shown["not_before"] = round(not_before, 6)
            if interim:
                shown["interim"] = True
            return shown
        case SendAudio(data):
            return {"audio": len(data)}
        case Feed(data):
            return {"feed": len(data)}
        case FinishAudio():
            return {"finish_audio": True}
        case Configure(silence):
            return {"configure": silence}
        case OpenRecognition(request):
            return {"open_recognition": plain(request)}
        case OpenSynthesis(request):
            return {"open_synthesis": plain(request)}
        case OpenTextStream(request):
            return {"open_text_stream": plain(request)}
        case Say(text):
            return {"say": text}
        case FlushText():
            return {"flush_text": True}
        case FinishText():
            return {"finish_text": True}
        case Abandon():
            return {"abandon": True}
        case Close(code, status):
            return {"close": code} | ({"status": status.code} if status else {})


def expected(item: dict[str, Any]) -> dict[str, Any]:
    """The same from a transcript: its event in compact JSON with the keys in the order given."""
    if "send" not in item:
        return item
    text = json.dumps(item["send"], ensure_ascii=False, separators=(",", ":"))
    return item | {"send": text}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    about, *lines = read(path)
    assert about["about"]
    connection = new_connection(about)
    for number, line in enumerate(lines, start=2):
        outputs = [show(output) for output in apply(connection, line)]
        assert outputs == [expected(item) for item in line["expect"]], f"{path.name}:{number}"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 100
