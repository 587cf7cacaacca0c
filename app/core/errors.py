"""Every error that a client may see, as one small tree.

    SpeechError                      its ``text`` is safe to show: it says what to change
    ├── InvalidRequest               a parameter of the request is wrong
    │   ├── InvalidText              empty, too long, or not a text
    │   │   └── InvalidSsml
    │   ├── UnknownVoice
    │   ├── NotOffered               this server has no engine for it
    │   ├── UnsupportedFormat
    │   ├── UnsupportedSampleRate
    │   ├── UnfitUrl                 a URL that is never asked for
    │   └── FetchFailed              a URL that gives nothing
    │       ├── FileNotFound
    │       ├── FileForbidden
    │       └── FileHostFailed
    ├── BadAudio                     the audio cannot be decoded
    │   └── AudioTooLong
    ├── AccessDenied                 token or appkey missing or wrong
    ├── UnknownAppkey                there is no such project, or it is switched off
    ├── AppkeyMismatch               the token is another appkey's
    ├── Overloaded                   no capacity now; try again later
    │   ├── StreamsFull
    │   ├── FirstAudioTooLate
    │   ├── AppkeyBusy
    │   ├── DailyQuotaUsed
    │   ├── RecordingsFull
    │   ├── TooManyConnections
    │   └── Draining
    ├── DeadlineExceeded             the work did not finish in time
    └── EngineFailed                 our fault; the text says nothing of the cause
        ├── EngineLost               the worker died under the task; another can take it over
        └── EngineUnavailable        no worker is ready

The classes carry no status code: each wire format maps classes to codes in one table
(``app/nls/status.py`` for NLS). Between processes an error travels as its class name and text.
"""

from __future__ import annotations

from typing import ClassVar, Final


class SpeechError(Exception):
    """Base of all errors with a text for the client.

    ``text`` is shown to clients: never put a path, an internal address, a traceback or another
    user's data in it.
    """

    default_text = "The request could not be served."

    def __init__(self, text: str = "") -> None:
        self.text = text or self.default_text
        super().__init__(self.text)


class InvalidRequest(SpeechError):
    """A parameter of the request is missing or wrong."""

    default_text = "The request has an invalid parameter."


class InvalidText(InvalidRequest):
    """The text to speak is empty, too long or not a text."""

    default_text = "No text specified!"


class InvalidSsml(InvalidText):
    """The text is meant to be SSML, and is none."""

    default_text = "Illegal ssml text!"


class UnknownVoice(InvalidRequest):
    """No engine has the requested voice."""

    default_text = "Invalid voice name; see /stream/v1/tts/voices for the list."


class NotOffered(InvalidRequest):
    """This server has no engine for the task at all; trying again is of no use."""

    default_text = "This server does not offer this service."


class UnsupportedFormat(InvalidRequest):
    """The audio format is not one that this door reads or writes."""

    default_text = "This audio format is not supported."


class UnsupportedSampleRate(InvalidRequest):
    """The sample rate is outside what can be converted."""

    default_text = "This sample rate is not supported."


class UnfitUrl(InvalidRequest):
    """What should be a URL of audio is none, or leads where this server does not go."""

    default_text = "The audio URL is not valid."


class FetchFailed(InvalidRequest):
    """A URL of audio gives none."""

    default_text = "The audio URL cannot be fetched."


class FileNotFound(FetchFailed):
    """Its host does not have the file (404)."""


class FileForbidden(FetchFailed):
    """Its host has the file for others only (401, 403)."""


class FileHostFailed(FetchFailed):
    """Its host has failed (5xx)."""


class BadAudio(SpeechError):
    """The audio bytes cannot be decoded as what they claim to be."""

    default_text = "The audio cannot be decoded."


class AudioTooLong(BadAudio):
    """More audio than this door accepts in one task."""

    default_text = "The audio is too long: send it in parts."

    @classmethod
    def lasting(cls, limit_ms: int) -> AudioTooLong:
        """It lasts longer than ``limit_ms``, the limit of one-shot recognition."""
        return cls(
            f"The audio is longer than {limit_ms / 1000:g} s: send it in parts, or to "
            "SpeechTranscriber, which has no limit."
        )

    @classmethod
    def of_bytes(cls, limit: int) -> AudioTooLong:
        """It has more than ``limit`` bytes, and can be decoded only as a whole."""
        return cls(
            f"The audio is larger than {limit} bytes: send it in parts, or in a format that is "
            "read as it arrives (wav, mp3, opus)."
        )


class AccessDenied(SpeechError):
    """The token or appkey is missing or wrong."""

    default_text = "The token is missing or invalid."


class UnknownAppkey(SpeechError):
    """There is no project of this appkey, or it is switched off."""

    default_text = "The appkey is not known here: create its project, or use another one."


class AppkeyMismatch(SpeechError):
    """The token was issued for another appkey."""

    default_text = "The token is not for this appkey!"


class Overloaded(SpeechError):
    """There is no room for the task now.

    The client learns that, and nothing of the cause; the log and ``funspeech_refused_total`` have
    ``reason``, one of a closed set, which tells the owner what to enlarge (docs/operations.md).
    """

    default_text = "Too many requests; try again later."
    reason: ClassVar[str] = "other"


class StreamsFull(Overloaded):
    """Every ready replica runs as many streams as it may."""

    reason = "streams"


class FirstAudioTooLate(Overloaded):
    """The queue of every ready synthesiser is too long for a new text."""

    reason = "first_audio"


class TooMuchUnread(Overloaded):
    """Clients have not read what was spoken for them, and there is no memory for more."""

    reason = "unread"


class AppkeyBusy(Overloaded):
    """The appkey runs as many tasks as it may."""

    reason = "appkey"


class DailyQuotaUsed(Overloaded):
    """The project has used what it may in one day."""

    default_text = "The project's quota for today is used up; it begins anew at midnight UTC."
    reason = "daily_quota"


class RecordingsFull(Overloaded):
    """The recordings that the API process works on take as much of the disk as they may."""

    reason = "recordings"


class TooManyConnections(Overloaded):
    """The API process has as many connections as it may."""

    default_text = "Too many connections; try again later."
    reason = "connections"


class Draining(Overloaded):
    """The server is about to end, and takes no new task."""

    reason = "draining"


class DeadlineExceeded(SpeechError):
    """The work was accepted but did not finish within its time."""

    default_text = "The task took too long; try again."


class EngineFailed(SpeechError):
    """The engine failed on this task. The cause is in the server's log, under the task's id."""

    default_text = "The speech engine failed on this task; try again."


class EngineLost(EngineFailed):
    """The worker died under the task. What was accepted is not lost: the services repeat it
    elsewhere, so a client sees this only where no worker came back in time."""


class EngineUnavailable(EngineFailed):
    """No replica is ready to take the task."""

    default_text = "No speech engine is ready; try again later."


def _tree(cls: type[SpeechError]) -> list[type[SpeechError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in _tree(sub))]


_BY_NAME: Final = {cls.__name__: cls for cls in _tree(SpeechError)}


def from_wire(name: str, text: str) -> SpeechError:
    """Rebuild an error that another process sent as (class name, text).

    An unknown name becomes :class:`EngineFailed` with its fixed text, so that nothing unexpected
    is shown to a client.
    """
    cls = _BY_NAME.get(name)
    return cls(text) if cls is not None else EngineFailed()


class EngineNotUsable(Exception):
    """For the owner, not for clients: an engine cannot be loaded on this machine; the text tells
    what to do."""
