"""SSML as NLS has it (nls-protocol.md 4.3): what is said, how, and the pauses.

    <speak rate="200">你好<break time="500ms"/><say-as interpret-as="digits">110</say-as></speak>

Read as XML, without a tree, so that neither depth nor size costs more than time. What is not known
here counts as its text; attributes that make no sense count as not given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]  # has no types
from defusedxml.ElementTree import XMLParser  # type: ignore[import-untyped]  # has no types

from app.core.errors import InvalidSsml
from app.core.manner import rate_factor, volume_factor
from app.text import say_as

MAX_DEPTH: Final = 64
MAX_ELEMENTS: Final = 10_000
MAX_PAUSE_MS: Final = 10_000
"""Of one ``break`` (nls-protocol.md 4.3)."""
MAX_PAUSES_MS: Final = 1_800_000
"""Of all of a text: silence is made of few characters, and takes gigabytes all the same."""

_DECLARATION: Final = re.compile(r"\s*<\?xml\s[^>]*\?>")
_BEGINNING: Final = re.compile(r"\s*(?:<\?xml\s[^>]*\?>\s*)?<speak[\s/>]")
_ROOT: Final = "documents"
_SPACE: Final = re.compile(r"\s+")

_STRENGTHS_MS: Final = {
    "none": 0, "x-weak": 100, "weak": 250, "medium": 500, "strong": 750, "x-strong": 1_000,
}  # fmt: skip
_TIME: Final = re.compile(r"\+?(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s)")

_RATES: Final = {"x-slow": 0.5, "slow": 0.75, "fast": 1.5, "x-fast": 2.0}
_PITCHES: Final = {"x-low": 0.7, "low": 0.85, "high": 1.15, "x-high": 1.3}
_VOLUMES: Final = {"silent": 0.0, "x-soft": 0.25, "soft": 0.5, "loud": 1.5, "x-loud": 2.0}
_NUMBER: Final = re.compile(r"([+-]?)(\d{1,6}(?:\.\d{1,6})?)(%|st|dB)?")

_FACTORS: Final = (0.5, 2.0)
"""Of speed and pitch, as everywhere in NLS (nls-protocol.md 4.1)."""
_LOUDEST: Final = 2.0


@dataclass(frozen=True, slots=True)
class Manner:
    """Who speaks, and how: ``speed``, ``pitch`` and ``volume`` are factors, 1.0 is the voice's
    own."""

    voice: str
    speed: float = 1.0
    pitch: float = 1.0
    volume: float = 1.0


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text in one manner, and the silence after it. ``text`` may be empty. ``start``:
    its place in the text of all spans together."""

    text: str
    manner: Manner
    pause_ms: int
    start: int


@dataclass(frozen=True, slots=True)
class Document:
    """What the text says. ``format`` and ``sample_rate`` (Hz) are those that the first ``speak``
    wants of the audio, None where it does not say."""

    spans: tuple[Span, ...]
    format: str | None = None
    sample_rate: int | None = None

    @property
    def text(self) -> str:
        """All that is spoken."""
        return "".join(span.text for span in self.spans)


def is_ssml(text: str) -> bool:
    """Whether ``text`` is meant as SSML (nls-protocol.md 4.3)."""
    return _BEGINNING.match(text) is not None


def parse(text: str, base: Manner, language_of: Callable[[str], str]) -> Document:
    """Read one ``speak`` element, or several in a row. ``base``: the manner of the request, which
    the attributes of ``speak`` overrule and ``prosody`` multiplies. ``language_of``: the language
    (a BCP 47 tag) of a voice, for the spelling of digits.

    Takes 15 ms for 80 KB: call it in a thread where the text may be long.

    Raises:
        InvalidSsml: not well-formed, something else than ``speak`` on the outside, entities of its
            own, or nested too deep or too often.
        SpeechError: ``language_of`` raised it.
    """
    reader = _Reader(base, language_of)
    parser = XMLParser(target=reader, forbid_dtd=True)
    try:
        parser.feed(f"<{_ROOT}>{_DECLARATION.sub('', text, count=1)}</{_ROOT}>")
        parser.close()
    except (ParseError, DefusedXmlException, UnicodeEncodeError):
        raise InvalidSsml from None
    return reader.document()


