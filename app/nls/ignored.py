"""Parameters that are taken with any value and have no effect, and why.

Everything else that nls-protocol.md 2.1, 3.1, 4.1, 5.1, 6.1 to 6.3 and 6.5 name is honoured.
Parameters that no table names are ignored, too; they are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_NO_PHONEMES: Final = "no engine tells when a phoneme is heard"
_NO_SPEAKERS: Final = "no engine tells speakers apart; those of a call have channels of their own"
_NO_CALLBACK: Final = "the result is fetched by GetTaskResult"

IGNORED: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "SpeechRecognizer": {
            "audio_address": "the audio comes in binary frames; /stream/v1/asr fetches one",
        },
        "SpeechTranscriber": {
            "enable_ignore_sentence_timeout": "a long sentence is cut; it never fails a task",
            "enable_multi_thresh_mod": "the VAD has one threshold: see speech_noise_threshold",
            "enable_nlp": "no engine analyses what is said: there is no SentenceSemantics",
            "enable_semantic_sentence_detection": "sentences end at pauses: see "
            "max_sentence_silence; there is no stash_result",
            "nlp_model": "see enable_nlp",
        },
        "SpeechSynthesizer": {
            "enable_phoneme_timestamp": _NO_PHONEMES,
            "method": "a synthesis method of old engines",
        },
        "SpeechLongSynthesizer": {
            "enable_phoneme_timestamp": _NO_PHONEMES,
            "method": "a synthesis method of old engines",
        },
        "FlowingSpeechSynthesizer": {
            "enable_phoneme_timestamp": _NO_PHONEMES,
            "platform": "what the client runs on",
        },
        "/stream/v1/asr": {
            "enable_voice_detection": "silence adds nothing to the text; all of the audio is heard",
        },
        "/stream/v1/FlashRecognizer": {
            "enable_timestamp_alignment": "times are those of the engine",
        },
        "SubmitTask": {
            "auto_split": _NO_SPEAKERS,
            "callback_url": _NO_CALLBACK,
            "class_vocabulary_id": "no engine has classes of names: see vocabulary_id",
            "enable_callback": _NO_CALLBACK,
            "enable_sample_rate_adaptive": "any sample rate is taken",
            "enable_semantic_sentence_detection": "sentences end at pauses: see max_end_silence",
            "enable_timestamp_alignment": "times are those of the engine",
            "speaker_num": _NO_SPEAKERS,
            "supervise_type": _NO_SPEAKERS,
            "valid_times": "all of the recording is transcribed; each sentence has its times",
            "version": "both versions have the same answers; only their callbacks differ",
        },
    }
)
"""By namespace, path or action, then by name."""
