"""The bytes of a task that its next process would need."""

from __future__ import annotations

from collections import deque


class KeptBytes:
    """Messages of a client from a restart point on. Positions are bytes since the task was opened
    at its present process."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._position = 0  # of the first of them
        self.size = 0
        """Bytes that are kept."""

    @property
    def messages(self) -> list[bytes]:
        """All of them. The first may have lost its beginning; the borders of the others hold."""
        return list(self._messages)

    @property
    def position(self) -> int:
        """Bytes before the first one."""
        return self._position

    def add(self, message: bytes) -> None:
        """The client has sent it."""
        self._messages.append(message)
        self.size += len(message)

    def drop_before(self, position: int) -> None:
        """The process is done with everything before ``position``."""
        while self._messages and self._position + len(self._messages[0]) <= position:
            self._drop(len(self._messages.popleft()))
        if self._messages and position > self._position:
            rest = position - self._position
            self._messages[0] = self._messages[0][rest:]
            self._drop(rest)

    def _drop(self, size: int) -> None:
        self._position += size
        self.size -= size

    def begin_anew(self) -> None:
        """They are sent to a new process, from its position 0 on."""
        self._position = 0

    def clear(self) -> None:
        """Nothing of it will be needed."""
        self._messages.clear()
        self.size = 0
