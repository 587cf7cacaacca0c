from __future__ import annotations

from app.core.speech import SpeechBegan, SpeechEnded, Subtitle
from app.nls.messages import MAX_FRAME_BYTES, Events
from app.nls.subtitles import meta_info, of_sentence, within_sentence

BEGAN = SpeechBegan(2, 10, "你好。")
MARKS = (Subtitle("你", 1_000, 1_210, 0, 1), Subtitle("好", 1_210, 1_430, 1, 2))
ENDED = SpeechEnded(2, 1_000, 1_600, MARKS)
UNTIMED = SpeechEnded(2, 1_000, 1_600)


def test_meta_info_counts_in_the_whole_text() -> None:
    assert list(meta_info(BEGAN, ENDED)) == [
        [
            {
                "text": "你",
                "begin_time": 1_000,
                "end_time": 1_210,
                "begin_index": 10,
                "end_index": 11,
                "sentence": False,
                "phoneme": "null",
            },
            {
                "text": "好",
                "begin_time": 1_210,
                "end_time": 1_430,
                "begin_index": 11,
                "end_index": 12,
                "sentence": False,
                "phoneme": "null",
            },
        ]
    ]


def test_a_sentence_without_times_is_one_entry() -> None:
    assert list(meta_info(BEGAN, UNTIMED)) == [
        [
            {
                "text": "你好。",
                "begin_time": 1_000,
                "end_time": 1_600,
                "begin_index": 10,
                "end_index": 13,
                "sentence": True,
                "phoneme": "null",
            }
        ]
    ]
    assert list(within_sentence(UNTIMED)) == []


def test_a_flowing_sentence_counts_in_itself() -> None:
    first, *rest = of_sentence(BEGAN, ENDED)
    assert first == {
        "text": "",
        "begin_time": 1_000,
        "end_time": 1_600,
        "begin_index": 0,
        "end_index": 3,
        "sentence": True,
        "phoneme_list": [],
    }
    assert list(within_sentence(ENDED)) == [rest]
    assert [(entry["begin_index"], entry["end_index"]) for entry in rest] == [(0, 1), (1, 2)]
    assert of_sentence(BEGAN, UNTIMED) == [first]


def test_no_event_is_too_large_for_a_frame() -> None:
    many = tuple(Subtitle("字", 10**8, 10**8, 10**5, 10**5) for _ in range(200))
    began, ended = SpeechBegan(1, 0, "字" * 200), SpeechEnded(1, 0, 10**8, many)
    events = Events("FlowingSpeechSynthesizer", "a" * 32, lambda: "0" * 32)
    lists = [*meta_info(began, ended), *within_sentence(ended), of_sentence(began, ended)]
    assert [len(entries) for entries in lists] == [100, 100, 100, 100, 201]
    for entries in lists:
        assert len(events.success("SentenceSynthesis", {"subtitles": entries})) < MAX_FRAME_BYTES
