"""How far ``funspeech eval`` has got."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from app.cli.evaluate_manifest import Clip
from app.cli.evaluate_stream import Outcome

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Display:
    """On a terminal a progress bar, elsewhere nothing. A context manager."""

    def __init__(self, title: str, clips: int) -> None:
        self._progress: Progress | None = None
        self._row: TaskID | None = None
        self._title, self._clips = title, clips
        if sys.stderr.isatty():
            self._progress = _progress()
            self._row = self._progress.add_task(f"{title} (starting)", total=None)

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

    def streaming(self) -> None:
        """The server is ready."""
        if self._progress is not None and self._row is not None:
            self._progress.update(self._row, description=self._title, total=self._clips)

    def done(self, clip: Clip, outcome: Outcome) -> None:
        """One more clip."""
        if self._progress is not None and self._row is not None:
            self._progress.advance(self._row)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    name = TextColumn("{task.description}", markup=False)
    return Progress(
        name,
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
