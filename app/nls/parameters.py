"""Parameters of a task, read leniently, for the WebSocket and for REST.

The values come from a JSON payload or from a query string, so a number may be a string. Null and
the empty string mean the default; unknown names are ignored. Ranges, defaults and formulas are
those of nls-protocol.md 2.1, 3.1, 4.1 and 5.1: numbers outside a range are clamped, sample rates
and formats are refused. What has no effect here is in ``ignored.py``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from app.core.errors import (
    AccessDenied,
    InvalidRequest,
    InvalidText,
    UnsupportedFormat,
    UnsupportedSampleRate,
)
from app.core.manner import rate_factor, volume_factor
from app.core.project import DEFAULT_PROJECT, Hotwords, Project
from app.core.speech import (
    RecognitionOptions,
    RecognitionRequest,
    SynthesisRequest,
    SyntheticMark,
    WordFilter,
    format_name,
)
from app.nls.special_words import word_filter
from app.nls.status import quote

Values = Mapping[str, object]

MAX_APPKEY_CHARS: Final = 256
"""The cloud's have 16; this bounds what a running task keeps of its client."""

MAX_PROMPT_CHARS: Final = 1_000
"""Of ``prompt``: it describes a manner in a sentence or two."""

MAX_PROPAGATOR_CHARS: Final = 256
"""Of ``aigc_propagator`` and ``aigc_propagate_id``: they go into the audio file's metadata."""

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


def with_defaults(values: Values, project: Project) -> Values:
    """The parameters, with the project's own where the request has none."""
    missing = {name: value for name, value in project.defaults.items() if not given(values, name)}
    return {**values, **missing} if missing else values


def recognition_request(
    values: Values,
    *,
    task_id: str,
    appkey: str,
    formats: Collection[str],
    max_audio_ms: int | None,
    project: Project = DEFAULT_PROJECT,
) -> RecognitionRequest:
    """A recognition task from its parameters, which have the project's defaults. ``appkey``: "" for
    none. ``formats``: the accepted names, in lower case.

    Raises:
        InvalidRequest: a value that makes no sense, or an appkey that is too long.
        UnsupportedFormat: a format that is not in ``formats``.
        UnsupportedSampleRate: a rate outside 8,000 to 48,000 Hz.
    """
    return RecognitionRequest(
        format=audio_format(values, formats),
        sample_rate=recognition_rate(values, project.max_rate or DEFAULT_SAMPLE_RATE),
        options=RecognitionOptions(
            language=project.language,
            partials=boolean(values, "enable_intermediate_result", False),
            words=boolean(values, "enable_words", False),
            punctuation=boolean(values, "enable_punctuation_prediction", False),
            inverse_text_normalization=boolean(values, "enable_inverse_text_normalization", False),
            max_sentence_silence_ms=silence_ms(values, "max_sentence_silence")
            or DEFAULT_SILENCE_MS,
            hotwords=_hotwords(values, project),
            model=project.model,
            noise_threshold=_noise_threshold(values),
        ),
        max_audio_ms=max_audio_ms,
        max_rate=project.max_rate,
        disfluency=boolean(values, "disfluency", False),
        word_filter=_word_filter(values),
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
    project: Project = DEFAULT_PROJECT,
) -> SynthesisRequest:
    """A synthesis task from its parameters, which have the project's defaults. ``appkey``: "" for
    none. ``formats``: the accepted names, in lower case. Whether the text is SSML is what
    ``enable_ssml`` says, else how it begins.

    Raises:
        InvalidText: the text is missing, blank, not a string, or too long.
        InvalidRequest: a value that makes no sense, or an appkey that is too long.
        AccessDenied: the project may not use this voice.
        UnsupportedFormat: a format that is not in ``formats``.
        UnsupportedSampleRate: a rate that is not one of ``SYNTHESIS_RATES``.
    """
    text = text_to_speak(values, max_text_chars)
    request = stream_request(
        values,
        task_id=task_id,
        appkey=appkey,
        formats=formats,
        project=project,
        ssml=None,
    )
    return msgspec.structs.replace(request, text=text)


def stream_request(
    values: Values,
    *,
    task_id: str,
    appkey: str,
    formats: Collection[str],
    project: Project = DEFAULT_PROJECT,
    ssml: bool | None = False,
) -> SynthesisRequest:
    """As :func:`synthesis_request`, for a text that comes in pieces: the request's is "". ``ssml``:
    the request's, where ``enable_ssml`` does not say (nls-protocol.md 4.3, 5.1).

    Raises:
        SpeechError: as :func:`synthesis_request`, but for the text.
    """
    return SynthesisRequest(
        text="",
        voice=_allowed_voice(values, project),
        format=audio_format(values, formats),
        sample_rate=synthesis_rate(values),
        speed=rate_factor(integer(values, "speech_rate", 0)),
        pitch=rate_factor(integer(values, "pitch_rate", 0)),
        volume=volume_factor(integer(values, "volume", 50)),
        subtitles=boolean(values, "enable_subtitle", False),
        prompt=_bounded(values, "prompt", MAX_PROMPT_CHARS),
        ssml=boolean(values, "enable_ssml", False) if given(values, "enable_ssml") else ssml,
        allowed_voices=project.voices,
        mark=_synthetic_mark(values),
        task_id=task_id,
        appkey=_checked_appkey(appkey),
    )


