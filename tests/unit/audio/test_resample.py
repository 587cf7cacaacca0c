import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audio.pcm import Int16
from app.audio.resample import Quality, Resampler

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


def tone(rate: int, seconds: float, hz: float = 440.0) -> Int16:
    times = np.arange(round(rate * seconds)) / rate
    return (10_000 * np.sin(2 * np.pi * hz * times)).astype(np.int16)


def run(resampler: Resampler, samples: Int16, step: int) -> Int16:
    out = [resampler.feed(samples[i : i + step]) for i in range(0, samples.size, step)]
    return np.concatenate([*out, resampler.flush()])


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(0, 5_000),
    step=st.integers(1, 3_000),
    in_rate=st.sampled_from(RATES),
    out_rate=st.sampled_from(RATES),
    quality=st.sampled_from(["LQ", "HQ"]),
)
def test_length_is_exact(
    length: int, step: int, in_rate: int, out_rate: int, quality: Quality
) -> None:
    samples = np.full(length, 1_000, np.int16)
    out = run(Resampler(in_rate, out_rate, quality), samples, step)
    assert out.dtype == np.int16
    assert out.size == round(length * out_rate / in_rate)


@settings(max_examples=25, deadline=None)
@given(step=st.integers(1, 3_000), in_rate=st.sampled_from([8_000, 22_050, 48_000]))
def test_result_does_not_depend_on_the_split(step: int, in_rate: int) -> None:
    samples = np.random.default_rng(1).integers(-9_000, 9_000, 6_000).astype(np.int16)
    whole = run(Resampler(in_rate, 16_000), samples, samples.size)
    assert np.array_equal(run(Resampler(in_rate, 16_000), samples, step), whole)


@pytest.mark.parametrize("out_rate", RATES)
@pytest.mark.parametrize("in_rate", RATES)
def test_random_pieces_of_a_sine_are_the_whole_and_the_ideal_one(
    in_rate: int, out_rate: int
) -> None:
    """The same samples, however they are cut; and at most 2 steps of int16 from the ideal sine,
    but for the first and last 100 ms."""
    t = np.arange(2 * in_rate) / in_rate
    samples = np.rint(20_000 * np.sin(2 * np.pi * 1_000 * t)).astype(np.int16)
    whole = run(Resampler(in_rate, out_rate), samples, samples.size)
    rng = np.random.default_rng(in_rate + out_rate)
    for longest in (50, in_rate // 5):
        resampler, parts, start = Resampler(in_rate, out_rate), [], 0
        while start < samples.size:
            size = int(rng.integers(1, longest))
            parts.append(resampler.feed(samples[start : start + size]))
            start += size
        assert np.array_equal(np.concatenate([*parts, resampler.flush()]), whole)
    assert whole.size == 2 * out_rate
    ideal = 20_000 * np.sin(2 * np.pi * 1_000 * np.arange(whole.size) / out_rate)
    inner = slice(out_rate // 10, -out_rate // 10)
    assert np.abs(whole - ideal)[inner].max() <= 2


@pytest.mark.parametrize("quality", ["LQ", "HQ"])
@pytest.mark.parametrize(("in_rate", "out_rate"), [(8_000, 16_000), (48_000, 16_000)])
def test_a_tone_stays_the_same_tone(in_rate: int, out_rate: int, quality: Quality) -> None:
    out = run(Resampler(in_rate, out_rate, quality), tone(in_rate, 1.0), in_rate // 10)
    # The first and last 20 ms ring, because the tone begins and ends at once.
    inner = slice(out_rate // 50, -out_rate // 50)
    expected = tone(out_rate, 1.0)
    assert np.abs(out[inner].astype(int) - expected[inner]).max() <= 20


def test_frequencies_above_the_new_band_are_removed() -> None:
    out = run(Resampler(48_000, 16_000), tone(48_000, 1.0, 11_000.0), 4_800)
    assert np.abs(out[1_000:-1_000]).max() <= 10


def test_silence_stays_silence() -> None:
    out = run(Resampler(24_000, 16_000), np.zeros(24_000, np.int16), 2_400)
    assert not out.any()


def test_full_scale_does_not_wrap() -> None:
    square = np.where(np.arange(8_000) // 40 % 2, 32_767, -32_768).astype(np.int16)
    out = run(Resampler(8_000, 16_000), square, 800)
    positive = out[200:-200] >= 0
    assert np.count_nonzero(np.diff(positive)) == pytest.approx(8_000 / 40, abs=10)


def test_equal_rates_pass_the_input_on() -> None:
    samples = tone(16_000, 0.1)
    resampler = Resampler(16_000, 16_000)
    assert resampler.feed(samples) is samples
    assert resampler.flush().size == 0


def test_a_second_stream_after_flush_is_a_fresh_one() -> None:
    resampler = Resampler(8_000, 16_000)
    first = run(resampler, tone(8_000, 0.3), 500)
    assert np.array_equal(run(resampler, tone(8_000, 0.3), 500), first)


def test_flush_without_input() -> None:
    assert Resampler(8_000, 16_000).flush().size == 0
