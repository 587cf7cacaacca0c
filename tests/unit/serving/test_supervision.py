"""The parts of supervision: stalled work, the certificate, the runtime folder, signals."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.core.config import Config, ConfigError
from app.serving import certificate, supervisor
from app.serving.batcher import Batcher
from app.serving.children import Child
from app.serving.control import Stalls
from app.serving.runtime_folder import PREFIX, remove_abandoned, runtime_folder
from app.serving.supervisor import Supervisor, stopping_on_signals
from app.serving.worker.stepper import Stepper

SUPPORT = Path(__file__).parents[2] / "support"
OLD, NEW = SUPPORT / "self_signed.pem", SUPPORT / "renewed.pem"


# Stalled work


def test_only_what_does_not_advance_counts_as_stalled() -> None:
    stalls = Stalls()
    assert [stalls.longest({"a": n}) for n in range(3)] == [0, 0, 0]
    assert [stalls.longest({"a": 9}) for _ in range(3)] == [0, 1, 2]
    assert stalls.longest({"a": 10}) == 0


def test_an_operation_that_stalls_is_not_hidden_by_others_that_advance() -> None:
    stalls = Stalls()
    looks = [stalls.longest({"vad": n, "recognise": 5}) for n in range(4)]
    assert looks == [0, 1, 2, 3]


def test_operations_that_take_turns_in_being_slow_do_not_add_up() -> None:
    stalls = Stalls()
    looks = [stalls.longest({"a": n // 3, "b": (n + 1) // 3}) for n in range(30)]
    assert max(looks) == 2


def test_what_is_finished_is_forgotten() -> None:
    stalls = Stalls()
    assert [stalls.longest({"a": 1}) for _ in range(2)] == [0, 1]
    assert stalls.longest({}) == 0
    assert stalls.longest({"a": 1}) == 0


async def test_a_stepper_has_work_while_a_step_runs_or_is_due() -> None:
    go = asyncio.Event()
    began = asyncio.Event()

    async def step(keys: list[str]) -> None:
        began.set()
        await go.wait()

    stepper: Stepper[str] = Stepper(Batcher(None, 0.0), step, "vad")
    running = asyncio.create_task(stepper.run())
    assert stepper.work() == {}
    stepper.ready("x")
    assert stepper.work() == {"vad": 0}
    await began.wait()
    assert stepper.work() == {"vad": 1}
    go.set()
    while stepper.work():  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# The certificate


def served_by(context: ssl.SSLContext) -> bytes:
    """The certificate that a client of ``context`` gets, by a handshake in memory."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(down, up)
    server = context.wrap_bio(up, down, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    got = client.getpeercert(binary_form=True)
    assert got is not None
    return got


def der(pem: Path) -> bytes:
    _, begin, rest = pem.read_text().partition(ssl.PEM_HEADER)
    body, end, _ = rest.partition(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(begin + body + end)


@pytest.fixture
def context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(OLD)
    return context


def test_a_renewed_certificate_is_served(context: ssl.SSLContext) -> None:
    assert served_by(context) == der(OLD)
    certificate.renew(context, NEW, NEW)
    assert served_by(context) == der(NEW)


@pytest.mark.parametrize(("cert", "key"), [(NEW, OLD), (NEW, Path("missing.pem"))])
def test_what_cannot_be_served_leaves_the_old_certificate(
    context: ssl.SSLContext, cert: Path, key: Path
) -> None:
    with capture_logs() as records:
        certificate.renew(context, cert, key)
    assert [record["log_level"] for record in records] == ["error"]
    assert served_by(context) == der(OLD)


def test_a_key_with_a_password_is_refused_and_not_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"^SSL_CERTFILE, SSL_KEYFILE: not a certificate"):
        certificate.check(NEW, SUPPORT / "locked_key.pem")


class Reloaded:
    """An API process that notes being told."""

    def __init__(self) -> None:
        self.times = 0

    def reload(self) -> None:
        self.times += 1


@pytest.mark.parametrize("usable", [True, False])
def test_api_processes_are_told_of_a_certificate_that_can_be_served(
    tmp_path: Path, usable: bool
) -> None:
    pem = Path(shutil.copy(OLD, tmp_path / "server.pem"))
    config = Config(ssl_certfile=pem, ssl_keyfile=pem)
    serving = Supervisor(config, lambda source, line: None, lambda running: None)
    api: Any = Reloaded()
    serving.apis.append(api)
    if not usable:
        pem.write_text("rubbish")
    with capture_logs() as records:
        serving.reload()
    assert api.times == usable
    assert [r["log_level"] for r in records] == ["info"] if usable else ["info", "error"]


# The runtime folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path


def test_the_folder_is_private_and_goes_with_its_block(temporary: Path) -> None:
    with runtime_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "asr-0.sock").touch()
    assert list(temporary.iterdir()) == []


