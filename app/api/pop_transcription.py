"""Recording-file transcription, Version 2018-08-17: SubmitTask and GetTaskResult (nls-protocol.md
6.5)."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping
from typing import Final

import msgspec

from app.api.pop_calls import Action, PopCall
from app.core.errors import RecordingsFull, SpeechError
from app.jobs.runner import Runner
from app.jobs.store import INTERRUPTED_TEXT, Job
from app.jobs.transcription import KIND, MAX_AUDIO_MS
from app.nls.file_transcription import (
    INTERNAL_ERROR,
    TASK_EXPIRED,
    Answers,
    Transcription,
    appkey_of,
    order_of,
    read_task,
)
from app.nls.pop import PopError
from app.nls.status import ProtocolError

_TASK_ID: Final = re.compile("[0-9a-f]{32}")


async def submit(call: PopCall) -> dict[str, object]:
    """SubmitTask: Task → TaskId.

    Raises:
        RecordingsFull: too many tasks wait.
    """
    runner = _runner(call)
    if call.draining:
        raise PopError("ServiceUnavailable", 503, "The server is shutting down; connect again.")
    text = call.required("Task")
    try:
        job = _job(call, text)
        await runner.submit(job)
    except RecordingsFull:
        raise
    except SpeechError as error:
        return Answers(call.request_id, "").refused(error)
    return Answers(call.request_id, job.id).submitted()


async def result(call: PopCall) -> dict[str, object]:
    """GetTaskResult: TaskId → its state, and what was recognised."""
    runner = _runner(call)
    task_id = call.required("TaskId")
    is_one = _TASK_ID.fullmatch(task_id) is not None
    job = await runner.find(task_id) if is_one else None
    answers = Answers(call.request_id, task_id if is_one else "")
    if job is None or not _may_read(call, job):  # nobody is told which
        unknown = ProtocolError(TASK_EXPIRED, "There is no such task, or not any more.")
        return answers.refused(unknown)
    return await _state(answers, job)


TRANSCRIPTION_ACTIONS: Final[Mapping[str, Action]] = {"SubmitTask": submit, "GetTaskResult": result}


def _runner(call: PopCall) -> Runner:
    if call.jobs is None:
        raise PopError("ServiceUnavailable", 503, "This server runs no such tasks.")
    return call.jobs


def _job(call: PopCall, text: str) -> Job:
    """What the call asks for. Raises SpeechError."""
    task, job_id = read_task(text), uuid.uuid4().hex
    appkey = appkey_of(task)
    project = call.access.check_signed(appkey, call.key.appkey)
    order = order_of(
        task, task_id=job_id, appkey=appkey, project=project, max_audio_ms=MAX_AUDIO_MS
    )
    request = msgspec.json.encode(order).decode()
    return Job(id=job_id, kind=KIND, appkey=appkey, request=request)


def _may_read(call: PopCall, job: Job) -> bool:
    return job.kind == KIND and call.key.appkey in (None, job.appkey)


async def _state(answers: Answers, job: Job) -> dict[str, object]:
    if job.state == "queued":
        return answers.queueing()
    if job.state == "running":
        return answers.running()
    ended_at = job.finished_at or 0
    if job.result is None:
        code = job.error_code or INTERNAL_ERROR.code
        return answers.failed(code, job.error_text or INTERRUPTED_TEXT, ended_at)
    # In a thread: hours of speech are megabytes.
    return await asyncio.to_thread(_success, answers, job.result, ended_at)


def _success(answers: Answers, found: str, ended_at: int) -> dict[str, object]:
    return answers.success(msgspec.json.decode(found, type=Transcription), ended_at)
