"""/metrics: the figures of all processes together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.client.nls import NlsClient
from tests.support.process import Served, serving
from tests.support.sound import tone

pytestmark = pytest.mark.xdist_group("processes")  # real processes: one at a time

Figures = Callable[..., float]


async def figures(served: Served, token: str = "") -> Figures:
    """A reader of one answer: name and labels to value, 0 where there is none."""
    async with httpx.AsyncClient(base_url=served.http) as http:
        answer = await http.get("/metrics", headers={"X-NLS-Token": token})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]

    def figure(name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in samples
            if sample.name == f"funspeech_{name}" and labels.items() <= sample.labels.items()
        )

    return figure


@pytest.mark.own_workers
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_any_process_answers_for_all(tmp_path: Path, workers: str) -> None:
    async with serving(tmp_path, WORKERS=workers) as served:
        client = NlsClient(served.ws)
        await asyncio.gather(*(client.transcribe(tone(2_000).tobytes()) for _ in range(10)))
        await asyncio.gather(*(client.synthesize("abcde") for _ in range(6)))
        async with httpx.AsyncClient(base_url=served.http) as http:
            assert (await http.post("/stream/v1/asr", content=tone(1_000).tobytes())).is_success
            assert (await http.get("/stream/v1/tts", params={"text": ""})).is_error
        async with client.transcriber():
            figure = await figures(served)
            assert figure("connections") == 1
        assert figure("tasks_total", namespace="SpeechTranscriber", code="20000000") == 10
        assert figure("tasks_total", namespace="SpeechSynthesizer", code="20000000") == 6
        assert figure("tasks_total", namespace="/stream/v1/asr", code="20000000") == 1
        assert figure("tasks_total", namespace="/stream/v1/tts", code="40010003") == 1
        assert figure("audio_in_seconds_total") == pytest.approx(21.0)
        assert figure("audio_out_seconds_total") == pytest.approx(6.0)
        assert figure("final_seconds_count") == 11
        assert figure("first_audio_seconds_count") == 6
        assert figure("step_streams_sum", service="recognise") >= 11 * 5
        steps = figure("step_seconds_count", service="recognise")
        assert figure("queue_seconds_count", service="recognise") >= steps > 0
        assert figure("queue_seconds_count", service="speak") == 6
        assert figure("sentences_total", end="engine") == 11
        assert figure("speech_seconds_total") == pytest.approx(21.0)
        assert figure("audio_passed_seconds_total") == pytest.approx(20.0)  # REST has no gate
        assert figure("audio_gated_seconds_total") == 0
        assert figure("gate_openings_total") == 10
        assert figure("lag_seconds_count") >= 11
        assert figure("replica_active", replica="asr-0") == 1
        assert figure("replica_active", replica="tts-0") == 0
        assert figure("replica_capacity", replica="asr-0") >= 10
        assert figure("replica_ready", replica="asr-0") == 1
        assert figure("replica_ready", replica="tts-0") == 1
        assert figure("restarts_total") == 0


@pytest.mark.own_workers
async def test_a_restart_counts_and_gauges_forget_the_dead(tmp_path: Path) -> None:
    async with serving(tmp_path, WORKERS="1") as served:
        async with NlsClient(served.ws).connect():
            assert (await figures(served))("connections") == 1
            (first,) = served.children("app.main")
            first.kill()
            first.wait(30)
        async with asyncio.timeout(30):
            while True:
                try:
                    figure = await figures(served)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        assert figure("restarts_total", process="api-0") == 1
        assert figure("connections") == 0


async def eventually(served: Served, condition: Callable[[Figures], bool]) -> None:
    """Read until the figures are as they should become; fail if that never happens."""
    async with asyncio.timeout(30):
        while not condition(await figures(served)):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)


@pytest.mark.own_workers
async def test_a_replica_that_died_is_not_ready_and_comes_back(tmp_path: Path) -> None:
    async with serving(tmp_path, WORKERS="2") as served:
        assert (await figures(served))("replica_ready") == 2
        capacity = (await figures(served))("replica_capacity")
        served.children("app.serving.worker")[0].kill()
        await eventually(
            served,
            lambda figure: (
                figure("replica_ready") == 1 and 0 < figure("replica_capacity") < capacity
            ),
        )
        await eventually(
            served,
            lambda figure: (
                figure("replica_ready") == 2 and figure("restarts_total", planned="false") == 1
            ),
        )
        assert (await figures(served))("replica_capacity") == capacity


async def test_the_gate_counts_while_the_task_runs(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        async with NlsClient(served.ws).transcriber() as task:
            await task.send(tone(2_000, level=0.002).tobytes())
            await task.send(tone(3_000).tobytes())
            await eventually(
                served,
                lambda figure: figure("audio_gated_seconds_total") == pytest.approx(2.0),
            )
            await task.finish()
        figure = await figures(served)
        assert figure("audio_gated_seconds_total") == pytest.approx(2.0)
        assert figure("audio_passed_seconds_total") == pytest.approx(3.0)


async def test_metrics_need_the_token(tmp_path: Path) -> None:
    async with serving(tmp_path, APPTOKEN="right-token") as served:
        async with httpx.AsyncClient(base_url=served.http) as http:
            assert (await http.get("/metrics")).status_code == 401
        await figures(served, "right-token")