def test_abandoned_folders_are_removed_and_nothing_else(temporary: Path) -> None:
    abandoned = temporary / f"{PREFIX}abandoned"
    foreign = temporary / f"{PREFIX}bench-1"  # of ours, but not a supervisor's
    other = temporary / "other-program"
    for folder in (abandoned, foreign, other):
        folder.mkdir()
    for folder in (abandoned, other):
        (folder / "lock").touch()
    (abandoned / "asr-0.sock").touch()
    target = temporary / "elsewhere"
    target.mkdir()
    (target / "lock").touch()
    (temporary / f"{PREFIX}link").symlink_to(target)
    with runtime_folder() as used:
        remove_abandoned()
        assert {each.name for each in temporary.iterdir()} == {
            used.name, foreign.name, other.name, "elsewhere", f"{PREFIX}link",
        }  # fmt: skip


def test_a_link_for_a_lock_is_not_followed(temporary: Path) -> None:
    folder = temporary / f"{PREFIX}odd"
    folder.mkdir()
    (temporary / "file").touch()
    (folder / "lock").symlink_to(temporary / "file")
    remove_abandoned()
    assert folder.exists()


def test_the_folder_of_another_user_is_left_alone(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = temporary / f"{PREFIX}theirs"
    folder.mkdir()
    (folder / "lock").touch()
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    remove_abandoned()
    assert folder.exists()


def test_the_folder_of_a_killed_supervisor_is_removed(temporary: Path) -> None:
    code = (
        "from app.serving.runtime_folder import runtime_folder\n"
        "import signal\n"
        "with runtime_folder() as folder:\n"
        "    print(folder, flush=True)\n"
        "    signal.pause()\n"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.parent == temporary
        remove_abandoned()
        assert folder.exists()
        process.kill()
    remove_abandoned()
    assert not folder.exists()


def test_the_lock_is_held_to_the_end_of_the_block(temporary: Path) -> None:
    with (
        runtime_folder() as folder,
        (folder / "lock").open() as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Signals


class Noting(Supervisor):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(Config(), lambda source, line: None, lambda running: None)
        self.told: list[str] = []
        self.was_told = asyncio.Event()

    def stop(self) -> None:
        self.told.append("stop")
        self.was_told.set()

    def reload(self) -> None:
        self.told.append("reload")
        self.was_told.set()


@pytest.mark.parametrize(
    ("number", "terminal", "expected"),
    [
        (signal.SIGTERM, [False], "stop"),
        (signal.SIGINT, [True], "stop"),
        (signal.SIGHUP, [False], "reload"),  # a service
        (signal.SIGHUP, [True, True], "reload"),  # kill -HUP from another terminal
        (signal.SIGHUP, [True, False], "stop"),  # the terminal was closed
    ],
)
async def test_signals(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, terminal: list[bool], expected: str
) -> None:
    answers = iter(terminal)
    monkeypatch.setattr(supervisor, "_has_terminal", lambda: next(answers))
    noting = Noting()
    async with stopping_on_signals(noting):
        os.kill(os.getpid(), number)
        await asyncio.wait_for(noting.was_told.wait(), 30)
    assert noting.told == [expected]


async def test_nohup_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_has_terminal", lambda: False)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        noting = Noting()
        async with stopping_on_signals(noting):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(noting.was_told.wait(), 30)
        assert noting.told == ["reload"]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_children_are_watched_with_the_configured_timeouts() -> None:
    config = Config(start_timeout_seconds=7, hang_timeout_seconds=3)
    spec: Any = None
    child = Supervisor(config, lambda *_: None, lambda running: None)._child(spec)
    assert isinstance(child, Child)
    assert (child._start_timeout_s, child._hang_timeout_s) == (7, 3)
