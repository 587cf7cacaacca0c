"""Parameters of a task, read leniently, for the WebSocket and for REST.

The values come from a JSON payload or from a query string, so a number may be a string. Null and
the empty string mean the default; unknown names are ignored. Ranges, defaults and formulas are
those of nls-protocol.md 2.1, 3.1 and 4.1: numbers outside a range are clamped, sample rates and
formats are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from app.core.errors import (
    InvalidRequest,
    InvalidText,
    UnsupportedFormat,
    UnsupportedSampleRate,
)
from app.core.speech import (
    RecognitionOptions,
    RecognitionRequest,
    SynthesisRequest,
    format_name,
)
from app.nls.status import quote

Values = Mapping[str, object]

MAX_APPKEY_CHARS: Final = 256
"""The cloud's have 16; this bounds what a running task keeps of its client."""

DEFAULT_VOICE: Final = "xiaoyun"
DEFAULT_SAMPLE_RATE: Final = 16_000
MIN_RECOGNITION_RATE: Final = 8_000
MAX_RECOGNITION_RATE: Final = 48_000
SYNTHESIS_RATES: Final = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

WHOLE_UTTERANCE_MS: Final = 60_000
"""As end-of-sentence silence: a pause does not end the utterance, the answer is one text anyway."""

DEFAULT_SILENCE_MS: Final = 800
MIN_SILENCE_MS: Final = 200
MAX_SILENCE_MS: Final = 6_000

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,12}(\.[0-9]{1,12})?")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def recognition_request(
    values: Values,
    *,
    task_id: str,
    appkey: str,
    formats: Collection[str],
    max_audio_ms: int | None,
) -> RecognitionRequest:
    """A recognition task from its parameters. ``appkey``: "" for none. ``formats``: the accepted
    names, in lower case.

    Raises:
        InvalidRequest: a value that makes no sense, or an appkey that is too long.
        UnsupportedFormat: a format that is not in ``formats``.
        UnsupportedSampleRate: a rate outside 8,000 to 48,000 Hz.
    """
    return RecognitionRequest(
        format=audio_format(values, formats),
        sample_rate=recognition_rate(values),
        options=RecognitionOptions(
            partials=boolean(values, "enable_intermediate_result", False),
            words=boolean(values, "enable_words", False),
            punctuation=boolean(values, "enable_punctuation_prediction", False),
            inverse_text_normalization=boolean(values, "enable_inverse_text_normalization", False),
            max_sentence_silence_ms=silence_ms(values, "max_sentence_silence")
            or DEFAULT_SILENCE_MS,
        ),
        max_audio_ms=max_audio_ms,
        task_id=task_id,
        appkey=_checked_appkey(appkey),
    )


def synthesis_request(
    values: Values,
    *,
    task_id: str,
    appkey: str,
    formats: Collection[str],
    max_text_chars: int,
) -> SynthesisRequest:
    """A synthesis task from its parameters. ``appkey``: "" for none. ``formats``: the accepted
    names, in lower case.

    Raises:
        InvalidText: the text is missing, blank, not a string, or too long.
        InvalidRequest: a value that makes no sense, or an appkey that is too long.
        UnsupportedFormat: a format that is not in ``formats``.
        UnsupportedSampleRate: a rate that is not one of ``SYNTHESIS_RATES``.
    """
    return SynthesisRequest(
        text=text_to_speak(values, max_text_chars),
        voice=string(values, "voice", DEFAULT_VOICE),
        format=audio_format(values, formats),
        sample_rate=synthesis_rate(values),
        speed=rate_factor(integer(values, "speech_rate", 0)),
        pitch=rate_factor(integer(values, "pitch_rate", 0)),
        volume=volume_factor(integer(values, "volume", 50)),
        task_id=task_id,
        appkey=_checked_appkey(appkey),
    )


def rate_factor(value: int) -> float:
    """NLS speech or pitch rate to a factor: -500 is 0.5, 0 is 1, 500 is 2; beyond is clamped."""
    value = min(max(value, -500), 500)
    return 1 / (1 - (0.002 if value < 0 else 0.001) * value)


def volume_factor(value: int) -> float:
    """NLS volume to a factor: 0 is silence, 50 is 1, 100 is 2; beyond is clamped."""
    return min(max(value, 0), 100) / 50


