"""What the two recognition namespaces share: opening, audio in, Stop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from app.core.speech import RecognitionRequest
from app.nls.outputs import Feed, FinishAudio, OpenRecognition, Output
from app.nls.status import TASK_STATE_ERROR, Family, ProtocolError
from app.nls.task import Phase, ShuttingDown, Task


class RecognitionSession(Task):
    """A task that takes audio until a stop directive.

    Audio and Stop may come before the service granted the task: clients in C++ send at once and
    rely on the socket to keep it.
    """

    FAMILY: ClassVar[Family] = "recognition"
    STOP: ClassVar[str]
    STARTED: ClassVar[str]

    _cut_short = False
    """Whether the end of the audio was ours and not the client's."""
    _lost_audio = False
    """Whether audio came after that."""

    @property
    def waits_for_client(self) -> bool:
        """Not while opening (xiaozhi waits for Started before it sends) nor after Stop."""
        return self.phase is Phase.RUNNING

    def opened(self) -> list[Output]:
        """Send Started, also to a client that has already said Stop."""
        super().opened()
        return self._reply(self.STARTED, self._started_payload())

    def binary(self, data: bytes) -> list[Output]:
        """Pass audio on; after Stop it is ignored (nls-protocol.md 3.2)."""
        if self.phase is Phase.STOPPING:
            self._lost_audio = True
            return []
        return [Feed(data)]

    def finish_early(self) -> list[Output]:
        """As if the client had said Stop, but that the task fails once the rest is delivered."""
        if self.phase is Phase.STOPPING:
            return []
        self.phase = Phase.STOPPING
        self._cut_short = True
        return [FinishAudio()]

    def finished(self) -> list[Output]:
        """Everything was recognised."""
        if self._cut_short:
            raise ShuttingDown
        return self._completed()

    def _open(self, payload: Mapping[str, object]) -> list[Output]:
        return [OpenRecognition(self._request(payload))]

    def _directive(self, name: str, payload: Mapping[str, object]) -> list[Output]:
        if name != self.STOP:
            return self._control(payload)
        if self._cut_short:
            # Nothing is missing where the client had no more to say either.
            self._cut_short = self._lost_audio
            return []
        if self.phase is Phase.STOPPING:
            raise ProtocolError(TASK_STATE_ERROR, "Got stop directive while task is stopping!")
        self.phase = Phase.STOPPING
        return [FinishAudio()]

    @abstractmethod
    def _request(self, payload: Mapping[str, object]) -> RecognitionRequest: ...

    @abstractmethod
    def _completed(self) -> list[Output]: ...

    def _started_payload(self) -> dict[str, object] | None:
        return None

    def _control(self, payload: Mapping[str, object]) -> list[Output]:
        return []
