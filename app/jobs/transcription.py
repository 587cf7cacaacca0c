"""The job of a recording-file transcription: fetch, recognise, cut into sentences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from app.core.errors import BadAudio, DeadlineExceeded, EngineUnavailable, Overloaded
from app.core.speech import RecognitionRequest
from app.jobs.store import Job
from app.nls.file_transcription import TranscribedSentence, Transcription, TranscriptionOrder
from app.services.fetch import FetchLimits
from app.services.files import FileSentence, Recogniser, Transcript, recognise_file
from app.services.spool import Spool
from app.text.captions import captions

if TYPE_CHECKING:
    from app.services.recognition import RecognitionTask

KIND: Final = "transcription"

MAX_FILE_BYTES: Final = 512 * 1024 * 1024
"""As at the cloud (nls-protocol.md 6.5)."""

MAX_AUDIO_MS: Final = 12 * 3600 * 1000

FETCH_TIMEOUT_S: Final = 1_800.0
"""For a recording: 512 MB at 2.4 Mbit/s."""

MAX_WAIT_S: Final = 3_600.0
"""For an engine with room."""

_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Before it is asked again; the last one from then on."""


class Transcriber:
    """Does such a job: a :data:`app.jobs.runner.Work`. ``spool`` must have room for as many files
    of ``limits.max_bytes`` as jobs are run at the same time. ``max_wait_s``: for an engine."""

    def __init__(
        self,
        recognition: Recogniser,
        spool: Spool,
        limits: FetchLimits,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        self._recognition = _Patient(recognition, max_wait_s)
        self._spool = spool
        self._limits = limits

    async def __call__(self, job: Job) -> str:
        """A :class:`Transcription` as JSON.

        Raises:
            SpeechError: as :meth:`Spool.fetched` and :func:`recognise_file`.
            DeadlineExceeded: no engine had room.
        """
        order = msgspec.json.decode(job.request, type=TranscriptionOrder)
        async with self._spool.fetched(order.url, self._limits) as path:
            found = await recognise_file(
                self._recognition,
                path,
                order.request,
                order.channels,
                max_bytes=self._limits.max_bytes,
            )
        if not found.audio_ms:
            raise BadAudio("There is no audio in the file.")
        # In a thread: hours of speech are tens of thousands of words.
        return await asyncio.to_thread(_encoded, found, order)


class _Patient:
    """Waits for an engine where another client would be refused. Only a task that is not open yet
    waits, so nothing is heard, or counted, twice."""

    def __init__(self, recognition: Recogniser, max_wait_s: float) -> None:
        self._recognition = recognition
        self._max_wait_s = max_wait_s

    @asynccontextmanager
    async def open(
        self, request: RecognitionRequest, *, max_file_bytes: int | None = None
    ) -> AsyncIterator[RecognitionTask]:
        async with AsyncExitStack() as stack:
            for pause_s in self._pauses():
                opening = self._recognition.open(request, max_file_bytes=max_file_bytes)
                try:
                    task = await stack.enter_async_context(opening)
                    break
                except (Overloaded, EngineUnavailable):
                    await asyncio.sleep(pause_s)
            else:
                raise DeadlineExceeded("There was no room for the task; submit it again later.")
            yield task

    def _pauses(self) -> list[float]:
        """One for each attempt."""
        pauses = list(_PAUSES_S)
        while sum(pauses) < self._max_wait_s:
            pauses.append(_PAUSES_S[-1])
        return pauses


def _encoded(found: Transcript, order: TranscriptionOrder) -> str:
    sentences = [shown for each in found.sentences for shown in _sentences(each, order)]
    return msgspec.json.encode(Transcription(found.audio_ms, tuple(sentences))).decode()


def _sentences(found: FileSentence, order: TranscriptionOrder) -> list[TranscribedSentence]:
    """One, or its parts; none of one in which nothing is said."""
    return [
        TranscribedSentence(
            channel=found.channel,
            start_ms=part.start_ms,
            end_ms=part.end_ms,
            text=part.text,
            level_db=round(found.level_db, 1),
            words=tuple(each.word for each in part.words) if order.words else (),
        )
        for part in captions(found.sentence, marks=order.marks, max_chars=order.max_chars)
        if part.text
    ]
