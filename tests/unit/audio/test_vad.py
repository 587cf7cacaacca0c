import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.audio import endpoint, vad
from app.audio.pcm import Float32
from app.audio.vad import WINDOW_SAMPLES, SileroVad, VadState


@pytest.fixture(scope="module")
def model() -> SileroVad:
    return SileroVad()


def vowel(windows: int) -> Float32:
    """A gliding vowel with syllables: near enough to speech for the model."""
    times = np.arange(windows * WINDOW_SAMPLES) / 16_000
    phase = 2 * np.pi * np.cumsum(120 * (1 + 0.1 * np.sin(2 * np.pi * 3 * times))) / 16_000
    voice = np.zeros_like(times)
    for harmonic in range(1, 40):
        hz = 120 * harmonic
        formants = ((600, 150), (1_200, 200), (2_500, 300))
        level = 0.01 + sum(np.exp(-(((hz - centre) / width) ** 2)) for centre, width in formants)
        voice += level * np.sin(harmonic * phase)
    voice *= 0.5 - 0.5 * np.cos(2 * np.pi * 4 * times)
    scaled: Float32 = (0.3 * voice / np.abs(voice).max()).astype(np.float32)
    return scaled


def follow(model: SileroVad, samples: Float32) -> Float32:
    state = VadState()
    windows = samples.reshape(-1, 1, WINDOW_SAMPLES)
    return np.concatenate([model.probabilities([state], window) for window in windows])


def test_voice_is_told_from_silence(model: SileroVad) -> None:
    silence = np.zeros(20 * WINDOW_SAMPLES, np.float32)
    found = follow(model, np.concatenate([silence, vowel(40), silence]))
    assert found[5:20].max() < 0.1
    assert found[20:60].max() > 0.5
    assert found[-5:].max() < 0.1


def test_a_stream_in_a_batch_is_as_if_it_were_alone(model: SileroVad) -> None:
    rng = np.random.default_rng(3)
    streams = [
        vowel(12),
        np.zeros(12 * WINDOW_SAMPLES, np.float32),
        rng.normal(0, 0.1, 12 * WINDOW_SAMPLES).astype(np.float32),
        np.roll(vowel(12), 3_000),
    ]
    alone = np.stack([follow(model, stream) for stream in streams])
    states = [VadState() for _ in streams]
    windows = np.stack(streams).reshape(len(streams), 12, WINDOW_SAMPLES)
    batched = np.stack([model.probabilities(states, windows[:, i]) for i in range(12)], axis=1)
    assert np.ptp(alone) > 0.1
    assert np.allclose(batched, alone, atol=1e-5)


def test_a_batch_is_one_call(model: SileroVad) -> None:
    before = model.calls
    states = [VadState() for _ in range(20)]
    out = model.probabilities(states, np.zeros((20, WINDOW_SAMPLES), np.float32))
    assert out.shape == (20,)
    assert out.dtype == np.float32
    assert model.calls == before + 1


def test_no_streams_is_no_call(model: SileroVad) -> None:
    before = model.calls
    assert model.probabilities([], np.empty((0, WINDOW_SAMPLES), np.float32)).size == 0
    assert model.calls == before


def test_the_callers_buffer_may_be_used_again(model: SileroVad) -> None:
    expected = follow(model, vowel(10))
    state, buffer, found = VadState(), np.empty((1, WINDOW_SAMPLES), np.float32), []
    for window in vowel(10).reshape(-1, 1, WINDOW_SAMPLES):
        buffer[:] = window
        found.append(model.probabilities([state], buffer)[0])
        buffer[:] = 0
    assert np.allclose(found, expected, atol=1e-5)


def test_the_endpointer_means_the_same_windows() -> None:
    assert endpoint.WINDOW_SAMPLES == vad.WINDOW_SAMPLES
    assert endpoint.SAMPLE_RATE == vad.SAMPLE_RATE


def test_the_library_does_not_phone_home(tmp_path: Path) -> None:
    """onnxruntime reports the machine to its maker unless it is told not to before its import."""
    home = tmp_path / "home"
    home.mkdir()
    code = "import os, app.audio.vad as vad; vad.SileroVad(); print(os.environ[vad.NO_TELEMETRY])"
    environment = {"HOME": str(home), "TMPDIR": str(tmp_path), "PATH": os.defpath}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout == "1\n"
    assert list(home.rglob("*")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
