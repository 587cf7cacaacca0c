"""``funspeech transcribe``: files through SpeechTranscriber, sentence by sentence."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import typer

from app.cli.recording import PIECES_PER_SECOND, NotUsable, Recording, open_recording
from app.cli.target import advice, complain, resolve, run
from app.client.errors import NlsTaskFailed
from app.client.messages import Sentence, sentence
from app.client.nls import NlsClient, sending

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PARTIAL_CHARS: Final = 40
"""Of the open sentence, its newest part: what fits beside the bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says; see the command's help."""

    json: bool = False
    realtime: bool = False
    sample_rate: int | None = None
    punctuation: bool = True
    itn: bool = True
    max_sentence_silence: int | None = None


def transcribe(
    files: Sequence[Path], options: Options, *, url: str | None, token: str | None
) -> None:
    """Print the sentences of each file. A file that fails does not stop the others, but the exit
    code is then 1."""
    target = resolve(url, token)
    client = NlsClient(target.url, target.token, target.appkey, ssl=target.tls)
    failed = False
    for path in files:
        try:
            recording = open_recording(path, options.sample_rate)
            if options.realtime and recording.bytes_per_second is None:
                raise NotUsable(
                    f"{path}: --realtime is for WAV and raw PCM: only a decoder could tell how "
                    "long its bytes last; convert it, or leave --realtime out"
                )
            with Display(recording) as display:
                if len(files) > 1 and not options.json:
                    display.print(f"{path}:")
                found = run(_transcribe(client, recording, options, display))
        except NotUsable as error:
            complain(str(error))
            failed = True
        except TaskError as error:
            complain(f"{path}: {error}")
            failed = True
        else:
            _conclude(path, found, options)
    if failed:
        raise typer.Exit(1)


class TaskError(Exception):
    """The server refused this file's task; the next may go well."""


class Display:
    """On a terminal, a progress bar with the sentence that is being recognised beside it;
    elsewhere nothing but what is printed. A context manager."""

    def __init__(self, recording: Recording) -> None:
        self._progress: Progress | None = None
        self._row: TaskID | None = None
        if _is_terminal():
            self._progress, self._row = _bar(recording)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def sent(self, size: int) -> None:
        """So many more bytes have been sent."""
        if self._progress is not None and self._row is not None:
            self._progress.advance(self._row, size)

    def partial(self, text: str) -> None:
        """The hypothesis of the open sentence; empty when there is none."""
        if self._progress is not None and self._row is not None:
            self._progress.update(self._row, partial=text[-PARTIAL_CHARS:])

    def print(self, line: str) -> None:
        """Print a line on standard output, above the bar if both are on the terminal."""
        if self._progress is not None and sys.stdout.isatty():
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            typer.echo(line)


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _bar(recording: Recording) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    name = TextColumn("{task.description}", markup=False)
    partial = TextColumn(
        "{task.fields[partial]}", markup=False, table_column=Column(no_wrap=True, ratio=1)
    )
    progress = Progress(
        name,
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        partial,
        console=Console(stderr=True),
        expand=True,
        transient=True,
        # Standard output may be a file while the bar is on the terminal.
        redirect_stdout=False,
    )
    return progress, progress.add_task(recording.path.name, total=recording.size, partial="")


async def _transcribe(
    client: NlsClient, recording: Recording, options: Options, display: Display
) -> list[Sentence]:
    found = []
    parameters: dict[str, object] = {
        "enable_intermediate_result": _is_terminal(),
        "enable_punctuation_prediction": options.punctuation,
        "enable_inverse_text_normalization": options.itn,
    }
    if options.max_sentence_silence is not None:
        parameters["max_sentence_silence"] = options.max_sentence_silence
    try:
        async with (
            client.transcriber(
                format=recording.format, sample_rate=recording.sample_rate, **parameters
            ) as task,
            sending(task, _pieces(recording, display, realtime=options.realtime)),
        ):
            async for event in task.events():
                if event.name == "TranscriptionResultChanged":
                    display.partial(str(event.payload.get("result", "")))
                elif event.name == "SentenceEnd":
                    display.partial("")
                    found.append(sentence(event))
                    if not options.json:
                        display.print(_line(found[-1]))
    except NlsTaskFailed as error:
        raise TaskError(advice(error)) from error
    return found


async def _pieces(
    recording: Recording, display: Display, *, realtime: bool
) -> AsyncIterator[bytes]:
    clock = asyncio.get_running_loop().time
    due = clock()
    for piece in recording.pieces():  # reads of a few KB, which the page cache answers
        yield piece
        display.sent(len(piece))
        if realtime:
            due += 1 / PIECES_PER_SECOND
            await asyncio.sleep(max(0.0, due - clock()))


def _conclude(path: Path, found: Sequence[Sentence], options: Options) -> None:
    if options.json:
        sentences = [
            {
                "index": item.index,
                "begin_time": item.begin_time,
                "end_time": item.time,
                "text": item.result,
            }
            for item in found
        ]
        answer = {"file": str(path), "sentences": sentences}
        typer.echo(json.dumps(answer, ensure_ascii=False))
    elif not found:
        complain(f"{path}: no speech was recognised")


def _line(item: Sentence) -> str:
    return f"[{_clock(item.begin_time)} - {_clock(item.time)}] {item.result}"


def _clock(ms: int) -> str:
    minutes, rest = divmod(ms, 60_000)
    return f"{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
