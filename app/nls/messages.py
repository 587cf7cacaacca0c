"""The JSON envelope of both directions (nls-protocol.md 1.3, 1.4, 1.7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from app.nls.status import (
    DIRECTIVE_INVALID,
    MESSAGE_INVALID,
    SUCCESS,
    SUCCESS_TEXT,
    ProtocolError,
    Status,
    quote,
    status_text,
)

MAX_FRAME_BYTES: Final = 65_536
"""Java's SDK takes no larger frame and no continuation (nls-protocol.md 1.8)."""

FAILURE_NAMESPACE: Final = "Default"
"""Namespace of every TaskFailed: the one that each client takes whatever it asked for, even when
the request's own could not be read (nls-protocol.md 0.5, 1.7)."""

# The cloud wants 32 hex digits; dashed UUIDs are a courtesy (nls-protocol.md 1.3).
_ID: Final = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Header(msgspec.Struct, frozen=True):
    """Header of a client's message. All fields may be missing; who needs one checks it."""

    message_id: str | None = None
    task_id: str | None = None
    namespace: str | None = None
    name: str | None = None
    appkey: str | None = None
    token: str | None = None


class Request(msgspec.Struct, frozen=True):
    """A client's message. Unknown keys are ignored everywhere."""

    header: Header
    payload: object = None
    context: object = None

    @property
    def task_id(self) -> str:
        """The task id as received, or "" where it is missing or ill-formed."""
        task_id = self.header.task_id or ""
        return task_id if _ID.fullmatch(task_id) else ""

    @property
    def directive(self) -> str:
        """The directive's name, "" where it is missing."""
        return self.header.name or ""

    @property
    def token(self) -> str | None:
        """The access token in the message, or None. Browsers cannot set handshake headers, so
        some put it in the header, the payload or the context."""
        if self.header.token:
            return self.header.token
        for place in (self.payload, self.context):
            token = place.get("token") if isinstance(place, dict) else None
            if isinstance(token, str) and token:
                return token
        return None

    def check_ids(self) -> None:
        """Check both ids.

        Raises:
            ProtocolError: MESSAGE_INVALID, one is missing or ill-formed.
        """
        message_id = self.header.message_id or ""
        if not _ID.fullmatch(message_id):
            raise ProtocolError(MESSAGE_INVALID, f"Invalid message id {quote(message_id)}!")
        if not self.task_id:
            given = quote(self.header.task_id or "")
            raise ProtocolError(MESSAGE_INVALID, f"Invalid task id {given}!")

    def parameters(self) -> Mapping[str, object]:
        """The payload, empty where there is none.

        Raises:
            ProtocolError: DIRECTIVE_INVALID, it is not an object.
        """
        if self.payload is None:
            return {}
        if not isinstance(self.payload, dict):
            event = quote(f"{self.header.namespace}.{self.header.name}")
            raise ProtocolError(DIRECTIVE_INVALID, f"Invalid payload for event {event}!")
        return self.payload


_decoder: Final = msgspec.json.Decoder(Request)


def decode(data: str) -> Request:
    """Parse a text frame. Its ids are not checked yet, so that a failure can still name the task.

    Raises:
        ProtocolError: MESSAGE_INVALID, not JSON, nested too deeply, or without a usable header.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        text = "The message must be a JSON object with a 'header' object of strings!"
    except RecursionError:
        # msgspec counts the depth of its own recursion and stops in good order.
        text = "The message is nested too deeply!"
    except (msgspec.DecodeError, UnicodeError):
        text = "The message is not valid JSON!"
    raise ProtocolError(MESSAGE_INVALID, text)


class _EventHeader(msgspec.Struct):
    namespace: str
    name: str
    status: int
    message_id: str
    task_id: str
    # Newer documents and Java read the first, older documents the second (nls-protocol.md 1.4).
    status_text: str
    status_message: str


class _Event(msgspec.Struct, omit_defaults=True):
    header: _EventHeader
    # Left out rather than null: Java's getters fail on null (nls-protocol.md 0.8).
    payload: dict[str, object] | None = None


_encoder: Final = msgspec.json.Encoder()


class Events:
    """Writes the events of one task. ``new_id`` gives a fresh message id for each."""

    def __init__(self, namespace: str, task_id: str, new_id: Callable[[], str]) -> None:
        self._namespace = namespace
        self._task_id = task_id
        self._new_id = new_id

    def success(self, name: str, payload: dict[str, object] | None = None) -> bytes:
        """An event with status 20000000, as UTF-8."""
        header = _EventHeader(
            self._namespace,
            name,
            SUCCESS.code,
            self._new_id(),
            self._task_id,
            SUCCESS_TEXT,
            SUCCESS_TEXT,
        )
        return _encoder.encode(_Event(header, payload))


def task_failed(task_id: str, message_id: str, status: Status, text: str) -> str:
    """A TaskFailed event. ``error_info`` is what xiaozhi logs (nls-protocol.md 1.7)."""
    shown = status_text(status, text)
    header = _EventHeader(
        FAILURE_NAMESPACE, "TaskFailed", status.code, message_id, task_id, shown, shown
    )
    info: dict[str, object] = {"error_code": status.code, "error_message": shown}
    return _encoder.encode(_Event(header, {"error_info": info})).decode()
