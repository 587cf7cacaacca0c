"""Every engine of the registry, loaded once, and speech to try the recognisers on.

FunASR's models have random weights here: they hear something in everything, silence included.
sherpa's hear tones, and each of its kinds is an engine here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker

from app.audio.pcm import Float32
from app.core.speech import Role, Utterance
from app.engines import registry
from app.engines.base import (
    EndpointingRecognizer,
    Recognizer,
    RecognizerParts,
    SentenceRecognizer,
    Synthesizer,
)
from tests.support import random_offline, random_paraformer
from tests.support.sherpa import (
    kokoro,
    matcha,
    paraformer,
    punctuation,
    sense_voice,
    vits,
    zipformer1,
    zipformer2,
    zipvoice,
)
from tests.support.sherpa.recordings import write_recording
from tests.support.sherpa.tones import spoken

Streams = SentenceRecognizer | EndpointingRecognizer

SETTINGS: Mapping[str, object] = {
    "FAKE_ASR_DELAY_MS": 0,
    "FAKE_ASR_ITEM_MS": 0,
    "FAKE_ASR_BATCH": 0,
    "FAKE_ASR_SCRIPT": "",
    "FAKE_TTS_DELAY_MS": 0,
}

SENTENCES = ("Turn on the light.", "What time is it now?", "Open the door, please.", "Yes.")

SHERPA_KINDS: Mapping[str, Callable[[Path], Path]] = {
    "sherpa zipformer2": zipformer2.transducer,
    "sherpa zipformer1": zipformer1.transducer,
    "sherpa CTC": zipformer2.ctc,
    "sherpa Paraformer": paraformer.streaming,
}
NO_SHERPA_MODELS: Mapping[str, object] = {
    f"SHERPA_{part}_MODEL": "none" for part in ("STREAMING", "OFFLINE", "PUNCTUATION")
}
SHERPA_VOICES: Mapping[str, Callable[[Path], Path]] = {
    "sherpa Kokoro": kokoro.kokoro,
    "sherpa Matcha": matcha.matcha,
    "sherpa Melo": vits.melo,
    "sherpa VITS": vits.vits,
    "sherpa ZipVoice": zipvoice.zipvoice,
}
TONES = ("你好世界天气今明", "明今气天界", "你你好好世界", "今")
"""What sherpa's tiny models hear, in place of ``SENTENCES``."""


def _with(role: Role) -> list[str]:
    return sorted(name for name, entry in registry.ENGINES.items() if entry.needs(role) is not None)


def _require(name: str, role: Role) -> None:
    if missing := registry.missing(name, role):
        reason = f"{name} needs {', '.join(missing)}"
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def _recognizers() -> list[str]:
    return [
        kind for name in _with("asr") for kind in (SHERPA_KINDS if name == "sherpa" else [name])
    ]


def _synthesizers() -> list[str]:
    return [
        kind for name in _with("tts") for kind in (SHERPA_VOICES if name == "sherpa" else [name])
    ]


def _settings(kind: str, folder: Path) -> Mapping[str, object]:
    if build := SHERPA_KINDS.get(kind):
        return {**NO_SHERPA_MODELS, "SHERPA_STREAMING_MODEL": str(build(folder)), "SHERPA_SLOTS": 6}
    return funasr_settings(folder) if kind == "funasr" else SETTINGS


def funasr_settings(folder: Path) -> dict[str, object]:
    """Small random models of every kind, in ``folder``."""
    return {
        "FUNASR_STREAMING_MODEL": str(random_paraformer.write_streaming(folder / "streaming")),
        "FUNASR_OFFLINE_MODEL": str(random_offline.sensevoice(folder / "offline")),
        "FUNASR_OFFLINE_MODEL_8K": str(
            random_offline.paraformer(folder / "narrow", sample_rate=8_000)
        ),
        "FUNASR_PUNCTUATION_MODEL": str(random_offline.punctuation(folder / "p", realtime=False)),
        "FUNASR_REALTIME_PUNCTUATION_MODEL": str(
            random_offline.punctuation(folder / "rp", realtime=True)
        ),
        "FUNASR_VAD_MODEL": str(random_offline.vad(folder / "vad")),
        "FUNASR_SLOTS": 6,
        "FUNASR_THREADS": 1,
        "ASR_ENABLE_REALTIME_PUNC": True,
        "OFFLINE": True,
    }


def sherpa_settings(folder: Path, offline: Callable[[Path], Path]) -> dict[str, object]:
    """Tiny models for all parts, in ``folder``; ``offline`` builds that of whole sentences."""
    return {
        "SHERPA_STREAMING_MODEL": str(zipformer2.transducer(folder / "streaming")),
        "SHERPA_OFFLINE_MODEL": str(offline(folder / "offline")),
        "SHERPA_PUNCTUATION_MODEL": str(punctuation.ct_transformer(folder / "punctuation")),
        "SHERPA_SLOTS": 6,
        "ASR_ENABLE_REALTIME_PUNC": True,
    }


