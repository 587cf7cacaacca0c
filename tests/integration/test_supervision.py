"""What hangs is replaced; what SIGHUP reloads, without a connection lost: the real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from app.client.errors import ClientError
from app.client.nls import NlsClient
from benchmarks.server import launch
from tests.support.process import Served, serving
from tests.support.sound import tone

pytestmark = pytest.mark.xdist_group("processes")  # real processes: one at a time

SUPPORT = Path(__file__).parents[1] / "support"
OLD, NEW = SUPPORT / "self_signed.pem", SUPPORT / "renewed.pem"
PATIENCE_S = 60


async def hears_again(served: Served) -> None:
    """Returns once a task succeeds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with asyncio.timeout(5):
                    events = await NlsClient(served.ws).transcribe(tone(300).tobytes())
            except (ClientError, OSError):  # TimeoutError, too, is one of the latter
                await asyncio.sleep(0.1)
                continue
            if any(event.payload.get("result") == "heard 300 ms" for event in events):
                return


def log_lines(served: Served, *words: str) -> list[str]:
    """The lines of the log so far that have all the words."""
    lines = served.log_file.read_text().splitlines()
    return [line for line in lines if all(word in line for word in words)]


async def logged(served: Served, *words: str) -> str:
    """Waits for such a line."""
    async with asyncio.timeout(PATIENCE_S):
        while not (lines := log_lines(served, *words)):  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.02)
    return lines[0]


@pytest.mark.parametrize("module", ["app.serving.worker", "app.main"])
async def test_a_stopped_process_is_replaced(tmp_path: Path, module: str) -> None:
    async with serving(tmp_path, HANG_TIMEOUT_SECONDS="2") as served:
        (stopped, *_) = served.children(module)
        stopped.suspend()
        await asyncio.to_thread(stopped.wait, PATIENCE_S)
        await hears_again(served)
        line = log_lines(served, "process hangs, killing it")[0]
        assert "ERROR" in line and "no sign of life for " in line
        assert await served.stop() == 0


async def test_a_worker_whose_model_hangs_is_replaced(tmp_path: Path) -> None:
    """It beats on, and its event loop turns: only the engine's step does not end."""
    settings = {"HANG_TIMEOUT_SECONDS": "2", "FAKE_ASR_DELAY_MS": "3600000"}
    async with serving(tmp_path, **settings) as served:
        workers = served.children("app.serving.worker")
        async with NlsClient(served.ws).transcriber() as task:
            await task.send(tone(1000).tobytes())
            line = await logged(served, "process hangs, killing it")
        assert "asr-0" in line and "its work has not advanced for " in line
        async with asyncio.timeout(PATIENCE_S):
            while all(worker.is_running() for worker in workers):  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.02)
        assert sum(worker.is_running() for worker in workers) == 1  # the other serves on


@asynccontextmanager
async def serving_tls(folder: Path, **settings: str) -> AsyncIterator[tuple[Served, Path]]:
    """A server with the old certificate, and the file of that."""
    pem = Path(shutil.copy(OLD, folder / "server.pem"))
    tls = {"SSL_CERTFILE": str(pem), "SSL_KEYFILE": str(pem)}
    async with serving(folder, **tls, **settings) as served:
        yield served, pem


def trusting(certificate: Path) -> ssl.SSLContext:
    """Of a client that accepts this certificate and no other, for whatever name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate)
    return context


async def serves(served: Served, certificate: Path) -> bool:
    """Whether a new connection gets this certificate."""
    port = int(served.http.rsplit(":", 1)[1])
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(certificate))
    except ssl.SSLCertVerificationError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sighup_serves_the_new_certificate_and_drops_no_connection(
    tmp_path: Path, workers: str
) -> None:
    async with serving_tls(tmp_path, WORKERS=workers) as (served, pem):
        assert await serves(served, OLD)
        processes = served.children("app.main")
        client = NlsClient(served.ws, ssl=trusting(OLD))
        async with client.transcriber() as task:
            await task.send(tone(200).tobytes())
            shutil.copy(NEW, pem)
            served.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(PATIENCE_S):
                # Each process by itself: several connections in a row, which the kernel spreads.
                while not all([await serves(served, NEW) for _ in range(8)]):  # noqa: ASYNC110 - other processes
                    await asyncio.sleep(0.05)
            await task.send(tone(200).tobytes())
            await task.stop()
            results = [event.payload.get("result") async for event in task.events()]
        assert "heard 400 ms" in results
        assert [each.pid for each in served.children("app.main")] == [p.pid for p in processes]


async def test_a_bad_new_certificate_leaves_the_old_one(tmp_path: Path) -> None:
    async with serving_tls(tmp_path) as (served, pem):
        pem.write_text("rubbish")
        served.process.send_signal(signal.SIGHUP)
        line = await logged(served, "the certificate is not renewed")
        assert "ERROR" in line
        assert await serves(served, OLD)
        shutil.copy(NEW, pem)
        served.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_S):
            while not await serves(served, NEW):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


async def test_sighup_goes_on_in_a_new_log_file_and_names_what_needs_a_restart(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        moved = tmp_path / "moved.log"
        async with asyncio.timeout(PATIENCE_S):  # the last line of the start
            while "serving version" not in served.log_file.read_text():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)
        served.log_file.rename(moved)
        (tmp_path / ".env").write_text("MAX_STREAMS=7\n")
        before = moved.read_text()
        served.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_S):
            while not served.log_file.exists():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        line = await logged(served, "changed settings need a restart")
        assert "WARNING" in line and "MAX_STREAMS" in line
        assert moved.read_text() == before
        await hears_again(served)


async def test_signals_to_the_group_of_the_terminal_reach_no_child(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        group = os.getpgid(served.process.pid)
        family = psutil.Process(served.process.pid).children(recursive=True)
        assert family
        assert all(os.getpgid(process.pid) != group for process in family)


async def test_the_next_start_removes_the_folder_of_a_killed_supervisor(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    async with serving(tmp_path, TMPDIR=str(temporary)) as served:
        (left,) = temporary.glob("funspeech-*")
        served.process.kill()
    assert left.exists()
    async with serving(tmp_path, TMPDIR=str(temporary)):
        assert not left.exists()
        assert len(list(temporary.glob("funspeech-*"))) == 1
    assert not list(temporary.glob("funspeech-*"))


async def test_closing_the_terminal_stops_the_server(tmp_path: Path) -> None:
    """``make run`` in a window that is closed leaves no server behind."""
    variables = {"HOST": "127.0.0.1", "PORT": "0", "ASR_ENGINE": "fake", "TTS_ENGINE": "fake"}
    process = await launch("tests.support.in_terminal", folder=tmp_path, variables=variables)
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert output.decode().strip() == "0"