def text_to_speak(values: Values, max_chars: int) -> str:
    """The text, whole: nothing is ever cut. Each Unicode character counts one.

    Raises:
        InvalidText: missing, blank, not a string, or longer than ``max_chars``.
    """
    text = values.get("text")
    if text is not None and not isinstance(text, str):
        raise InvalidText("Invalid text: expected a string!")
    if text is None or not text.strip():
        raise InvalidText("No text specified!")
    if len(text) > max_chars:
        raise InvalidText(f"The text has {len(text)} characters; at most {max_chars} are accepted!")
    return text


def audio_format(values: Values, formats: Collection[str]) -> str:
    """The format in lower case, ``pcm`` by default; a dot in front of it is left out.

    Raises:
        UnsupportedFormat: it is not in ``formats``.
    """
    given = string(values, "format", "pcm")
    name = format_name(given)
    if name not in formats:
        accepted = ", ".join(formats)
        raise UnsupportedFormat(f"Invalid format {quote(given)}! Accepted: {accepted}.")
    return name


def recognition_rate(values: Values) -> int:
    """The sample rate of audio to recognise, in Hz.

    Raises:
        UnsupportedSampleRate: outside 8,000 to 48,000.
    """
    rate = integer(values, "sample_rate", DEFAULT_SAMPLE_RATE)
    if not MIN_RECOGNITION_RATE <= rate <= MAX_RECOGNITION_RATE:
        raise UnsupportedSampleRate(
            f"Invalid sample_rate {rate}! Accepted: "
            f"{MIN_RECOGNITION_RATE} to {MAX_RECOGNITION_RATE}."
        )
    return rate


def synthesis_rate(values: Values) -> int:
    """The sample rate of audio to synthesise, in Hz.

    Raises:
        UnsupportedSampleRate: not one of ``SYNTHESIS_RATES``.
    """
    rate = integer(values, "sample_rate", DEFAULT_SAMPLE_RATE)
    if rate not in SYNTHESIS_RATES:
        accepted = ", ".join(map(str, SYNTHESIS_RATES))
        raise UnsupportedSampleRate(f"Invalid sample_rate {rate}! Accepted: {accepted}.")
    return rate


def silence_ms(values: Values, name: str) -> int | None:
    """A silence that ends a sentence, clamped to 200 to 6,000 ms; None where it is not given."""
    if not _given(values, name):
        return None
    return min(max(integer(values, name, DEFAULT_SILENCE_MS), MIN_SILENCE_MS), MAX_SILENCE_MS)


def integer(values: Values, name: str, default: int) -> int:
    """A whole number; a fraction is rounded.

    Raises:
        InvalidRequest: not a number.
    """
    value = values.get(name)
    if not _given(values, name):
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    # The bound also keeps out infinities and NaN.
    if isinstance(value, float) and abs(value) < 1e12:
        return round(value)
    raise InvalidRequest(f"Invalid {name}: expected a whole number!")


def boolean(values: Values, name: str, default: bool) -> bool:
    """A truth value: JSON's own, 0 and 1, or those four as a string in any case.

    Raises:
        InvalidRequest: anything else.
    """
    value = values.get(name)
    if not _given(values, name):
        return default
    found = _BOOLEANS.get(str(value).strip().lower()) if isinstance(value, (int, str)) else None
    if found is None:
        raise InvalidRequest(f"Invalid {name}: expected true or false!")
    return found


def string(values: Values, name: str, default: str) -> str:
    """A string, without the white space around it.

    Raises:
        InvalidRequest: not a string.
    """
    value = values.get(name)
    if not _given(values, name):
        return default
    if not isinstance(value, str):
        raise InvalidRequest(f"Invalid {name}: expected a string!")
    return value.strip()


def _checked_appkey(appkey: str) -> str:
    if len(appkey) > MAX_APPKEY_CHARS:
        raise InvalidRequest(f"The appkey is too long: at most {MAX_APPKEY_CHARS} characters!")
    return appkey


def _given(values: Values, name: str) -> bool:
    value = values.get(name)
    return value is not None and not (isinstance(value, str) and not value.strip())
