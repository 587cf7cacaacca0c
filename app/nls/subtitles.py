"""When each part of a synthesised text is heard, as payloads (nls-protocol.md 4.2, 5.2).

All times are ms in the task's audio, so that the last one is never beyond its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.core.speech import SpeechBegan, SpeechEnded, Subtitle

Entry = dict[str, object]

_ENTRIES_PER_EVENT: Final = 100
"""At some 150 bytes each they stay far below the 64 KiB of a frame (nls-protocol.md 1.8)."""


def meta_info(began: SpeechBegan, ended: SpeechEnded) -> Iterator[list[Entry]]:
    """A sentence's ``subtitles``, one list for each MetaInfo event. Indexes count the characters of
    the whole text. Where the engine tells no times, the sentence is one entry."""
    entries = [
        _entry(subtitle, began.text_index, phoneme="null") for subtitle in ended.subtitles
    ] or [_whole(began, ended)]
    return _in_parts(entries)


def _whole(began: SpeechBegan, ended: SpeechEnded) -> Entry:
    end_index = len(began.text)
    subtitle = Subtitle(began.text, ended.begin_ms, ended.end_ms, 0, end_index)
    return _entry(subtitle, began.text_index, sentence=True, phoneme="null")


def within_sentence(ended: SpeechEnded) -> Iterator[list[Entry]]:
    """The same for each SentenceSynthesis event; indexes count the characters of the sentence.
    None where the engine tells no times."""
    return _in_parts([_entry(subtitle, 0, phoneme_list=[]) for subtitle in ended.subtitles])


def of_sentence(began: SpeechBegan, ended: SpeechEnded) -> list[Entry]:
    """The ``subtitles`` of SentenceEnd: first the sentence, without its text, then its parts."""
    whole = Subtitle("", ended.begin_ms, ended.end_ms, 0, len(began.text))
    return [
        _entry(whole, 0, sentence=True, phoneme_list=[]),
        *(_entry(subtitle, 0, phoneme_list=[]) for subtitle in ended.subtitles),
    ]


def _entry(
    subtitle: Subtitle, text_index: int, *, sentence: bool = False, **phonemes: object
) -> Entry:
    return {
        "text": subtitle.text,
        "begin_time": subtitle.begin_ms,
        "end_time": subtitle.end_ms,
        "begin_index": text_index + subtitle.begin_index,
        "end_index": text_index + subtitle.end_index,
        "sentence": sentence,
        **phonemes,
    }


def _in_parts(entries: list[Entry]) -> Iterator[list[Entry]]:
    for start in range(0, len(entries), _ENTRIES_PER_EVENT):
        yield entries[start : start + _ENTRIES_PER_EVENT]