@dataclass(slots=True)
class _Run:
    """A span while it grows."""

    manner: Manner
    parts: list[str] = field(default_factory=list)
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Open:
    """An element that is open. ``said``: whether its text is spoken. ``collected``: where its text
    goes if it is to be read in a certain way at its end, ``kind``."""

    tag: str
    manner: Manner
    said: bool = True
    collected: list[str] | None = None
    kind: str = ""


class _Reader:
    """The target of an XML parser."""

    def __init__(self, base: Manner, language_of: Callable[[str], str]) -> None:
        self._base = base
        self._language_of = language_of
        self._open: list[_Open] = []
        self._runs: list[_Run] = []
        self._elements = 0
        self._paused_ms = 0
        self._audio: tuple[str | None, int | None] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        tag = tag.rpartition("}")[2]  # whatever the namespace
        self._elements += 1
        if len(self._open) > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise InvalidSsml
        if not self._open:
            self._open.append(_Open(_ROOT, self._base, said=False))
            return
        if (len(self._open) == 1) != (tag == "speak"):
            raise InvalidSsml  # on the outside there is nothing else, and inside none
        self._open.append(self._entered(tag, attributes, self._open[-1]))

    def data(self, text: str) -> None:
        """Text, in any pieces."""
        element = self._open[-1]
        if len(self._open) == 1:
            if text.strip():
                raise InvalidSsml
        elif not element.said:
            return
        elif element.collected is not None:
            element.collected.append(text)
        else:
            self._say(text, element.manner)

    def end(self, tag: str) -> None:
        """An element ends."""
        element = self._open.pop()
        if element.tag in ("p", "s", "speak") and element.said:
            self._say_exactly("\n", element.manner)
        if element.kind and element.collected is not None:
            language = self._language_of(element.manner.voice)
            self._say(say_as.spoken("".join(element.collected), element.kind, language),
                      element.manner)  # fmt: skip

    def close(self) -> None:
        """The end of the text."""

    def document(self) -> Document:
        """What was read. Raises InvalidSsml if there was nothing."""
        if self._audio is None:
            raise InvalidSsml
        spans: list[Span] = []
        start = 0
        for run in self._runs:
            text = "".join(run.parts)
            spans.append(Span(text, run.manner, run.pause_ms, start))
            start += len(text)
        format, sample_rate = self._audio
        return Document(tuple(spans), format, sample_rate)

    def _entered(self, tag: str, attributes: dict[str, str], outer: _Open) -> _Open:
        manner = outer.manner
        inner = _Open(tag, manner, outer.said, outer.collected)
        match tag:
            case "speak":
                self._note_audio(attributes)
                return _Open(tag, _overruled(manner, attributes))
            case "p" | "s" if outer.said:
                self._say_exactly("\n", manner)
            case "break" if outer.said:
                self._pause(_pause_ms(attributes), manner)
            case "prosody":
                return replace(inner, manner=_multiplied(manner, attributes))
            case "sub" if "alias" in attributes:
                if outer.said:
                    self._say_within(attributes["alias"], outer)
                return replace(inner, said=False)
            case "say-as" if outer.said and outer.collected is None:
                return replace(inner, collected=[], kind=attributes.get("interpret-as", "text"))
            case "soundEvent":
                return replace(inner, said=False)
        return inner

    def _note_audio(self, attributes: dict[str, str]) -> None:
        if self._audio is None:
            rate = attributes.get("sampleRate", "").strip()
            self._audio = (
                attributes.get("encodeType", "").strip() or None,
                int(rate) if rate.isdecimal() and len(rate) < 7 else None,
            )

    def _say_within(self, text: str, outer: _Open) -> None:
        if outer.collected is not None:
            outer.collected.append(text)
        else:
            self._say(text, outer.manner)

    def _say(self, text: str, manner: Manner) -> None:
        # A line break would end a sentence; in XML it is just white space.
        self._say_exactly(_SPACE.sub(" ", text), manner)

    def _say_exactly(self, text: str, manner: Manner) -> None:
        if text:
            self._run(manner).parts.append(text)

    def _pause(self, pause_ms: int, manner: Manner) -> None:
        self._paused_ms += pause_ms
        if self._paused_ms > MAX_PAUSES_MS:
            raise InvalidSsml("The text has more than 30 minutes of breaks!")
        if pause_ms:
            run = self._runs[-1] if self._runs else self._run(manner)
            run.pause_ms += pause_ms

    def _run(self, manner: Manner) -> _Run:
        """The span that goes on: a new one after a pause, and where the manner changes."""
        if not self._runs or self._runs[-1].pause_ms or self._runs[-1].manner != manner:
            self._runs.append(_Run(manner))
        return self._runs[-1]


