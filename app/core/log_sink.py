"""The one writer of the log: console and rotating file, in the supervisor.

Lines of child processes (``app/core/logs.py``) come in through :meth:`LogSink.emit_line`, the
supervisor's own records after :meth:`LogSink.install`. Both are rendered alike: for people (in
colour on a terminal), or as one JSON object per line. Writing happens in the sink's own thread,
so that a stopped terminal or a slow disk never holds up the supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging.handlers
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import msgspec

from app.core.config import ConfigError
from app.core.logs import BoundedWriter, dropped_record, encode, install, mask_urls

MAX_LINE_CHARS: Final = 16_384
"""Longer lines of a child are cut: no record of ours is near that, so it is a library's noise."""

_END_OF_TIME: Final = 1e10
"""Seconds since 1970 (year 2286); a later timestamp is not one."""

_COLOURS: Final = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}
_FRAME: Final = ("timestamp", "level", "process", "logger", "event", "exception", "stack")


class LogSink:
    """Renders records and writes them to console and file; see the module's docstring.

    ``level``: of the supervisor's own records (children filter theirs). ``file``: None for the
    console only. ``max_bytes``, ``backups``: when to rotate and how many old files to keep.
    ``json_lines``: JSON instead of text, on both.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(
        self,
        *,
        level: str = "INFO",
        file: Path | None = None,
        max_bytes: int = 20_971_520,
        backups: int = 50,
        json_lines: bool = False,
        console: TextIO | None = None,
    ) -> None:
        self._level = level
        self._json = json_lines
        self._console = sys.stderr if console is None else console
        self._colour = not json_lines and self._console.isatty()
        self._file = _RotatingFile.open(file, max_bytes, backups) if file is not None else None
        self._writer: BoundedWriter[Mapping[str, object]] = BoundedWriter(
            self._write, self._report_dropped, size=20_000, name="log-sink"
        )

    def install(self) -> None:
        """Route this process's own records (structlog and standard library) into the sink."""
        install(self._level, lambda record: self._writer.put({"process": "supervisor", **record}))

    def emit_line(self, source: str, line: bytes) -> None:
        """Take one line that the process ``source`` wrote. Any thread; never blocks, never
        raises.

        A line that is not a record of ours is a native library's or the interpreter's, and
        becomes a warning with the line as its message.
        """
        record = parse_line(source, line)
        if record is not None:
            self._writer.put(record)

    def reopen(self) -> None:
        """Write on into a new file of the same name, if somebody moved the old one (logrotate)."""
        if self._file is not None:
            self._file.moved.set()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._writer.close()
        if self._file is not None:
            self._file.close()

    def _write(self, record: Mapping[str, object]) -> None:
        if self._json:
            text = encode(_with_iso_time(record)).decode()
            self._print(text)
        else:
            text = render(record) + "\n"
            self._print(render(record, colour=True) + "\n" if self._colour else text)
        if self._file is not None:
            self._file.write(text)

    def _print(self, text: str) -> None:
        encoding = getattr(self._console, "encoding", None) or "utf-8"
        safe = text.encode(encoding, "backslashreplace").decode(encoding)
        try:
            self._console.write(safe)
            self._console.flush()
        except (OSError, ValueError) as error:
            # The file goes on. What a closed terminal did not take would fail once more at exit,
            # and make a failure of it.
            if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EPIPE):
                discard(self._console)

    def _report_dropped(self, count: int) -> None:
        self._write({"process": "supervisor", **dropped_record(count)})


def discard(console: TextIO) -> None:
    """From now on, what is written to ``console`` goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, console.fileno())
        os.close(nowhere)


class _RotatingFile(logging.handlers.RotatingFileHandler):
    """The standard library's rotation, for finished lines."""

    terminator = ""

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
        self.moved = threading.Event()
        """Set from any thread: the next line goes to a file that is opened anew."""

    @classmethod
    def open(cls, path: Path, max_bytes: int, backups: int) -> _RotatingFile:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(path, max_bytes, backups)
        except OSError as error:
            raise ConfigError(
                f"LOG_FILE: must name a file that can be written, got {str(path)!r} "
                f"({error.strerror})"
            ) from None

    def write(self, text: str) -> None:
        if self.moved.is_set():
            self.moved.clear()
            self.close()  # emit opens it again
        self.emit(logging.makeLogRecord({"msg": text}))

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk loses lines of the file, not the server; the console still has them."""


def parse_line(source: str, line: bytes) -> Mapping[str, object] | None:
    """The record in a child's line; None for an empty line."""
    text = line[: 4 * MAX_LINE_CHARS].decode("utf-8", "replace").rstrip()
    if not text:
        return None
    if text.startswith("{"):
        try:
            record = msgspec.json.decode(text)
        except msgspec.MsgspecError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("event"), str):
            return {"process": source, **record}
    return {
        "process": source,
        "logger": "stderr",
        "level": "warning",
        "timestamp": time.time(),
        "event": mask_urls(text[:MAX_LINE_CHARS]),
    }


def render(record: Mapping[str, object], *, colour: bool = False) -> str:
    """A record as text for people: one line, and the traceback below it if there is one.

    Control characters are escaped, so that nothing logged can forge a line or steer a terminal.
    """
    level = str(record.get("level", "info"))
    out = io.StringIO()
    out.write(f"{_local_time(record)} {level.upper():<8} {record.get('process', '-')} ")
    if logger := record.get("logger"):
        out.write(f"{logger}: ")
    out.write(_printable(str(record.get("event", ""))))
    for key, value in record.items():
        if key not in _FRAME:
            out.write(f" {key}={_value(value)}")
    for key in ("exception", "stack"):
        if key in record:
            lines = str(record[key]).splitlines()
            out.write("".join(f"\n    {_printable(line)}" for line in lines))
    text = out.getvalue()
    code = _COLOURS.get(level) if colour else None
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _value(value: object) -> str:
    if isinstance(value, str):
        plain = value.isprintable() and value and not set(value) & set(' "=')
        return value if plain else json.dumps(_printable(value), ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.6g}"
    return _printable(json.dumps(value, ensure_ascii=False, default=repr))


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _moment(record: Mapping[str, object]) -> datetime:
    stamp = record.get("timestamp")
    if not (isinstance(stamp, int | float) and 0 <= stamp < _END_OF_TIME):
        stamp = time.time()
    return datetime.fromtimestamp(stamp, UTC)


def _local_time(record: Mapping[str, object]) -> str:
    return _moment(record).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _with_iso_time(record: Mapping[str, object]) -> Mapping[str, object]:
    stamp = _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**record, "timestamp": stamp}
