"""NLS messages as values: directives out, events in (nls-protocol.md 1.3 and 1.4)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from app.client.errors import ProtocolViolation

SUCCESS: Final = 20_000_000
"""The status of every event but TaskFailed (nls-protocol.md 8.1)."""


class Header(msgspec.Struct, frozen=True):
    """The header of an event. ``status_message`` is the older spelling of ``status_text``."""

    namespace: str
    name: str
    status: int
    task_id: str = ""
    message_id: str = ""
    status_text: str = ""
    status_message: str = ""


class Event(msgspec.Struct, frozen=True):
    """One text message of the server. ``payload`` is as it came, empty if there was none."""

    header: Header
    payload: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The event's name, such as ``SentenceEnd``."""
        return self.header.name


class Word(msgspec.Struct, frozen=True, rename="camel"):
    """A word of a sentence; times in ms from the start of the task."""

    text: str
    start_time: int
    end_time: int


class Sentence(msgspec.Struct, frozen=True):
    """The payload of a SentenceEnd (nls-protocol.md 3.3); times in ms from the task's start."""

    index: int
    begin_time: int
    time: int
    result: str
    words: tuple[Word, ...] = ()


_EVENTS: Final = msgspec.json.Decoder(Event)
_JSON: Final = msgspec.json.Encoder()


def new_id() -> str:
    """A message or task id: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def directive(
    namespace: str,
    name: str,
    task_id: str,
    appkey: str,
    payload: Mapping[str, object] | None = None,
) -> str:
    """One text message to the server; without ``payload`` it has a header only."""
    message: dict[str, object] = {
        "header": {
            "message_id": new_id(),
            "task_id": task_id,
            "namespace": namespace,
            "name": name,
            "appkey": appkey,
        }
    }
    if payload is not None:
        message["payload"] = payload
    return _JSON.encode(message).decode()


def parse_event(text: str) -> Event:
    """Read one text message of the server.

    Raises:
        ProtocolViolation: not JSON, a header without a needed field, a field of a wrong type, or
            a ``null`` payload.
    """
    try:
        return _EVENTS.decode(text)
    except msgspec.MsgspecError as error:
        raise ProtocolViolation(f"the server sent no NLS event: {error}") from error


def sentence(event: Event) -> Sentence:
    """The payload of a SentenceEnd, checked.

    Raises:
        ProtocolViolation: a field is missing or has a wrong type.
    """
    try:
        return msgspec.convert(event.payload, Sentence)
    except msgspec.ValidationError as error:
        raise ProtocolViolation(f"the server sent a wrong {event.name}: {error}") from error
