import subprocess
import sys

import numpy as np
import pytest

from app.audio import prosody
from app.audio.pcm import Int16
from app.audio.prosody import Prosody, apply_volume, needed
from app.core.manner import rate_factor, volume_factor

RATE = 22_050


def tone(seconds: float = 2.0, hz: float = 220.0, level: float = 12_000, rate: int = RATE) -> Int16:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)).astype("<i2")


def run(chain: Prosody, samples: Int16, step: int = 1_000) -> Int16:
    out = [chain.feed(samples[i : i + step]) for i in range(0, samples.size, step)]
    return np.concatenate([*out, chain.flush()])


def frequency(samples: Int16, rate: int = RATE) -> float:
    inner = samples[rate // 8 : -rate // 8]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(inner.size), 1 << 19))
    return float(np.argmax(spectrum)) * rate / (1 << 19)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("pitch", [0.5, 0.84, 1.0, 1.19, 2.0])
def test_duration_and_pitch_are_what_was_asked_for(speed: float, pitch: float) -> None:
    out = run(Prosody(RATE, speed, pitch, 1.0), tone())
    assert out.dtype == np.int16
    assert out.size == round(2 * RATE / speed)
    assert frequency(out) == pytest.approx(220 * pitch, abs=2)


def voice(rate: int, hz: float = 120.0, level: float = 16_000, seconds: float = 2.0) -> Int16:
    """A low voice: many harmonics."""
    t = np.arange(round(rate * seconds)) / rate
    wave = sum(np.sin(2 * np.pi * hz * k * t + k) / k for k in range(1, 20) if hz * k < rate / 2)
    scaled: Int16 = (level * wave / np.abs(wave).max()).astype(np.int16)
    return scaled


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("speech_rate", [-500, 150, 500])
@pytest.mark.parametrize("pitch_rate", [-500, 0, 300, 500])
def test_nls_rates_of_a_voice(rate: int, speech_rate: int, pitch_rate: int) -> None:
    """Within 1 % of the duration and 2 Hz of the pitch."""
    speed, pitch = rate_factor(speech_rate), rate_factor(pitch_rate)
    out = run(Prosody(rate, speed, pitch, 1.0), voice(rate), rate // 10)
    assert out.size / rate == pytest.approx(2 / speed, rel=0.01)
    inner = out[rate // 8 : -rate // 8]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(inner.size), 1 << 19))
    hz = np.arange(spectrum.size) * rate / (1 << 19)
    near = (hz > 0.8 * 120 * pitch) & (hz < 1.2 * 120 * pitch)
    assert float(hz[near][np.argmax(spectrum[near])]) == pytest.approx(120 * pitch, abs=2)


@pytest.mark.parametrize(
    "factors",
    [(1.3, 1.0, 1.0), (1.0, 1.2, 1.0), (0.7, 0.8, 2.0), (1.0, 1.0, 2.0), (1.0, 1.0, 0.3)],
)
def test_random_pieces_are_the_whole(factors: tuple[float, float, float]) -> None:
    samples = voice(RATE, level=30_000)
    whole = run(Prosody(RATE, *factors), samples, samples.size)
    rng = np.random.default_rng(4)
    chain, parts, start = Prosody(RATE, *factors), [], 0
    while start < samples.size:
        size = int(rng.integers(1, RATE // 5))
        parts.append(chain.feed(samples[start : start + size]))
        start += size
    assert np.array_equal(np.concatenate([*parts, chain.flush()]), whole)


@pytest.mark.parametrize("volume", [0, 1, 10, 25, 49, 50, 51, 60, 75, 90, 99, 100])
@pytest.mark.parametrize("level", [9_000, 32_600])
def test_no_nls_volume_clips(volume: int, level: int) -> None:
    """What was below full scale stays there, and what fits is scaled exactly."""
    factor = volume_factor(volume)
    samples = voice(RATE, level=level)
    out = run(Prosody(RATE, 1.0, 1.0, factor), samples)
    peak = int(np.abs(out.astype(int)).max())
    assert peak <= 32_600
    assert out.size == samples.size
    if level * factor < 30_000:
        assert np.abs(out - samples * factor).max() <= 2


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_rates(rate: int) -> None:
    out = run(Prosody(rate, 1.5, 1.2, 1.0), tone(rate=rate))
    assert out.size == round(2 * rate / 1.5)
    assert frequency(out, rate) == pytest.approx(264, abs=2)


def test_the_end_is_not_lost() -> None:
    """The tone goes on to its last tenth of a second, and does not fade into padding."""
    out = run(Prosody(RATE, 0.5, 2.0, 1.0), tone())
    tail = out[-RATE // 10 :].astype(float)
    assert np.sqrt(np.mean(tail**2)) > 6_000


def test_speed_alone_keeps_the_level() -> None:
    out = run(Prosody(RATE, 1.25, 1.0, 1.0), tone())
    assert np.abs(out[1_000:-1_000].astype(int)).max() == pytest.approx(12_000, rel=0.05)


@pytest.mark.parametrize("volume", [0.0, 0.5, 0.9])
def test_lower_volume_is_exact(volume: float) -> None:
    samples = tone()
    out = run(Prosody(RATE, 1.0, 1.0, volume), samples)
    assert np.array_equal(out, np.rint(samples * np.float32(volume)))
    assert np.array_equal(out, apply_volume(samples, volume))


def test_higher_volume_of_a_quiet_signal_is_a_factor() -> None:
    samples = tone(level=3_000)
    out = run(Prosody(RATE, 1.0, 1.0, 2.0), samples)
    assert out.size == samples.size
    assert np.abs(out.astype(int) - 2 * samples.astype(int)).max() <= 2


@pytest.mark.parametrize("shape", ["sine", "square", "noise", "bursts"])
def test_volume_2_of_a_full_scale_signal_never_clips(shape: str) -> None:
    times = np.arange(RATE)
    square = np.where(times // 50 % 2, 32_767, -32_768)
    samples = {
        "sine": tone(1.0, level=32_767),
        "square": square.astype(np.int16),
        "noise": np.random.default_rng(5).integers(-32_768, 32_768, RATE).astype(np.int16),
        "bursts": np.where(times // 800 % 7 == 0, square, square // 300).astype(np.int16),
    }[shape]
    out = run(Prosody(RATE, 1.0, 1.0, 2.0), samples)
    assert 20_000 < np.abs(out.astype(int)).max() < 32_700


def test_volume_and_speed_together() -> None:
    out = run(Prosody(RATE, 2.0, 1.0, 0.5), tone())
    assert out.size == RATE
    assert np.abs(out[1_000:-1_000].astype(int)).max() == pytest.approx(6_000, rel=0.05)


def test_audio_comes_out_before_the_end() -> None:
    chain = Prosody(RATE, 0.8, 1.1, 1.5)
    first = sum(chain.feed(tone(0.02)).size for _ in range(10))
    assert first > 0


def test_one_sample_and_none() -> None:
    assert run(Prosody(RATE, 0.5, 1.0, 1.0), np.ones(1, np.int16)).size == 2
    assert run(Prosody(RATE, 0.5, 1.0, 1.0), np.ones(0, np.int16)).size == 0


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1.0, 1.0, 1.0), False),
        ((1.0005, 1.0, 1.0), False),
        ((1.01, 1.0, 1.0), True),
        ((1.0, 0.9, 1.0), True),
        ((1.0, 1.0, 0.0), True),
    ],
)
def test_needed(factors: tuple[float, float, float], expected: bool) -> None:
    assert needed(*factors) is expected


@pytest.mark.parametrize(
    "factors", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -0.1), (float("nan"), 1.0, 1.0)]
)
def test_impossible_factors(factors: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError):
        Prosody(RATE, *factors)


def test_pyav_is_not_imported_before_it_is_used() -> None:
    code = (
        f"import sys; from {prosody.__name__} import Prosody; import numpy as np;"
        "Prosody(16000, 1.0, 1.0, 0.5).feed(np.zeros(9, np.int16)); sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
