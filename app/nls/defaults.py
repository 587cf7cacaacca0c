"""The defaults of a project: what may have one, and whether requests can be served with them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from app.core.errors import AccessDenied, InvalidRequest
from app.core.project import Project
from app.nls.parameters import (
    DEFAULT_VOICE,
    boolean,
    given,
    integer,
    recognition_request,
    string,
    synthesis_request,
)

_OF_REQUESTS: Final = frozenset(
    {
        "aigc_propagate_id",
        "aigc_propagator",
        "disfluency",
        "enable_aigc_tag",
        "enable_intermediate_result",
        "enable_inverse_text_normalization",
        "enable_punctuation_prediction",
        "enable_ssml",
        "enable_subtitle",
        "enable_words",
        "format",
        "max_sentence_silence",
        "pitch_rate",
        "prompt",
        "sample_rate",
        "special_word_filter",
        "speech_noise_threshold",
        "speech_rate",
        "voice",
        "volume",
    }
)
"""What ``recognition_request`` and ``synthesis_request`` read."""

_BOOLEANS: Final = frozenset(
    {
        "enable_disfluency",
        "enable_voice_detection",
        "enable_word_level_result",
        "first_channel_only",
    }
)
_INTEGERS: Final = frozenset(
    {"max_end_silence", "max_single_segment_time", "max_start_silence", "sentence_max_length"}
)
_STRINGS: Final = frozenset({"punctuation_mark"})
"""What single namespaces and doors read besides."""

DEFAULTABLE: Final = _OF_REQUESTS | _BOOLEANS | _INTEGERS | _STRINGS
"""The parameters that a project may have defaults for. Vocabularies are not among them: a project
has one of its own."""


def check_defaults(
    project: Project,
    *,
    recognition_formats: Collection[str],
    synthesis_formats: Collection[str],
) -> None:
    """Whether a recognition and a synthesis that give no parameters of their own are accepted.

    Raises:
        SpeechError: a name is not one of ``DEFAULTABLE``, or its value would be refused in a
            request.
    """
    values = project.defaults
    if unknown := sorted(values.keys() - DEFAULTABLE):
        raise InvalidRequest(
            f"{unknown[0][:80]} cannot have a default; what can: {', '.join(sorted(DEFAULTABLE))}"
        )
    for name in values.keys() & _BOOLEANS:
        boolean(values, name, False)
    for name in values.keys() & _INTEGERS:
        integer(values, name, 0)
    for name in values.keys() & _STRINGS:
        string(values, name, "")
    recognition_request(
        values,
        task_id="",
        appkey="",
        formats=recognition_formats,
        max_audio_ms=None,
        project=project,
    )
    synthesis_request(
        {**values, "text": "-"},
        task_id="",
        appkey="",
        formats=synthesis_formats,
        max_text_chars=1,
        # Which voice is allowed is another question, see below.
        project=msgspec.structs.replace(project, voices=frozenset()),
    )
    if given(values, "voice") and not project.allows_voice(string(values, "voice", "")):
        raise AccessDenied("The default voice is not among the project's voices")


def needs_a_voice(project: Project) -> bool:
    """Whether requests that name no voice are refused, because the project may not use the one
    that they would get."""
    return not project.allows_voice(string(project.defaults, "voice", DEFAULT_VOICE))
