"""Downloading a model from ModelScope, in a process of its own.

modelscope's client brings threads that a Ctrl-C does not end, progress bars, log handlers and
settings of its own; in a child process none of it touches the worker, and a kill ends it at any
time: what has come stays on disk, and the next download goes on from there (modelscope-hub 0.5:
HTTP ranges into ``NAME.incomplete``, renamed when the checksum is right).

The child is told what to fetch in one line of JSON on its standard input, answers with the hub's
file list, and at the end with ``done`` or ``error``. It ends at once when its input closes: it
does not outlive its parent. Bytes are counted by looking at the files.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec

STALL_S: Final = 300.0
"""A download without a new byte for so long is given up. The client itself tries again after a
minute of silence, and a check of what is there already may take minutes on a slow disk."""
_FILE_LIMIT_S: Final = 7 * 24 * 3600
"""For one file, at any speed; the client's own limit is an hour."""
_REASON_CHARS: Final = 300
_NONSENSE: Final = "the hub's file list makes no sense"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to fetch, and where to. ``required`` are the files that the hub must have,
    ``extra`` those that are taken, too, if it has them; no others are."""

    source: str
    revision: str
    folder: str
    cache: str
    required: tuple[str, ...]
    extra: tuple[str, ...]


class Listed(msgspec.Struct, frozen=True):
    """A file as the hub lists it; ``sha256`` is None where it tells none."""

    path: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the child's."""

    files: tuple[Listed, ...] | None = None
    done: bool = False
    error: str = ""


class DownloadFailed(Exception):
    """The text says why, in one line."""


def download(
    request: Request,
    begin: Callable[[Sequence[Listed]], None],
    advance: Callable[[int, int], None],
    *,
    poll_s: float = 0.5,
    stall_s: float = STALL_S,
) -> tuple[Listed, ...]:
    """Fetch what of ``request`` is not there yet; returns what the hub has listed.

    ``begin`` is told that list before anything is fetched, and may raise to stop. ``advance`` is
    told how many bytes of how many are there, at once and every ``poll_s``; before the list has
    come both are 0. Whatever is raised, the child has ended.

    Raises:
        DownloadFailed: it cannot be had, or no byte came for ``stall_s``.
    """
    listed: tuple[Listed, ...] = ()
    folder = Path(request.folder)
    most, since = 0, time.monotonic()
    advance(0, 0)
    with _child(request) as answers:
        while True:
            for answer in answers(poll_s):
                if answer.error:
                    raise DownloadFailed(answer.error)
                if answer.done:
                    return listed
                if answer.files is not None:
                    listed, since = answer.files, time.monotonic()
                    begin(listed)
            there = sum(bytes_there(folder, file) for file in listed)
            if there > most:
                most, since = there, time.monotonic()
            advance(most, sum(file.size for file in listed))
            if time.monotonic() - since > stall_s:
                raise DownloadFailed(f"nothing has come for {stall_s:.0f} s")


def parts_of(path: Path) -> list[Path]:
    """Where the client keeps what has come of a file (modelscope-hub 0.5, _download.py): in one
    piece, which is always told, and in ranges of bytes, of which those that are there are."""
    whole = path.with_name(f"{path.name}.incomplete")
    return [whole, *path.parent.glob(f"{path.name}_[0-9]*_[0-9]*")]


def bytes_there(folder: Path, file: Listed) -> int:
    """How much of a file is there: whole, or as the client keeps a part of it."""
    target = folder / file.path
    found = 0
    for part in (target, *parts_of(target)):
        with contextlib.suppress(OSError):  # renamed meanwhile
            found += part.stat().st_size
    return min(found, file.size)


@contextlib.contextmanager
def _child(request: Request) -> Iterator[Callable[[float], Iterator[Answer]]]:
    """A running child; it yields a function that returns what it says within so many seconds."""
    # In a session of its own: a terminal's Ctrl-C is for us, and we end it.
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        bufsize=0,
    )
    assert process.stdin is not None and process.stdout is not None
    with process, selectors.DefaultSelector() as selector:
        try:
            with contextlib.suppress(BrokenPipeError):  # it has died: the next read tells
                process.stdin.write(msgspec.json.encode(request) + b"\n")
            selector.register(process.stdout, selectors.EVENT_READ)
            yield _Answers(process.stdout.fileno(), selector)
        finally:
            process.kill()


