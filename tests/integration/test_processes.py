"""The real processes: supervisor, API processes, workers."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from app.client.errors import ClientError
from app.client.nls import NlsClient
from benchmarks.server import launch
from tests.support.process import serving
from tests.support.sound import tone

pytestmark = pytest.mark.xdist_group("processes")  # real processes: one at a time


async def heard(url: str, ms: int) -> str:
    events = await NlsClient(url).transcribe(tone(ms).tobytes())
    return str(next(e for e in events if e.name == "SentenceEnd").payload["result"])


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_serve_hears_and_speaks_and_ends_without_a_trace(
    tmp_path: Path, workers: str
) -> None:
    async with serving(tmp_path, WORKERS=workers) as served:
        family = psutil.Process(served.process.pid).children(recursive=True)
        assert len(served.children("app.main")) == int(workers)
        results = await asyncio.gather(*(heard(served.ws, 200 + 10 * k) for k in range(20)))
        assert results == [f"heard {200 + 10 * k} ms" for k in range(20)]
        async with httpx.AsyncClient(base_url=served.http) as http:
            assert (await http.get("/health/ready")).status_code == 200
            audio = (await http.get("/stream/v1/tts", params={"text": "ab"})).content
        assert len(audio) == 12_800
        assert await served.stop() == 0
    assert not [child for child in family if child.is_running()]
    log = served.log_file.read_text()
    assert "Traceback" not in log


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_killed_process_is_replaced(tmp_path: Path, workers: str) -> None:
    async with serving(tmp_path, WORKERS=workers) as served:
        for module in ("app.serving.worker", "app.main"):
            (first, *_) = served.children(module)
            first.kill()
            async with asyncio.timeout(30):
                while True:
                    try:
                        if await heard(served.ws, 300) == "heard 300 ms":
                            break
                    except (ClientError, OSError):
                        await asyncio.sleep(0.1)
            first.wait(30)  # reaped: a zombie still counts as running


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_children_do_not_outlive_a_killed_supervisor(tmp_path: Path, workers: str) -> None:
    async with serving(tmp_path, WORKERS=workers) as served:
        family = psutil.Process(served.process.pid).children(recursive=True)
        assert family
        served.process.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, 10)
        assert not alive


async def run_serve(folder: Path, **variables: str) -> tuple[int | None, str]:
    variables = {"HOST": "127.0.0.1", **variables}
    process = await launch("app", "serve", folder=folder, variables=variables)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, output = await run_serve(tmp_path, PORT=port, ASR_ENGINE="fake", TTS_ENGINE="fake")
    assert code == 1
    assert output.strip().splitlines()[-1].startswith(f"funspeech: PORT: {port} is in use")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PORT", "abc", "PORT"),
        ("ASR_ENGINE", "nonsense", "ASR_ENGINE"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL"),
    ],
)
async def test_a_wrong_setting_stops_the_start_with_its_name(
    tmp_path: Path, variable: str, value: str, says: str
) -> None:
    code, output = await run_serve(tmp_path, **{"PORT": "0", "TTS_ENGINE": "fake", variable: value})
    assert code == 1
    assert says in output.strip().splitlines()[-1]
    assert "Traceback" not in output
