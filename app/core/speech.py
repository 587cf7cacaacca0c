"""The shared nouns: what recognition and synthesis take and give, in the terms of neither NLS nor
any engine.

They are ``msgspec`` structs, so the same values travel between the API process and an engine
worker (``app/serving/protocol.py``). All times are integers in milliseconds of audio since the
start of the task (or of the stream, where a docstring says so), never wall-clock times.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["asr", "tts"]
"""The two halves of the server: recognition and synthesis."""


def format_name(given: str) -> str:
    """The name of an audio format as everything here spells it: clients write ``.WAV`` too."""
    return given.strip().lower().removeprefix(".")


class Word(msgspec.Struct, frozen=True, array_like=True):
    """One recognised word with its place in the audio (ms)."""

    text: str
    start_ms: int
    end_ms: int


class RecognitionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a recognition task asks for. An engine ignores what its capabilities do not name.

    ``live``: somebody waits for each sentence as it is spoken; a file is heard with what is left of
    the engine.
    ``max_sentence_silence_ms``: silence, measured on the audio, that ends a sentence.
    ``max_sentence_ms``: a sentence is cut at this length even if nobody pauses.
    ``hotwords``: (word, weight) pairs, weights on NLS's scale, -6 to 5 (nls-protocol.md 2.1).
    ``source_rate``: Hz of what the client sends, whatever the engine gets: above half of it there
    is nothing to hear. ``model``: a label of MODELS_FILE, "" for the server's own model.
    ``noise_threshold``: -1 to 1, None as the VAD has it; above 0 more is taken for noise.
    """

    language: str | None = None
    partials: bool = True
    live: bool = True
    words: bool = False
    punctuation: bool = False
    inverse_text_normalization: bool = False
    max_sentence_silence_ms: int = 800
    max_sentence_ms: int = 60_000
    hotwords: tuple[tuple[str, float], ...] = ()
    source_rate: int = 16_000
    model: str = ""
    noise_threshold: float | None = None


class WordFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Words that a result must not show: ``removed`` are left out, ``masked`` are written as
    asterisks."""

    removed: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


class RecognitionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A recognition task as any front door asks for it.

    ``format``: what the client says that its bytes are (``app/audio/sniff.py``).
    ``sample_rate``: of those bytes; a header in the audio overrules it, and the service passes on
    what holds as ``options.source_rate``. ``max_audio_ms``: more
    audio than this fails the task with :class:`app.core.errors.AudioTooLong`; None for no limit.
    ``near_field_gate``: far-away sound is to be ignored, if the owner wants that at all: for
    live microphones, not for files. ``progress``: report :class:`AudioProcessed` too.
    ``max_rate``: Hz; audio of a higher rate is recognised as if it had come at this one; None for
    no such bound. ``channel``: which channel to hear, from 0; None: all, mixed. ``disfluency``:
    leave out fillers and repetitions. ``word_filter``: words to leave out or to mask.
    ``task_id`` is for the logs only; ``appkey``, "" for none, is whose task it is.
    """

    format: str = "pcm"
    sample_rate: int = 16_000
    near_field_gate: bool = True
    progress: bool = True
    options: RecognitionOptions = RecognitionOptions()
    max_audio_ms: int | None = None
    max_rate: int | None = None
    channel: int | None = None
    disfluency: bool = False
    word_filter: WordFilter | None = None
    task_id: str = ""
    appkey: str = ""


class AudioProcessed(msgspec.Struct, frozen=True, tag="processed", tag_field="event"):
    """Everything before ``position_ms`` of the audio has been looked at: no event about it is
    still to come, except of a sentence that is open."""

    position_ms: int


class SentenceBegan(msgspec.Struct, frozen=True, tag="began", tag_field="event"):
    """Speech started at ``start_ms``."""

    start_ms: int


class SentenceChanged(msgspec.Struct, frozen=True, tag="changed", tag_field="event"):
    """A new hypothesis for the whole open sentence; ``end_ms`` is the audio it covers."""

    text: str
    end_ms: int
    words: tuple[Word, ...] = ()