def _pause_ms(attributes: dict[str, str]) -> int:
    time = _TIME.fullmatch(attributes.get("time", "").strip())
    if time is not None:
        milliseconds = float(time[1]) * (1 if time[2] == "ms" else 1_000)
        return round(min(milliseconds, MAX_PAUSE_MS))
    strength = attributes.get("strength", "").strip()
    return _STRENGTHS_MS.get(strength, _STRENGTHS_MS["medium"])


def _overruled(manner: Manner, attributes: dict[str, str]) -> Manner:
    """The attributes of ``speak``: NLS numbers in place of the request's."""
    rate = _integer(attributes.get("rate", ""))
    pitch = _integer(attributes.get("pitch", ""))
    volume = _integer(attributes.get("volume", ""))
    return Manner(
        voice=attributes.get("voice", "").strip() or manner.voice,
        speed=manner.speed if rate is None else rate_factor(rate),
        pitch=manner.pitch if pitch is None else rate_factor(pitch),
        volume=manner.volume if volume is None else volume_factor(volume),
    )


def _multiplied(manner: Manner, attributes: dict[str, str]) -> Manner:
    """The attributes of ``prosody``: factors on what is around it."""
    speed = manner.speed * _factor(attributes.get("rate", ""), _RATES, rate_factor)
    pitch = manner.pitch * _factor(attributes.get("pitch", ""), _PITCHES, rate_factor)
    volume = manner.volume * _factor(attributes.get("volume", ""), _VOLUMES, volume_factor)
    low, high = _FACTORS
    return Manner(
        voice=manner.voice,
        speed=min(max(speed, low), high),
        pitch=min(max(pitch, low), high),
        volume=min(volume, _LOUDEST),
    )


def _factor(value: str, words: dict[str, float], of_nls: Callable[[int], float]) -> float:
    """``fast``, ``120%``, ``+20%``, ``+2st``, ``-6dB``, ``1.2``, or NLS's own ``200``."""
    value = value.strip()
    number = _NUMBER.fullmatch(value)
    if number is None:
        return words.get(value, 1.0)
    sign, amount = number[1], float(f"{number[1]}{number[2]}")
    match number[3]:
        case "%":
            return max(1 + amount / 100 if sign else amount / 100, 0.0)
        case "st":
            return float(2 ** (min(max(amount, -24.0), 24.0) / 12))
        case "dB":
            return float(10 ** (min(max(amount, -60.0), 12.0) / 20))
    return max(amount, 0.0) if "." in number[2] else of_nls(int(amount))


def _integer(value: str) -> int | None:
    number = _NUMBER.fullmatch(value.strip())
    return None if number is None or number[3] else round(float(f"{number[1]}{number[2]}"))
