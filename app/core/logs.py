"""Log records: how they are made in every process, and how child processes hand them over.

One process writes the log: the supervisor (``app/core/log_sink.py``). Every other process calls
:func:`setup_child` once; its records, from structlog and from the standard library alike, then
leave as one line of JSON each on its stderr, which is a pipe to the supervisor. What native
libraries print to stderr goes the same way as plain text, unless it is dropped
(``app/core/native_output.py``).

A call to a logger never blocks: lines wait in a bounded queue for a writer thread, and when the
queue is full they are dropped and counted.

Modules log with ``structlog.get_logger(__name__)``: a constant message, values as fields. What a
connection, a request or a task logs carries its ids (:func:`log_ids`), and so does what libraries
log inside it. Secrets and the users' texts do not belong into a log; fields with such names are
redacted all the same.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

T = TypeVar("T")

REDACTED: Final = "[redacted]"
SECRET_FIELDS: Final = frozenset(
    {"token", "apptoken", "appkey", "authorization", "x-nls-token", "password", "secret"}
    | {"text", "result", "transcript"}
)
"""Names of fields, in lower case, whose values never reach the log: credentials, and what
people said or had spoken."""

# A URL in a library's own message may carry a token: ws://host/ws/v1?token=…
_SECRET_IN_TEXT: Final = re.compile(r"(?i)\b(token|apptoken|appkey)=[^\s&\"']+")

# These report every connection or request at INFO, some with the URL.
_CHATTY: Final = ("asyncio", "httpcore", "httpx", "multipart", "uvicorn", "websockets")


def mask_urls(text: str) -> str:
    """``text`` without the credentials of URLs in it."""
    return _SECRET_IN_TEXT.sub(rf"\1={REDACTED}", text)


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return mask_urls(value)
    if isinstance(value, Mapping):
        return {
            key: REDACTED if str(key).lower() in SECRET_FIELDS else _redacted(item)
            for key, item in value.items()
        }
    return value


def redact(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Processor: replace the values of :data:`SECRET_FIELDS`, and credentials in URLs."""
    for key, value in event_dict.items():
        event_dict[key] = REDACTED if key.lower() in SECRET_FIELDS else _redacted(value)
    return event_dict


_NO_IDS: Final[Mapping[str, str]] = {}
_IDS: ContextVar[Mapping[str, str]] = ContextVar("log_ids", default=_NO_IDS)


@contextmanager
def log_ids(**ids: str) -> Generator[dict[str, str], None, None]:
    """Lines logged inside the block carry ``ids``, and no others: also those of asyncio tasks and
    callbacks that are begun in it, until it is left. Fields of the line itself win. Yields the ids;
    what is changed in there holds from then on.

    A connection's protocol callbacks may inherit the context of a request (asyncio copies it when
    a handler resumes reading), and keep it for the connection's later requests. That copy refers
    to the same ids, which are emptied at the end, so none outlives its block.
    """
    own = dict(ids)
    token = _IDS.set(own)
    try:
        yield own
    finally:
        own.clear()
        _IDS.reset(token)


def add_ids(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Processor: add the ids of the :func:`log_ids` block that this line is logged in."""
    for key, value in _IDS.get().items():
        event_dict.setdefault(key, value)
    return event_dict


class BoundedWriter(Generic[T]):
    """Hands items to ``write`` in a thread of its own; ``put`` never blocks.

    When more than ``size`` items wait, new ones are dropped; ``dropped`` is called with their
    number, in the writer's thread, once there is room again. An ``OSError`` from ``write`` (the
    reader is gone) loses that item only.
    """

    def __init__(
        self, write: Callable[[T], None], dropped: Callable[[int], None], *, size: int, name: str
    ) -> None:
        self._write = write
        self._report = dropped
        self._queue: queue.Queue[T | None] = queue.Queue(size)
        self._dropped = 0
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item, or count it as dropped. Any thread."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued, then end the thread; give up after ``timeout_s``."""
        if self._closing.is_set():
            return
        self._closing.set()
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._try(self._write, item)
            if self._dropped and self._queue.empty():
                self._report_dropped()
        self._report_dropped()

    def _report_dropped(self) -> None:
        with self._lock:
            count, self._dropped = self._dropped, 0
        if count:
            self._try(self._report, count)

    @staticmethod
    def _try(action: Callable[[Any], None], argument: object) -> None:
        # OSError: nobody reads the log any more; the process's life is not the log's matter.
        with suppress(OSError):
            action(argument)