class SentenceEnded(msgspec.Struct, frozen=True, tag="ended", tag_field="event"):
    """The final text of the open sentence. ``confidence`` is None where the engine has no
    calibrated one: it is never made up. ``language`` (``zh``, ``en``, ``yue``, ``ja``, ``ko`` …),
    ``emotion`` (``happy``, ``sad``, ``angry``, ``neutral`` …) and ``events`` (``laughter``,
    ``applause``, ``music`` …) are what the engine heard beside the words, if it can."""

    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    language: str | None = None
    emotion: str | None = None
    events: tuple[str, ...] = ()


RecognitionEvent = SentenceBegan | SentenceChanged | SentenceEnded
"""What an engine or a recognition task reports: ``(Began Changed* Ended)*``, times ascending."""


class SyntheticMark(msgspec.Struct, frozen=True, kw_only=True):
    """The audio is to say of itself that a machine made it (``enable_aigc_tag``). ``propagator``
    and ``propagate_id``: who passes it on, and their number for it."""

    propagator: str = ""
    propagate_id: str = ""


class SynthesisRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A synthesis task as any front door asks for it.

    ``text``: "" where it comes in pieces. ``voice``: a name or alias, resolved by the voice
    catalogue. ``format``: a name that ``app/audio/encode.py`` knows. ``speed``, ``pitch``,
    ``volume``: factors, 1.0 is the voice's own. ``subtitles``: report when each character is heard.
    ``prompt``: how to speak, for engines that take such a thing. ``ssml``: whether the text is
    SSML; None: if it begins like that. ``allowed_voices``: names that it may ask for, casefolded;
    empty: all. ``task_id`` is for the logs only; ``appkey``, "" for none, is whose task it is.
    """

    text: str
    voice: str
    format: str = "pcm"
    sample_rate: int = 16_000
    speed: float = 1.0
    pitch: float = 1.0
    volume: float = 1.0
    subtitles: bool = False
    prompt: str = ""
    ssml: bool | None = None
    allowed_voices: frozenset[str] = frozenset()
    mark: SyntheticMark | None = None
    task_id: str = ""
    appkey: str = ""


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence to speak, for an engine.

    ``speed``: 1.0 is the voice's own, 2.0 twice as fast. ``pitch``: factor on the fundamental
    frequency. ``volume``: factor on the amplitude. An engine applies only those that its
    capabilities call exact; the caller applies the rest to the audio. ``prompt``: how to speak,
    for engines that take such a thing.
    """

    text: str
    voice: str
    language: str | None = None
    speed: float = 1.0
    pitch: float = 1.0
    volume: float = 1.0
    prompt: str = ""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """The audio of the character at ``index`` of the utterance's text starts at ``start_ms``."""

    index: int
    start_ms: int


class Subtitle(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a sentence's text, and when it is heard: ms in the task's audio; indexes count
    the sentence's characters, the end exclusive."""

    text: str
    begin_ms: int
    end_ms: int
    begin_index: int
    end_index: int


class SpeechBegan(msgspec.Struct, frozen=True, tag="speech_began", tag_field="event"):
    """A sentence is about to be heard: the ``index``-th, from 1. ``text_index``: at which character
    of the whole text it begins; 0 for text in pieces. ``text``: what it says."""

    index: int
    text_index: int
    text: str


class SpeechEnded(msgspec.Struct, frozen=True, tag="speech_ended", tag_field="event"):
    """All audio of a sentence is out. Times in ms of the task's audio. ``subtitles``: in the order
    of the text; none where the engine tells no times."""

    index: int
    begin_ms: int
    end_ms: int
    subtitles: tuple[Subtitle, ...] = ()


SpeechEvent = SpeechBegan | SpeechEnded
"""What a synthesis task reports beside its audio: ``(Began audio* Ended)*``."""


Gender = Literal["female", "male", "unknown"]


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """A voice that an engine has. ``language`` is a BCP 47 tag such as ``zh-CN``."""

    name: str
    language: str
    gender: Gender
    description: str = ""
    kind: Literal["preset", "clone"] = "preset"