PARTS: Mapping[str, Callable[[Path], dict[str, object]]] = {
    "funasr": funasr_settings,
    "sherpa SenseVoice": lambda folder: sherpa_settings(folder, sense_voice.sense_voice),
    "sherpa Paraformer": lambda folder: sherpa_settings(folder, paraformer.offline),
}
"""The engines that have all parts, by name and kind, and their settings."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """``knows_silence``: its weights are real ones, so it finds no speech where there is none.
    ``hears_tones``: and nothing else."""

    engine: Recognizer
    knows_silence: bool
    hears_tones: bool


@pytest.fixture(scope="session", params=_recognizers())
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    kind = str(request.param)
    name = kind.partition(" ")[0]
    _require(name, "asr")
    settings = _settings(kind, tmp_path_factory.mktemp("models"))
    engine = registry.load(name).recognizer("cpu", settings, lambda doing: None)
    return Loaded(engine, knows_silence=name != "funasr", hears_tones=name == "sherpa")


@pytest.fixture(scope="session")
def recognizer(loaded: Loaded) -> Streams:
    """What hears streams: of an engine in parts, that part."""
    if isinstance(loaded.engine, RecognizerParts):
        assert loaded.engine.streaming is not None
        return loaded.engine.streaming
    return loaded.engine


@pytest.fixture(scope="session")
def knows_silence(loaded: Loaded) -> bool:
    return loaded.knows_silence


@pytest.fixture(scope="session", params=PARTS)
def in_parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    kind = str(request.param)
    name = kind.partition(" ")[0]
    _require(name, "asr")
    settings = PARTS[kind](tmp_path_factory.mktemp("models"))
    engine = registry.load(name).recognizer("cpu", settings, lambda doing: None)
    return Loaded(engine, knows_silence=name != "funasr", hears_tones=name == "sherpa")


@pytest.fixture(scope="session")
def parts(in_parts: Loaded) -> RecognizerParts:
    """An engine that has all parts."""
    assert isinstance(in_parts.engine, RecognizerParts)
    return in_parts.engine


def _voice_settings(kind: str, folder: Path) -> Mapping[str, object]:
    if build := SHERPA_VOICES.get(kind):
        write_recording(folder / "voices", "anna", "你好世界天气")
        return {
            "SHERPA_VOICE_MODEL": str(build(folder / "model")),
            "SHERPA_VOICE_THREADS": 1,
            "VOICES_DIR": folder / "voices",
        }
    return SETTINGS


@dataclass(frozen=True, slots=True)
class Speaking:
    """``knows_everything``: it reads any text of the languages of its voices. Others know the words
    of a small lexicon, and have the presets that their model has voices for."""

    engine: Synthesizer
    knows_everything: bool


@pytest.fixture(scope="session", params=_synthesizers())
def speaking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Speaking:
    kind = str(request.param)
    name = kind.partition(" ")[0]
    _require(name, "tts")
    settings = _voice_settings(kind, tmp_path_factory.mktemp("voice"))
    engine = registry.load(name).synthesizer("cpu", settings, lambda doing: None)
    return Speaking(engine, knows_everything=name != "sherpa")


@pytest.fixture(scope="session")
def synthesizer(speaking: Speaking) -> Synthesizer:
    return speaking.engine


@pytest.fixture(scope="session")
def knows_everything(speaking: Speaking) -> bool:
    return speaking.knows_everything


@pytest.fixture(scope="session")
def sentences_at() -> Mapping[int, list[Float32]]:
    """``SENTENCES`` spoken by espeak-ng, by sample rate (8 and 16 kHz)."""
    _require("embedded", "tts")
    speaker = registry.load("embedded").synthesizer("cpu", SETTINGS, lambda doing: None)
    rate = speaker.capabilities.sample_rate
    spoken = [
        np.concatenate(
            [p.samples for p in speaker.synthesize(Utterance(text=text, voice="英文女"))]
        )
        for text in SENTENCES
    ]
    return {
        to: [soxr.resample(s.astype(np.float32) / 32768, rate, to) for s in spoken]
        for to in (8_000, 16_000)
    }


@pytest.fixture
def clips(
    loaded: Loaded, recognizer: Streams, sentences_at: Mapping[int, list[Float32]]
) -> list[Float32]:
    """Sentences at the rate of the recogniser, of different lengths."""
    if loaded.hears_tones:
        return [spoken(text) for text in TONES]
    return sentences_at[recognizer.capabilities.sample_rate]