class _Answers:
    """The child's lines as they come."""

    def __init__(self, fd: int, selector: selectors.BaseSelector) -> None:
        self._fd = fd
        self._selector = selector
        self._rest = b""

    def __call__(self, wait_s: float) -> Iterator[Answer]:
        """What came, after at most ``wait_s``. Raises DownloadFailed if the child has died."""
        if not self._selector.select(wait_s):
            return
        data = os.read(self._fd, 65_536)
        if not data:
            raise DownloadFailed("the process that downloads has died")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                yield msgspec.json.decode(line, type=Answer)
            except msgspec.DecodeError as error:
                raise DownloadFailed(f"{_NONSENSE}: {error}") from None


# The child


def _main() -> None:
    output = os.dup(1)
    os.dup2(2, 1)  # what the client prints is not for our parent

    def say(answer: Answer) -> None:
        os.write(output, msgspec.json.encode(answer) + b"\n")

    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _fetch(request, say)
    except Exception as error:
        say(Answer(error=_reason(error)))
    else:
        say(Answer(done=True))
    os._exit(0)  # the client's threads may still wait for something


def _end_with_parent() -> NoReturn:
    os.read(0, 1)
    os._exit(1)


def _fetch(request: Request, say: Callable[[Answer], None]) -> None:
    os.environ["MODELSCOPE_CACHE"] = request.cache  # it makes the folder, wherever that is
    # Its number for this machine, and whatever else it keeps, would go into the home directory.
    os.environ["MODELSCOPE_HOME"] = str(Path(request.cache) / ".modelscope-client")
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["MODELSCOPE_LOG_LEVEL"] = "CRITICAL"
    os.environ["MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT"] = str(_FILE_LIMIT_S)
    # Imported here: it takes a while, and is for this process only.
    from modelscope_hub import HubApi

    api = HubApi()
    with contextlib.suppress(Exception):  # it is only asked which of its two sites has the model
        api = HubApi(endpoint=api.resolve_endpoint_for_read(request.source))
    wanted = {*request.required, *request.extra}
    try:
        found = {
            entry.path: Listed(entry.path, entry.size, entry.sha256)
            for entry in api.list_repo_files(request.source, "model", revision=request.revision)
            if entry.path in wanted and not entry.is_dir
        }
    except (AttributeError, KeyError, TypeError) as error:  # the client takes the list as it comes
        raise DownloadFailed(f"{_NONSENSE}: {error}") from None
    files = tuple(found.values())  # each once
    absent = set(request.required) - found.keys()
    if absent:
        names = ", ".join(sorted(absent))
        raise DownloadFailed(f"{request.source} at {request.revision} has no {names}")
    say(Answer(files=files))
    api.download_repo(
        request.source,
        "model",
        revision=request.revision,
        cache_dir=request.cache,
        local_dir=request.folder,
        # One after the other: the client's limit of speed is per file.
        max_workers=1,
        file_list=[{"Path": f.path, "Size": f.size, "Sha256": f.sha256} for f in files],
    )


def _reason(error: BaseException) -> str:
    """What is wrong, in one line."""
    failed = getattr(error, "failed_files", None)
    if isinstance(failed, dict) and failed:
        name, cause = next(iter(failed.items()))
        return f"{name}: {_reason(cause)}" if isinstance(cause, BaseException) else str(name)
    for cause in _causes(error):
        # The client's own texts for these are long, and name classes.
        if isinstance(cause, (ConnectionError, TimeoutError, socket.gaierror)) and cause.strerror:
            return f"no connection to the hub ({cause.strerror})"
    if error.__cause__ is not None and not str(error).isascii():
        return _reason(error.__cause__)  # after its retries the client says what failed in Chinese
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:_REASON_CHARS]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those that it was raised for; requests and urllib3 put theirs into the
    arguments and into ``reason``."""
    seen: list[BaseException] = []
    found: list[object] = [error]
    while found:
        cause = found.pop(0)
        if isinstance(cause, BaseException) and not any(cause is other for other in seen):
            seen.append(cause)
            yield cause
            found += [cause.__cause__, cause.__context__, getattr(cause, "reason", None)]
            found += cause.args[:1]


if __name__ == "__main__":
    _main()