def _hotwords(values: Values, project: Project) -> Hotwords:
    """Of the vocabulary that the request names. A ``customization_id`` names a language model at
    the cloud; here it may be a vocabulary, which is the nearest thing (nls-protocol.md 2.1)."""
    for name in ("vocabulary_id", "customization_id"):
        if (vocabulary := string(values, name, "")) in project.vocabularies:
            return project.hotwords_of(vocabulary)
    return project.hotwords


def _noise_threshold(values: Values) -> float | None:
    threshold = number(values, "speech_noise_threshold")
    return None if threshold is None else float(min(max(threshold, -1), 1))


def _word_filter(values: Values) -> WordFilter | None:
    name = "special_word_filter"
    return word_filter(values[name]) if given(values, name) else None


def _synthetic_mark(values: Values) -> SyntheticMark | None:
    if not boolean(values, "enable_aigc_tag", False):
        return None
    return SyntheticMark(
        propagator=_bounded(values, "aigc_propagator", MAX_PROPAGATOR_CHARS),
        propagate_id=_bounded(values, "aigc_propagate_id", MAX_PROPAGATOR_CHARS),
    )


def _allowed_voice(values: Values, project: Project) -> str:
    voice = string(values, "voice", DEFAULT_VOICE)
    if not project.allows_voice(voice):
        raise AccessDenied("No privilege to this voice!")
    return voice


def text_to_speak(values: Values, max_chars: int) -> str:
    """The text, whole: nothing is ever cut. Each Unicode character counts one.

    Raises:
        InvalidText: missing, blank, not a string, or longer than ``max_chars``.
    """
    text = text_piece(values, max_chars)
    if not text.strip():
        raise InvalidText("No text specified!")
    return text


def text_piece(values: Values, max_chars: int) -> str:
    """A part of a text, exactly as it came: it may be blank, or "".

    Raises:
        InvalidText: missing, not a string, or longer than ``max_chars``.
    """
    text = values.get("text")
    if text is None:
        raise InvalidText("No text specified!")
    if not isinstance(text, str):
        raise InvalidText("Invalid text: expected a string!")
    if len(text) > max_chars:
        raise InvalidText(f"The text has {len(text)} characters; at most {max_chars} are accepted!")
    return text


def audio_format(values: Values, formats: Collection[str]) -> str:
    """The format in lower case, ``pcm`` by default; a dot in front of it is left out.

    Raises:
        UnsupportedFormat: it is not in ``formats``.
    """
    asked = string(values, "format", "pcm")
    name = format_name(asked)
    if name not in formats:
        accepted = ", ".join(formats)
        raise UnsupportedFormat(f"Invalid format {quote(asked)}! Accepted: {accepted}.")
    return name


def recognition_rate(values: Values, default: int = DEFAULT_SAMPLE_RATE) -> int:
    """The sample rate of audio to recognise, in Hz.

    Raises:
        UnsupportedSampleRate: outside 8,000 to 48,000.
    """
    rate = integer(values, "sample_rate", default)
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
    if not given(values, name):
        return None
    return min(max(integer(values, name, DEFAULT_SILENCE_MS), MIN_SILENCE_MS), MAX_SILENCE_MS)


def integer(values: Values, name: str, default: int) -> int:
    """A whole number; a fraction is rounded.

    Raises:
        InvalidRequest: not a number.
    """
    if not given(values, name):
        return default
    value = _numeric(values[name])
    if value is None:
        raise InvalidRequest(f"Invalid {name}: expected a whole number!")
    return round(value)


def number(values: Values, name: str) -> float | None:
    """A number; None where it is not given.

    Raises:
        InvalidRequest: not a number.
    """
    if not given(values, name):
        return None
    value = _numeric(values[name])
    if value is None:
        raise InvalidRequest(f"Invalid {name}: expected a number!")
    return value


def _numeric(value: object) -> int | float | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    # The bound also keeps out infinities and NaN.
    return value if isinstance(value, float) and abs(value) < 1e12 else None


def boolean(values: Values, name: str, default: bool) -> bool:
    """A truth value: JSON's own, 0 and 1, or those four as a string in any case.

    Raises:
        InvalidRequest: anything else.
    """
    value = values.get(name)
    if not given(values, name):
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
    if not given(values, name):
        return default
    if not isinstance(value, str):
        raise InvalidRequest(f"Invalid {name}: expected a string!")
    return value.strip()


def _bounded(values: Values, name: str, max_chars: int) -> str:
    value = string(values, name, "")
    if len(value) > max_chars:
        raise InvalidRequest(f"Invalid {name}: at most {max_chars} characters are accepted!")
    return value


def _checked_appkey(appkey: str) -> str:
    if len(appkey) > MAX_APPKEY_CHARS:
        raise InvalidRequest(f"The appkey is too long: at most {MAX_APPKEY_CHARS} characters!")
    return appkey


def given(values: Values, name: str) -> bool:
    """Whether there is a value: neither null nor blank."""
    value = values.get(name)
    return value is not None and not (isinstance(value, str) and not value.strip())
