"""The supervisor's log: rendering, files, rotation, and lines of any origin."""

from __future__ import annotations

import io
import json
import logging
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.core import logs
from app.core.config import ConfigError
from app.core.log_sink import MAX_LINE_CHARS, LogSink, parse_line, render


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = show


RECORD = {
    "process": "api-0",
    "logger": "app.x",
    "level": "error",
    "timestamp": 1_800_000_000.25,
    "event": "engine failed",
    "task_id": "abc",
    "audio_ms": 1200,
}


def line(**more: object) -> bytes:
    return logs.encode({**RECORD, **more})


def test_record_of_a_child_on_console_and_in_the_file(tmp_path: Path) -> None:
    console, path = io.StringIO(), tmp_path / "deep" / "er" / "funspeech.log"
    sink = LogSink(file=path, console=console)
    sink.emit_line("ignored", line())
    sink.close()
    text = path.read_text(encoding="utf-8")
    assert console.getvalue() == text
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.250 ERROR    api-0 app\.x: engine failed "
        r"task_id=abc audio_ms=1200\n",
        text,
    )


def test_colour_on_a_terminal_only(tmp_path: Path) -> None:
    console, path = Terminal(), tmp_path / "log"
    sink = LogSink(file=path, console=console)
    sink.emit_line("x", line())
    sink.close()
    assert console.getvalue().startswith("\x1b[31m")
    assert "\x1b" not in path.read_text()


def test_json_lines(tmp_path: Path) -> None:
    console, path = Terminal(), tmp_path / "log"
    sink = LogSink(file=path, console=console, json_lines=True)
    sink.emit_line("x", line())
    sink.emit_line("asr-0", b"plain text\n")
    sink.close()
    assert path.read_text() == console.getvalue()
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {**RECORD, "timestamp": "2027-01-15T08:00:00.250Z"}
    assert (second["process"], second["event"]) == ("asr-0", "plain text")


def test_own_records_are_rendered_alike() -> None:
    console = io.StringIO()
    sink = LogSink(level="WARNING", console=console)
    sink.install()
    structlog.get_logger("app.serving").warning("worker died", name="asr-0", token="s3cret")
    structlog.get_logger("app.serving").info("too quiet")
    logging.getLogger("lib").error("from the library")
    sink.close()
    first, second = console.getvalue().splitlines()
    assert first.endswith(
        "WARNING  supervisor app.serving: worker died name=asr-0 token=[redacted]"
    )
    assert second.endswith("ERROR    supervisor lib: from the library")


@pytest.mark.parametrize(
    "raw",
    [
        b"INFO: cmn.c(133): noise\n",
        b'{"no": "event"}',
        b'{"event": 3}',
        b'{"event": "cut',
        b"{}",
        b"[1]",
        b"{" * 5000,
    ],
)
def test_other_lines_become_warnings(raw: bytes) -> None:
    record = parse_line("asr-0", raw)
    assert record is not None
    assert (record["process"], record["level"], record["logger"]) == (
        "asr-0",
        "warning",
        "stderr",
    )
    assert record["event"] == raw.decode().rstrip()


def test_empty_lines_are_left_out() -> None:
    assert parse_line("x", b"\n") is None


def test_long_and_undecodable_lines_are_tamed() -> None:
    record = parse_line("x", b"a" * 10 * MAX_LINE_CHARS)
    assert record is not None and len(str(record["event"])) == MAX_LINE_CHARS
    assert parse_line("x", b"\xff\xfe")  # does not raise


def test_tokens_in_plain_lines_are_redacted() -> None:
    record = parse_line("x", b"GET /ws/v1?token=s3cret HTTP/1.1")
    assert record is not None and "s3cret" not in str(record["event"])


def test_nothing_forges_a_line_or_steers_the_terminal() -> None:
    text = render({**RECORD, "event": "a\nb\x1b[2J", "value": "x\r\ny", "空 格": "中 文"})
    assert "\n" not in text and "\r" not in text and "\x1b" not in text
    assert r"a\nb\x1b[2J" in text
    assert '"中 文"' in text


def test_traceback_follows_indented() -> None:
    text = render({**RECORD, "exception": "Traceback …\n  File x\nValueError: y"})
    assert text.splitlines()[1:] == ["    Traceback …", "      File x", "    ValueError: y"]


@pytest.mark.parametrize("stamp", [None, "x", -1, 1e300, True])
def test_unusable_timestamp_is_replaced(stamp: object) -> None:
    assert render({**RECORD, "timestamp": stamp}).startswith("2") or stamp is True


def test_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = LogSink(file=path, max_bytes=400, backups=2, console=io.StringIO())
    for number in range(30):
        sink.emit_line("x", line(number=number))
    sink.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 400 for file in files)
    assert "number=29\n" in path.read_text()


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = LogSink(file=path, max_bytes=0, console=io.StringIO())
    for number in range(3):
        sink.emit_line("x", line(number=number))
        # What was queued before the move may be written after it, so wait for it.
        while f"number={number}" not in (path.read_text() if path.exists() else ""):
            time.sleep(0.001)
        path.rename(tmp_path / f"log-{number}")
        sink.reopen()
    sink.emit_line("x", line(number=3))
    sink.close()
    found = {file.name: re.findall(r"number=\d", file.read_text()) for file in tmp_path.iterdir()}
    assert found == {
        "log-0": ["number=0"], "log-1": ["number=1"], "log-2": ["number=2"], "log": ["number=3"],
    }  # fmt: skip


def test_unwritable_file_stops_the_start(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(ConfigError, match=r"^LOG_FILE: must name a file that can be written"):
        LogSink(file=blocker / "log", console=io.StringIO())
    with pytest.raises(ConfigError, match=r"^LOG_FILE: "):
        LogSink(file=tmp_path, console=io.StringIO())


def test_closed_console_leaves_the_file(tmp_path: Path) -> None:
    console = io.StringIO()
    sink = LogSink(file=tmp_path / "log", console=console)
    console.close()
    sink.emit_line("x", line())
    sink.close()
    assert "engine failed" in (tmp_path / "log").read_text()


def test_narrow_console_gets_escapes(tmp_path: Path) -> None:
    raw = io.BytesIO()
    console = io.TextIOWrapper(raw, encoding="ascii")
    sink = LogSink(console=console)
    sink.emit_line("x", line(event="你好"))
    sink.close()
    assert rb"\u4f60\u597d" in raw.getvalue()
