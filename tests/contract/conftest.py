"""Every engine of the registry, loaded once, and speech to try the recognisers on."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import pytest
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker

from app.audio.pcm import Float32
from app.core.speech import Role, Utterance
from app.engines import registry
from app.engines.base import Recognizer, Synthesizer

SETTINGS: Mapping[str, object] = {
    "FAKE_ASR_DELAY_MS": 0,
    "FAKE_ASR_ITEM_MS": 0,
    "FAKE_ASR_BATCH": 0,
    "FAKE_ASR_SCRIPT": "",
    "FAKE_TTS_DELAY_MS": 0,
}

SENTENCES = ("Turn on the light.", "What time is it now?", "Open the door, please.", "Yes.")


def _require(name: str, role: Role) -> None:
    missing = registry.missing(name, role)
    if missing is None:
        pytest.skip(f"{name} has no {role} half")
    if missing:
        reason = f"{name} needs {', '.join(missing)}"
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session", params=sorted(registry.ENGINES))
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    name = str(request.param)
    _require(name, "asr")
    return registry.load(name).recognizer("cpu", SETTINGS, lambda doing: None)


@pytest.fixture(scope="session", params=sorted(registry.ENGINES))
def synthesizer(request: pytest.FixtureRequest) -> Synthesizer:
    name = str(request.param)
    _require(name, "tts")
    return registry.load(name).synthesizer("cpu", SETTINGS, lambda doing: None)


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
def clips(recognizer: Recognizer, sentences_at: Mapping[int, list[Float32]]) -> list[Float32]:
    """Sentences at the rate of the recogniser, of different lengths."""
    return sentences_at[recognizer.capabilities.sample_rate]
