"""Voice activity: many streams in one call, each as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.audio.pcm import Float32
from app.engines.funasr.features import LogMel
from app.engines.funasr.settings import FunasrOptions
from app.engines.funasr.vad import FsmnDetector, load_detector
from tests.support import random_offline

WINDOWS = 30


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> FsmnDetector:
    folder = random_offline.vad(tmp_path_factory.mktemp("vad"))
    return load_detector(folder, "cpu", FunasrOptions(threads=1), lambda _: None)


def windows(seed: int, count: int = WINDOWS) -> Float32:
    return random_offline.noise(seed, 960 * count).reshape(count, 960)


def alone(detector: FsmnDetector, audio: Float32) -> list[float]:
    state = detector.new_state()
    return [float(detector.probabilities([state], window[None])[0]) for window in audio]


def test_streams_do_not_hear_each_other(detector: FsmnDetector) -> None:
    """Streams begin and pause at different times, in changing order."""
    rng = np.random.default_rng(0)
    audio = [windows(seed) for seed in range(6)]
    states = [detector.new_state() for _ in audio]
    heard: list[list[float]] = [[] for _ in audio]
    while any(len(found) < WINDOWS for found in heard):
        ready = [k for k, found in enumerate(heard) if len(found) < WINDOWS and rng.random() < 0.7]
        rng.shuffle(ready)
        if not ready:
            continue
        batch = np.stack([audio[k][len(heard[k])] for k in ready])
        found = detector.probabilities([states[k] for k in ready], batch)
        assert found.shape == (len(ready),)
        assert found.dtype == np.float32
        for k, probability in zip(ready, found, strict=True):
            heard[k].append(float(probability))
    for probabilities, samples in zip(heard, audio, strict=True):
        np.testing.assert_allclose(probabilities, alone(detector, samples), atol=2e-5)
    assert np.ptp(heard) > 0.3


def test_the_first_window_has_two_rows(detector: FsmnDetector) -> None:
    state = detector.new_state()
    first, second, *_ = windows(1)
    _, there = detector.silence([state], first[None])
    assert there.tolist() == [[0, 0, 0, 0, 1, 1]]
    _, there = detector.silence([state], second[None])
    assert there.tolist() == [[1] * 6]


def test_windows_give_what_the_whole_gives(detector: FsmnDetector) -> None:
    """Against one run over all rows: a frame, with two copies of the first one before it, and two
    frames ahead."""
    audio = windows(5, 6)
    state = detector.new_state()
    heard: list[float] = []
    for window in audio[:, None]:
        silence, there = detector.silence([state], window)
        heard += silence[there > 0].tolist()
    with torch.inference_mode():
        frames = LogMel()(torch.from_numpy(audio).reshape(1, -1))
        frames = torch.cat([frames[:, :1], frames[:, :1], frames], dim=1)
        rows = frames.unfold(1, 5, 1).transpose(2, 3).flatten(2)
        rows = (rows + detector._shift) * detector._scale
        keep = torch.ones(1, rows.shape[1], 1)
        posteriors, _ = detector._network(rows, detector._no_memory[None], keep)
    assert len(heard) == rows.shape[1] == 32
    np.testing.assert_allclose(heard, posteriors[0, :, 0], atol=1e-5)


def test_probability_is_what_is_not_silence(detector: FsmnDetector) -> None:
    one, other = detector.new_state(), detector.new_state()
    for window in windows(2, 5)[:, None]:
        silence, there = detector.silence([one], window)
        [probability] = detector.probabilities([other], window)
        expected = 1 - float((silence * there).sum() / there.sum())
        assert probability == pytest.approx(expected, abs=1e-6)


def test_samples_that_are_no_numbers_do_not_stay(detector: FsmnDetector) -> None:
    spoilt = windows(3)
    spoilt[4, 100:200] = np.nan
    spoilt[5, 7] = np.inf
    found = alone(detector, spoilt)
    assert np.isfinite(found).all()
    silent = spoilt.copy()
    silent[~np.isfinite(silent)] = 0.0
    assert found == alone(detector, silent)


def test_a_window_is_not_kept_by_reference(detector: FsmnDetector) -> None:
    audio = windows(4)
    expected = alone(detector, audio)
    buffer = np.empty((1, 960), np.float32)
    state = detector.new_state()
    for window, probability in zip(audio, expected, strict=True):
        buffer[0] = window
        assert float(detector.probabilities([state], buffer)[0]) == probability


def test_no_streams_and_foreign_states(detector: FsmnDetector) -> None:
    assert detector.window_samples == 960
    assert detector.probabilities([], np.empty((0, 960), np.float32)).shape == (0,)
    with pytest.raises(TypeError):
        detector.probabilities([object()], windows(1, 1))
