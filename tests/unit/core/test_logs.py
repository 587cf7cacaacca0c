"""Records of a child process: JSON lines, redaction, context, and a queue that never blocks."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from app.core import logs


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Leave structlog and the standard library's root logger as they were."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, warnings.showwarning)
    chatty = {name: logging.getLogger(name).level for name in logs._CHATTY}
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], _, warnings.showwarning = before
    root.setLevel(before[1])
    for name, level in chatty.items():
        logging.getLogger(name).setLevel(level)


Child = Callable[[], list[dict[str, object]]]


@pytest.fixture
def child() -> Iterator[Callable[[str], Child]]:
    """``child(level)`` sets logging up; calling its result ends it and returns the records."""
    reader, writer = os.pipe()

    def start(level: str = "INFO") -> Child:
        stop = logs.setup_child("api-0", level, fd=writer)

        def records() -> list[dict[str, object]]:
            stop()
            os.close(writer)
            with os.fdopen(reader, "rb") as stream:
                return [json.loads(line) for line in stream]

        return records

    yield start


def test_structlog_records(child: Callable[[str], Child]) -> None:
    done = child("INFO")
    log = structlog.get_logger("app.somewhere")
    log.info("task finished", audio_ms=1200, format="pcm", 说明="好")
    log.debug("not at this level")
    (record,) = done()
    assert isinstance(record.pop("timestamp"), float)
    assert record == {
        "process": "api-0",
        "logger": "app.somewhere",
        "level": "info",
        "event": "task finished",
        "audio_ms": 1200,
        "format": "pcm",
        "说明": "好",
    }


def test_standard_library_records_and_warnings(child: Callable[[str], Child]) -> None:
    done = child("INFO")
    logging.getLogger("some.library").warning("odd %s", "thing")
    logging.getLogger("uvicorn.error").info("GET /ws/v1?token=abc")
    logging.getLogger("uvicorn.error").error("bad")
    with warnings.catch_warnings(action="default"):
        warnings.warn("careful", UserWarning, stacklevel=1)
    first, second, third = done()
    assert (first["logger"], first["level"], first["event"]) == (
        "some.library",
        "warning",
        "odd thing",
    )
    assert (second["logger"], second["event"]) == ("uvicorn.error", "bad")
    assert third["logger"] == "py.warnings" and "careful" in str(third["event"])


def test_debug_level_shows_the_libraries_too(child: Callable[[str], Child]) -> None:
    done = child("DEBUG")
    logging.getLogger("websockets.server").info("hello")
    assert [record["event"] for record in done()] == ["hello"]


@pytest.mark.parametrize("source", ["structlog", "stdlib"])
def test_traceback_is_in_the_record(child: Callable[[str], Child], source: str) -> None:
    done = child("INFO")
    log = structlog.get_logger("x") if source == "structlog" else logging.getLogger("x")
    try:
        raise ValueError("broken thing")
    except ValueError:
        log.exception("engine failed")
    (record,) = done()
    assert record["level"] == "error"
    assert "ValueError: broken thing" in str(record["exception"])
    assert "exc_info" not in record


def test_task_id_comes_from_the_context(child: Callable[[str], Child]) -> None:
    done = child("INFO")
    log = structlog.get_logger("x")
    with logs.log_ids(task_id="a" * 32):
        log.info("inside")
        logging.getLogger("library").info("inside too")
    log.info("outside")
    records = done()
    assert [record.get("task_id") for record in records] == ["a" * 32, "a" * 32, None]


def test_ids_of_a_block_replace_those_around_it_and_fields_win(
    child: Callable[[str], Child],
) -> None:
    done = child("INFO")
    log = structlog.get_logger("x")
    with logs.log_ids(task_id="outer", connection_id="c"):
        with logs.log_ids(task_id="inner"):
            log.info("inside")
            log.info("inside", task_id="its own")
        log.info("outside")
    first, second, third = (
        {name: record.get(name) for name in ("task_id", "connection_id")} for record in done()
    )
    assert first == {"task_id": "inner", "connection_id": None}
    assert second == {"task_id": "its own", "connection_id": None}
    assert third == {"task_id": "outer", "connection_id": "c"}


def test_a_context_that_was_copied_forgets_the_ids_too(child: Callable[[str], Child]) -> None:
    done = child("INFO")
    log = structlog.get_logger("x")
    with logs.log_ids(task_id="a") as ids:
        copy = contextvars.copy_context()
        copy.run(log.info, "while it runs")
        ids["task_id"] = "b"
        copy.run(log.info, "after a change")
    copy.run(log.info, "after its end")
    assert [record.get("task_id") for record in done()] == ["a", "b", None]


@pytest.mark.parametrize("name", [*sorted(logs.SECRET_FIELDS), "Token", "X-NLS-Token"])
def test_secret_fields_are_redacted(child: Callable[[str], Child], name: str) -> None:
    done = child("INFO")
    structlog.get_logger("x").info("m", **{name: "s3cret"}, headers={name: "s3cret", "a": "b"})
    (record,) = done()
    assert record[name] == logs.REDACTED
    assert record["headers"] == {name: logs.REDACTED, "a": "b"}


def test_tokens_in_urls_are_redacted(child: Callable[[str], Child]) -> None:
    done = child("INFO")
    logging.getLogger("lib").warning("open /ws/v1?appkey=k3y&token=s3cret&x=1")
    try:
        raise ValueError("GET http://h/?token=s3cret")
    except ValueError:
        structlog.get_logger("x").exception("failed", url="ws://h/?Token=s3cret")
    text = json.dumps(done())
    assert "s3cret" not in text and "k3y" not in text
    assert "x=1" in text


def test_odd_values_never_fail_the_caller(child: Callable[[str], Child]) -> None:
    done = child("INFO")
    log = structlog.get_logger("x")
    log.info("object", value=object())
    log.info("huge", value=10**400)
    log.info("surrogate \udc80", value=b"\xff")
    assert len(done()) == 3


def test_full_queue_drops_counts_and_does_not_block() -> None:
    started, release = threading.Event(), threading.Event()
    written: list[int] = []

    def write(item: int) -> None:
        started.set()
        release.wait()
        written.append(item)

    reported: list[int] = []
    writer = logs.BoundedWriter(write, reported.append, size=2, name="test")
    writer.put(0)
    started.wait()  # 0 is being written, and the queue is empty
    for item in range(1, 6):
        writer.put(item)
    release.set()
    writer.close()
    assert written == [0, 1, 2]
    assert reported == [3]


def test_gone_reader_is_harmless() -> None:
    def write(_item: int) -> None:
        raise BrokenPipeError

    writer = logs.BoundedWriter(write, lambda _count: None, size=2, name="test")
    writer.put(1)
    writer.close()
    writer.close()


def test_dropped_lines_are_reported_in_the_log(child: Callable[[str], Child]) -> None:
    reader, full = os.pipe()
    stop = logs.setup_child("api-0", "INFO", fd=full, size=3)
    log = structlog.get_logger("x")
    for number in range(5000):  # far more than the pipe and the queue hold
        log.info("filler " * 20, number=number)
    collected = bytearray()
    drain = threading.Thread(target=_drain, args=(reader, collected))
    drain.start()
    stop()
    os.close(full)
    drain.join()
    records = [json.loads(line) for line in bytes(collected).splitlines()]
    reports = [record for record in records if record["event"] == "log records dropped"]
    assert reports
    lost = sum(int(str(report["count"])) for report in reports)
    assert lost == 5000 - (len(records) - len(reports))


def _drain(fd: int, into: bytearray) -> None:
    while chunk := os.read(fd, 65536):
        into += chunk
    os.close(fd)


def test_everything_is_written_when_the_process_exits() -> None:
    code = (
        "import structlog; from app.core.logs import setup_child\n"
        "setup_child('asr-0')\n"
        "for i in range(500): structlog.get_logger('x').info('m', i=i)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["i"] for line in lines] == list(range(500))
