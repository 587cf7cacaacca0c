"""The owner's recordings of voices: NAME.wav and what is said in it, NAME.txt, in VOICES_DIR."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker
import structlog

from app.audio.pcm import Float32, Int16, to_float
from app.audio.wav import HeaderReader
from app.audio.wav_samples import READABLE
from app.core.errors import BadAudio
from app.core.speech import Voice
from app.engines.reading import read_bytes
from app.engines.sherpa.languages import HAN
from app.engines.sherpa.pronounceable import Reader
from app.engines.sherpa.voices import is_name

log = structlog.get_logger(__name__)

SHORTEST_S: Final = 1.0
LONGEST_S: Final = 30.0
MOST_CLONES: Final = 100
MOST_CHARACTERS: Final = 600
"""Of what is said: far more than anybody says in 30 s."""
_MOST_BYTES: Final = 32 * 1024 * 1024
_MOST_TEXT_BYTES: Final = 16 * 1024
_RATES: Final = (8_000, 192_000)
_MOST_CHANNELS: Final = 8
_QUIETEST: Final = 0.001
"""Peak of full scale. There is no voice in less."""


class _Unusable(Exception):
    """Why a recording is none of a voice; the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Clone:
    """A voice by example: what it says in ``samples`` (mono, shape (n,), at the rate that was
    asked for) is ``text``, made readable."""

    voice: Voice
    samples: Float32 = field(repr=False)
    text: str = field(repr=False)


def read_clones(folder: Path, sample_rate: int, reader: Reader) -> tuple[Clone, ...]:
    """The recordings in ``folder``, by name, at ``sample_rate`` (Hz); none if there is no folder.

    What cannot be used is left out, with a warning that names the file.
    """
    found: dict[str, Clone] = {}
    for path in _recordings(folder):
        try:
            if len(found) >= MOST_CLONES:
                raise _Unusable(f"there are more than {MOST_CLONES}")
            clone = _clone(path, sample_rate, reader)
            if found.setdefault(clone.voice.name.lower(), clone) is not clone:
                raise _Unusable("another one has the same name but for the case of letters")
        except _Unusable as error:
            log.warning("voice left out", file=ascii(path.name)[1:-1], reason=str(error))
    return tuple(found.values())


def _recordings(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("no voices", setting="VOICES_DIR", reason=error.strerror)
        return
    yield from (path for path in paths if path.suffix.lower() == ".wav")


def _clone(path: Path, sample_rate: int, reader: Reader) -> Clone:
    name = unicodedata.normalize("NFC", path.stem)
    if not is_name(name):
        raise _Unusable("a name is letters, digits, spaces, dots, - and _, and 64 at most")
    text = reader.readable(_said(path.with_suffix(".txt")))
    if not reader.knows(text):
        raise _Unusable("its .txt has no word that the model knows")
    samples = _resampled(*_samples(path), sample_rate)
    chinese = HAN.search(text) is not None
    voice = Voice(
        name=name,
        language="zh-CN" if chinese else "en-US",
        gender="unknown",
        description="ZipVoice, from a recording",
        kind="clone",
    )
    return Clone(voice, samples, text)


def _said(path: Path) -> str:
    """What is said in a recording, in one line."""
    try:
        content = _content(path, _MOST_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unusable("its .txt, with what is said in it, is not UTF-8") from None
    except FileNotFoundError:
        raise _Unusable("there is no .txt of the same name with what is said in it") from None
    text = " ".join(content.split())
    if not any(map(str.isalnum, text)) or len(text) > MOST_CHARACTERS:
        raise _Unusable(
            f"its .txt must have what is said in it, {MOST_CHARACTERS} characters at most"
        )
    return text


def _samples(path: Path) -> tuple[Int16, int]:
    """Of a WAV file: its samples, mono, shape (n,), and their rate in Hz."""
    try:
        content = _content(path, _MOST_BYTES)
    except FileNotFoundError:
        raise _Unusable("it is gone") from None
    try:
        header = HeaderReader().feed(content)
    except BadAudio as error:
        raise _Unusable(error.text) from None
    if header is None:
        raise _Unusable("it is no WAV file, or cut short")
    read = READABLE.get((header.codec, header.bits))
    if read is None or not 1 <= header.channels <= _MOST_CHANNELS:
        raise _Unusable("its samples are of a kind that is not read here: save it as 16-bit PCM")
    if not _RATES[0] <= header.sample_rate <= _RATES[1]:
        raise _Unusable(f"its sample rate is {header.sample_rate} Hz")
    size = read.size * header.channels
    data = content[header.size :]
    if header.data_bytes is not None:
        data = data[: header.data_bytes]
    count = len(data) // size
    if not SHORTEST_S <= count / header.sample_rate <= LONGEST_S:
        raise _Unusable(f"it must last {SHORTEST_S:.0f} to {LONGEST_S:.0f} s")
    channels = read.read(data[: count * size]).reshape(count, header.channels)
    return np.rint(channels.mean(axis=1)).astype(np.int16), header.sample_rate


def _resampled(samples: Int16, rate: int, wanted: int) -> Float32:
    """At the rate of the model: at any other the runtime would do it for each sentence."""
    sound = to_float(samples)
    if np.abs(sound).max() < _QUIETEST:
        raise _Unusable("it is silent")
    if rate != wanted:
        sound = soxr.resample(sound, rate, wanted)
    return np.clip(sound, -1.0, 1.0)


def _content(path: Path, most: int) -> bytes:
    try:
        return read_bytes(path, most)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Unusable(f"it cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _Unusable(f"its {path.suffix}: {error}") from None
