"""``funspeech say``: a text through SpeechSynthesizer, into a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import typer

from app.audio.encode import ENCODABLE
from app.audio.wav import make_header
from app.cli.target import fail, resolve, run
from app.client.nls import NlsClient
from app.core.speech import format_name

if TYPE_CHECKING:
    from rich.status import Status

STANDARD: Final = Path("-")
_OTHER_SUFFIXES: Final = {"": "wav", ".raw": "pcm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to say it; ``speed``, ``pitch`` and ``volume`` in NLS units (nls-protocol.md 4.1)."""

    voice: str | None = None
    sample_rate: int = 16_000
    speed: int = 0
    pitch: int = 0
    volume: int = 50


def say(text: str, output: Path, manner: Manner, *, url: str | None, token: str | None) -> None:
    """Speak ``text`` and write the audio, in the format that the end of the file's name says; says
    on standard error how long it is."""
    format = "wav" if output == STANDARD else _format_of(output)
    if text == "-":
        text = sys.stdin.read()
    if not text.strip():
        fail("there is no text to say")
    target = resolve(url, token)
    client = NlsClient(target.url, target.token, target.appkey, ssl=target.tls)
    if output == STANDARD:
        if sys.stdout.isatty():
            fail("audio is not for a terminal; give -o FILE, or pipe it into a player")
        _speak(client, text, manner, format, sys.stdout.buffer)
        return
    try:
        with _whole_file(output) as file:
            amount = _into_file(client, text, manner, format, file)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")
    typer.echo(f"{output}: {amount}", err=True)


def _format_of(output: Path) -> str:
    """The format that the file's name stands for; WAV where it has no suffix."""
    suffix = output.suffix.lower()
    format = _OTHER_SUFFIXES.get(suffix, format_name(suffix))
    if format not in ENCODABLE:
        accepted = ", ".join(f".{name}" for name in ENCODABLE)
        fail(f"{output}: there is no format {suffix}; use one of {accepted}")
    return format


def _into_file(client: NlsClient, text: str, manner: Manner, format: str, file: BinaryIO) -> str:
    """Write the audio; returns how much it is, in words."""
    if format != "wav":
        return _amount(_speak(client, text, manner, format, file), format, manner.sample_rate)
    # The server does not know the length when it sends the header; here it is known in the end.
    file.write(make_header(manner.sample_rate, 0))
    size = _speak(client, text, manner, "pcm", file)
    file.seek(0)
    file.write(make_header(manner.sample_rate, size // 2))
    return _amount(size, "pcm", manner.sample_rate)


def _amount(size: int, format: str, sample_rate: int) -> str:
    """``size`` bytes in words: as seconds, where they tell."""
    if format in ("pcm", "wav"):
        return f"{size / 2 / sample_rate:.1f} s of audio"
    return f"{size / 1000:.1f} KB of {format}"


@contextmanager
def _whole_file(output: Path) -> Iterator[BinaryIO]:
    """A file that gets its name only when it is complete, so that a failure leaves what was
    there before."""
    if output.exists() and not output.is_file():  # a device such as /dev/null cannot be renamed to
        with output.open("wb") as file:
            yield file
        return
    part = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _speak(client: NlsClient, text: str, manner: Manner, format: str, sink: BinaryIO) -> int:
    """Write the audio as it comes; returns the number of bytes."""
    with _spinner() as status:
        return run(_stream(client, text, manner, format, sink, status))


async def _stream(
    client: NlsClient,
    text: str,
    manner: Manner,
    format: str,
    sink: BinaryIO,
    status: Status | None,
) -> int:
    written = 0
    async with client.synthesizer(
        text,
        voice=manner.voice,
        format=format,
        sample_rate=manner.sample_rate,
        speech_rate=manner.speed,
        pitch_rate=manner.pitch,
        volume=manner.volume,
    ) as task:
        async for audio in task.audio():
            written += sink.write(audio)
            if sink is sys.stdout.buffer:
                sink.flush()  # a player at the other end of the pipe begins at once
            if status is not None:
                status.update(_amount(written, format, manner.sample_rate))
    return written


def _spinner() -> Status | nullcontext[None]:
    """On a terminal, a line that shows how far the synthesis is."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("waiting for audio")