class EventLogger:
    """What structlog calls at the end of its processors: passes the finished record on."""

    def __init__(self, name: str, emit: Callable[[Mapping[str, object]], None]) -> None:
        self.name = name
        self._emit = emit

    def msg(self, **record: object) -> None:
        """Pass on one record."""
        self._emit(record)

    debug = info = warning = error = critical = exception = log = msg


def record_processors() -> list[Processor]:
    """What turns a call to a logger into a record, the same in every process."""
    return [
        add_ids,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt=None),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]


class _StdlibHandler(logging.Handler):
    """Sends the standard library's records the way of our own."""

    def __init__(self, emit: Callable[[Mapping[str, object]], None]) -> None:
        super().__init__()
        self._emit_record = emit
        self._processors = record_processors()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event_dict: EventDict = {"event": record.getMessage(), "_record": record}
            if record.exc_info:
                event_dict["exc_info"] = record.exc_info
            for processor in self._processors:
                event_dict = processor(None, record.levelname.lower(), event_dict)  # type: ignore[assignment]  # none of ours renders to text
            event_dict.pop("_record")
            self._emit_record(event_dict)
        except Exception:
            self.handleError(record)


def install(level: str, emit: Callable[[Mapping[str, object]], None]) -> None:
    """Send this process's records of ``level`` and above to ``emit``, as finished mappings.

    ``emit`` is called in the thread that logs and must not block. Replaces what was installed.
    """
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[*record_processors(), _as_keywords],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: EventLogger(names[0] if names else "", emit),
    )
    root = logging.getLogger()
    root.handlers[:] = [_StdlibHandler(emit)]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING) if number > 10 else number)
    logging.captureWarnings(True)


def _as_keywords(
    _logger: WrappedLogger, _method: str, event_dict: EventDict
) -> tuple[tuple[()], EventDict]:
    return (), event_dict


def encode(record: Mapping[str, object]) -> bytes:
    """A record as one line of JSON with its line end; odd values become their ``repr``."""
    try:
        return msgspec.json.encode(record, enc_hook=repr) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Lone surrogates, odd keys, huge integers: never an error in the code that logs.
        plain = {ascii(key)[1:-1]: ascii(value)[:1000] for key, value in record.items()}
        return msgspec.json.encode(plain) + b"\n"


def dropped_record(count: int) -> Mapping[str, object]:
    """The record that tells how many others were lost."""
    return {
        "logger": __name__,
        "level": "warning",
        "timestamp": time.time(),
        "event": "log records dropped",
        "count": count,
    }


def setup_child(
    name: str, level: str = "INFO", *, fd: int = 2, size: int = 2000
) -> Callable[[], None]:
    """Send this process's log as JSON lines to ``fd`` (stderr: the supervisor's pipe).

    ``name`` tells the processes apart in the log (``api-0``, ``asr-1``). At most ``size`` lines
    wait; more are dropped and counted. Returns a function that writes what still waits and stops;
    it also runs at exit.
    """

    def write(line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(fd, view) :]

    def emit(record: Mapping[str, object]) -> None:
        writer.put(encode({"process": name, **record}))

    def dropped(count: int) -> None:
        write(encode({"process": name, **dropped_record(count)}))

    writer = BoundedWriter(write, dropped, size=size, name="log-writer")
    install(level, emit)
    atexit.register(writer.close)
    return writer.close
