"""Messages of clients that make mistakes, for hypothesis, and what a server may answer to them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from app.nls.namespaces import NAMESPACES

KNOWN_EVENTS = {
    "TaskFailed",
    "RecognitionStarted",
    "RecognitionResultChanged",
    "RecognitionCompleted",
    "TranscriptionStarted",
    "SentenceBegin",
    "TranscriptionResultChanged",
    "SentenceEnd",
    "TranscriptionCompleted",
    "SynthesisStarted",
    "MetaInfo",
    "SentenceSynthesis",
    "SynthesisCompleted",
}
DOCUMENTED_FAILURES = {
    40000001, 40000002, 40000003, 40000004, 40000005, 40000009, 40010001, 40010002, 40010003,
    40010005, 40020105, 40020106, 41010100, 41010101, 41020001, 50000000, 50000001,
}  # fmt: skip
TASK_IDS = ["a" * 32, "B" * 32]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=3,
)
parameter_names = st.sampled_from(
    [
        "format", "sample_rate", "enable_intermediate_result", "enable_words",
        "enable_voice_detection", "max_start_silence", "max_end_silence", "max_sentence_silence",
        "text", "voice", "speech_rate", "pitch_rate", "volume",
        "token", "session_id", "tw_time_offset", "tw_index_offset",
        "disfluency", "speech_noise_threshold", "special_word_filter", "vocabulary_id",
        "enable_subtitle", "enable_ssml", "enable_aigc_tag", "aigc_propagator", "prompt",
    ]
)  # fmt: skip
odd_values = json_values | st.sampled_from(["p", "unknown", "other", "spent", "wrong"])
good_values = st.sampled_from(["pcm", "wav", 16000, "8000", True, "true", 0, 1, "hi", 500, None])
payloads = st.one_of(
    st.just({"text": "hi", "enable_intermediate_result": True, "enable_words": True}),
    st.just({"enable_voice_detection": True, "max_start_silence": 3000}),
    st.just({"text": "hi", "enable_subtitle": True}),
    st.dictionaries(parameter_names, good_values | json_values, max_size=4),
    json_values,
)
DIRECTIVES = [
    ("SpeechTranscriber", "StartTranscription"),
    ("SpeechTranscriber", "ControlTranscriber"),
    ("SpeechTranscriber", "ControlTranscription"),
    ("SpeechTranscriber", "StopTranscription"),
    ("SpeechRecognizer", "StartRecognition"),
    ("SpeechRecognizer", "StopRecognition"),
    ("SpeechSynthesizer", "StartSynthesis"),
    ("SpeechSynthesizer", "StopSynthesis"),
    ("SpeechLongSynthesizer", "StartSynthesis"),
    ("SpeechLongSynthesizer", "RunSynthesis"),
    ("FlowingSpeechSynthesizer", "StartSynthesis"),
    ("FlowingSpeechSynthesizer", "RunSynthesis"),
    ("FlowingSpeechSynthesizer", "RunSynthesis"),
    ("FlowingSpeechSynthesizer", "FlushText"),
    ("FlowingSpeechSynthesizer", "StopSynthesis"),
    ("SpeechTranslator", "StartSynthesis"),
]


@st.composite
def messages(draw: st.DrawFn) -> str:
    """Mostly well-formed messages, with now and then anything in any place."""
    namespace, name = draw(st.sampled_from(DIRECTIVES))
    header: dict[str, Any] = {
        "message_id": "0" * 32,
        "task_id": TASK_IDS[draw(st.integers(0, 9)) == 0],
        "namespace": namespace,
        "name": name,
        "appkey": "k",
    }
    if draw(st.integers(0, 9)) == 0:
        header[draw(st.sampled_from([*header, "token"]))] = draw(odd_values)
    return json.dumps({"header": header, "payload": draw(payloads)})


def check_event(text: str) -> str:
    """Fail on what is no event of the protocol; returns its name."""
    assert len(text.encode()) <= 65_536
    event = json.loads(text)
    header = event["header"]
    assert header["name"] in KNOWN_EVENTS
    assert type(header["status"]) is int
    assert header["status_text"] == header["status_message"]
    assert header["status_text"].isprintable()
    assert event.get("payload", {}) is not None
    if header["name"] == "TaskFailed":
        assert header["status"] in DOCUMENTED_FAILURES
    else:
        assert header["status"] == 20000000
        assert header["namespace"] in NAMESPACES
        assert header["task_id"] in TASK_IDS
    return str(header["name"])
