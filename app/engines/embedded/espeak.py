"""libespeak-ng, as much of it as is needed, through ctypes.

All state of the library is global: one copy is loaded per process, and one lock serialises its
use. Text is given without the phoneme notation flag (0x100): with it, a ``[[…]]`` of 300 characters
in the text crashes the process (seen with espeak-ng 1.52).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import espeakng_loader
import numpy as np

from app.audio.pcm import Int16
from app.core.errors import EngineNotUsable

# Names as in speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
_INITIALIZE_DONT_EXIT: Final = 0x8000
_POS_CHARACTER: Final = 1
_CHARS_UTF8: Final = 1
_ENDPAUSE: Final = 0x1000
_EVENT_LIST_TERMINATED: Final = 0
_EVENT_WORD: Final = 1
_PARAMETER_VOLUME: Final = 2
_OK: Final = 0

_VOLUME: Final = 70
"""Of 200. At its default, 100, the tonal languages clip."""

_CALLBACK_MS: Final = 200
"""Audio per callback; each one takes the GIL."""


class _Event(ctypes.Structure):
    """``espeak_EVENT``; the union at its end is as large as its ``char string[8]``."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class WordEvent:
    """The word that begins at character ``position`` (from 0) starts at ``start_ms``."""

    position: int
    start_ms: int


@dataclass(frozen=True, slots=True)
class Speech:
    """One text spoken: mono int16 of :attr:`Espeak.sample_rate`, and its words in the library's
    order (it may report a word more than once, as for the parts of a number)."""

    samples: Int16
    words: tuple[WordEvent, ...]


class Espeak:
    """The library. Any thread; calls wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._voice = ""
        self._pcm: list[bytes] = []
        self._words: list[WordEvent] = []
        self._callback = _Callback(self._receive)  # the library keeps only a pointer to it
        self._library = _load()
        self.sample_rate = _initialize(self._library)
        """Hz."""
        self._library.espeak_SetSynthCallback(self._callback)
        _check(self._library.espeak_SetParameter(_PARAMETER_VOLUME, _VOLUME, 0), "volume")

    def speak(self, text: str, voice: str) -> Speech:
        """Synthesise ``text`` (without NUL) with an espeak-ng voice such as ``cmn+f2``.

        About 2 ms for a second of audio, the GIL released. The library ends every text with a
        pause of about 300 ms.

        Raises:
            RuntimeError: no such language, or the library failed.
        """
        # What is no character (half a surrogate pair) becomes one "?", so positions stay.
        data = text.encode("utf-8", "replace") + b"\0"
        with self._lock:
            self._select(voice)
            self._pcm, self._words = [], []
            _check(self._synthesize(data), "synthesis")
            samples = np.frombuffer(b"".join(self._pcm), np.int16)
            words = tuple(self._words)
            self._pcm, self._words = [], []
        return Speech(samples, words)

    def _select(self, voice: str) -> None:
        if voice != self._voice:
            self._voice = ""
            _check(self._library.espeak_SetVoiceByName(voice.encode()), f"voice {voice}")
            self._voice = voice

    def _synthesize(self, data: bytes) -> int:
        flags = _CHARS_UTF8 | _ENDPAUSE
        speak: Callable[..., int] = self._library.espeak_Synth
        return speak(data, len(data), 0, _POS_CHARACTER, 0, flags, None, None)

    def _receive(self, samples: int | None, count: int, events: Any) -> int:
        """The library's callback, inside :meth:`_synthesize`. 0: go on."""
        if samples and count > 0:
            self._pcm.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while (event := events[index]).type != _EVENT_LIST_TERMINATED:
            # A word of no length is a sign that is not spoken, such as a dash.
            if event.type == _EVENT_WORD and event.length:
                self._words.append(WordEvent(event.text_position - 1, event.audio_position))
            index += 1
        return 0


@cache
def _shared() -> Espeak:
    return Espeak()


_creating = threading.Lock()


def espeak() -> Espeak:
    """The process's one :class:`Espeak`.

    Raises:
        EngineNotUsable: the library or its data cannot be loaded.
    """
    with _creating:
        return _shared()


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        # For one, the wheel says glibc 2.17 but needs 2.29.
        raise EngineNotUsable(f"libespeak-ng does not load on this system: {error}") from error
    library.espeak_Initialize.argtypes = (
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
    )
    library.espeak_SetSynthCallback.argtypes = (_Callback,)
    library.espeak_SetParameter.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
    library.espeak_SetVoiceByName.argtypes = (ctypes.c_char_p,)
    library.espeak_Synth.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.POINTER(ctypes.c_uint),
        ctypes.c_void_p,
    )
    return library


def _initialize(library: ctypes.CDLL) -> int:
    rate: int = library.espeak_Initialize(
        _AUDIO_OUTPUT_SYNCHRONOUS,
        _CALLBACK_MS,
        espeakng_loader.get_data_path().encode(),
        _INITIALIZE_DONT_EXIT,
    )
    if rate <= 0:
        raise EngineNotUsable(
            "espeak-ng finds no voice data: pip install --force-reinstall espeakng-loader"
        )
    return rate


def _check(code: int, what: str) -> None:
    if code != _OK:
        raise RuntimeError(f"espeak-ng: {what} failed with code {code}")
