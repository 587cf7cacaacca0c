import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio.endpoint import (
    SHORTEST_CUT_SAMPLES,
    WINDOW_SAMPLES,
    Endpoint,
    Endpointer,
    SpeechStarted,
    SpeechStopped,
)

SPEECH, WEAK, SILENCE = 0.9, 0.4, 0.05


def windows(ms: int) -> int:
    return round(ms * 16 / WINDOW_SAMPLES)


def feed(endpointer: Endpointer, *probabilities: float) -> list[Endpoint]:
    return [event for p in probabilities for event in endpointer.feed(p)]


def at(window: int) -> int:
    return window * WINDOW_SAMPLES


def run(probabilities: list[float], silence_ms: int = 800, max_ms: int = 60_000) -> list[Endpoint]:
    endpointer = Endpointer(silence_ms, max_ms)
    events = feed(endpointer, *probabilities)
    return events + endpointer.flush(at(len(probabilities)))


@pytest.mark.parametrize(("silence_ms", "sentences"), [(800, 3), (3_000, 1)])
def test_three_bursts_with_pauses_of_1500_ms(silence_ms: int, sentences: int) -> None:
    burst, pause = [SPEECH] * windows(1_000), [SILENCE] * windows(1_500)
    events = run(burst + pause + burst + pause + burst, silence_ms)
    stops = [event for event in events if isinstance(event, SpeechStopped)]
    assert len(stops) == sentences
    assert len(events) == 2 * sentences
    assert stops[0].start_sample == 0
    assert stops[-1].end_sample == at(3 * len(burst) + 2 * len(pause))


def test_positions_of_start_and_end() -> None:
    probabilities = [SILENCE] * 10 + [SPEECH] * 20 + [SILENCE] * 40
    assert run(probabilities) == [
        SpeechStarted(at(10)),
        SpeechStopped(at(10), at(30), cut=False),
    ]


def test_the_end_is_reported_after_the_silence_and_not_before() -> None:
    endpointer = Endpointer(800, 60_000)
    feed(endpointer, *[SPEECH] * 10)
    assert feed(endpointer, *[SILENCE] * 24) == []
    assert feed(endpointer, SILENCE) == [SpeechStopped(0, at(10), cut=False)]


def test_one_window_is_a_click() -> None:
    assert run(([SPEECH] + [SILENCE] * 5) * 5) == []


def test_start_with_a_hole_begins_at_the_first_window() -> None:
    endpointer = Endpointer(800, 60_000)
    assert feed(endpointer, SILENCE, SPEECH, SILENCE) == []
    assert feed(endpointer, SPEECH) == [SpeechStarted(at(1))]


def test_weak_speech_does_not_start_but_goes_on() -> None:
    assert run([WEAK] * 50) == []
    long_tail = [SPEECH] * 5 + [WEAK] * 100 + [SILENCE] * 40
    assert run(long_tail)[-1] == SpeechStopped(0, at(105), cut=False)


def test_weak_windows_after_silence_are_still_silence() -> None:
    probabilities = [SPEECH] * 5 + [SILENCE] + [WEAK] * 30
    assert run(probabilities)[-1] == SpeechStopped(0, at(5), cut=False)


def test_flush_ends_the_open_sentence_with_all_samples() -> None:
    endpointer = Endpointer(800, 60_000)
    feed(endpointer, *[SPEECH] * 6)
    assert endpointer.flush(at(6) + 200) == [SpeechStopped(0, at(6) + 200, cut=False)]
    assert endpointer.flush(at(6) + 200) == []


def test_flush_in_a_pause_ends_where_speech_ended() -> None:
    endpointer = Endpointer(800, 60_000)
    feed(endpointer, *[SPEECH] * 6, *[SILENCE] * 3)
    assert endpointer.flush(at(9)) == [SpeechStopped(0, at(6), cut=False)]


def test_flush_never_goes_beyond_the_stream() -> None:
    """The caller has filled up the last window."""
    endpointer = Endpointer(800, 60_000)
    feed(endpointer, *[SPEECH] * 6)
    assert endpointer.flush(at(6) - 100) == [SpeechStopped(0, at(6) - 100, cut=False)]


def test_flush_hears_a_start_that_was_not_confirmed() -> None:
    endpointer = Endpointer(800, 60_000)
    assert feed(endpointer, SILENCE, SILENCE, SPEECH) == []
    assert endpointer.flush(at(3) + 100) == [
        SpeechStarted(at(2)),
        SpeechStopped(at(2), at(3) + 100, cut=False),
    ]


def test_flush_of_silence_is_nothing() -> None:
    endpointer = Endpointer(800, 60_000)
    feed(endpointer, *[SILENCE] * 20)
    assert endpointer.flush(at(20)) == []
    assert Endpointer(800, 60_000).flush(0) == []


def test_long_speech_is_cut_and_goes_on_without_a_gap() -> None:
    limit_ms = 32 * 20
    events = run([SPEECH] * 50 + [SILENCE] * 40, silence_ms=200, max_ms=limit_ms)
    assert events == [
        SpeechStarted(0),
        SpeechStopped(0, at(20), cut=True),
        SpeechStarted(at(20)),
        SpeechStopped(at(20), at(40), cut=True),
        SpeechStarted(at(40)),
        SpeechStopped(at(40), at(50), cut=False),
    ]


def test_no_empty_sentence_when_speech_ends_at_the_cut() -> None:
    events = run([SPEECH] * 20 + [SILENCE] * 40, max_ms=32 * 20)
    assert events == [SpeechStarted(0), SpeechStopped(0, at(20), cut=True)]


def test_cut_in_a_pause_ends_where_speech_ended() -> None:
    events = run([SPEECH] * 10 + [SILENCE] * 40, silence_ms=3_000, max_ms=32 * 20)
    assert events == [SpeechStarted(0), SpeechStopped(0, at(10), cut=True)]


def test_silence_can_be_changed_in_an_open_sentence() -> None:
    endpointer = Endpointer(3_000, 60_000)
    feed(endpointer, *[SPEECH] * 10, *[SILENCE] * 30)
    endpointer.configure(500)
    assert feed(endpointer, SILENCE) == [SpeechStopped(0, at(10), cut=False)]


@given(
    st.lists(st.floats(0, 1), max_size=300),
    st.integers(0, 2_000),
    st.integers(1, 5_000),
    st.integers(0, 159),
    st.sampled_from([160, WINDOW_SAMPLES, 960]),
)
def test_events_alternate_and_times_ascend(
    probabilities: list[float], silence_ms: int, max_ms: int, extra: int, window: int
) -> None:
    endpointer = Endpointer(silence_ms, max_ms, window)
    total = len(probabilities) * window + extra
    events = feed(endpointer, *probabilities) + endpointer.flush(total)
    starts, stops = events[::2], events[1::2]
    assert len(starts) == len(stops)
    before = 0
    shortest_cut = {160: 11 * 160, WINDOW_SAMPLES: SHORTEST_CUT_SAMPLES, 960: 4 * 960}[window]
    longest = max(max_ms * 16, shortest_cut)
    for start, stop in zip(starts, stops, strict=True):
        assert isinstance(start, SpeechStarted)
        assert isinstance(stop, SpeechStopped)
        assert before <= start.sample == stop.start_sample < stop.end_sample <= total
        assert stop.end_sample - stop.start_sample <= longest
        before = stop.end_sample


def test_with_short_windows_a_click_is_still_no_sentence() -> None:
    """It takes the same time of speech, 64 ms, not the same number of windows."""
    endpointer = Endpointer(800, 60_000, 160)
    click = [SPEECH] * 6 + [SILENCE] * 4
    assert feed(endpointer, *click * 3) == []
    assert feed(endpointer, *[SPEECH] * 7) == [SpeechStarted(30 * 160)]


def heard(probability: float, noise_threshold: float) -> bool:
    """Whether a second at this probability is a sentence."""
    endpointer = Endpointer(800, 60_000, noise_threshold=noise_threshold)
    return bool(feed(endpointer, *[probability] * 30))


def test_a_noise_threshold_moves_what_counts_as_speech() -> None:
    assert (heard(0.5, 0.0), heard(0.49, 0.0)) == (True, False)
    assert (heard(0.7, 0.5), heard(0.69, 0.5)) == (True, False)
    assert (heard(0.9, 1.0), heard(0.89, 1.0)) == (True, False)
    assert (heard(0.3, -0.5), heard(0.29, -0.5)) == (True, False)
    assert (heard(0.11, -1.0), heard(0.09, -1.0)) == (True, False)


@pytest.mark.parametrize(
    ("noise_threshold", "goes_on", "ends"),
    [(0.0, 0.35, 0.34), (1.0, 0.76, 0.74), (-1.0, 0.05, 0.04), (-0.5, 0.16, 0.14)],
)
def test_a_noise_threshold_moves_what_goes_on_as_speech(
    noise_threshold: float, goes_on: float, ends: float
) -> None:
    for probability, stops in ((goes_on, False), (ends, True)):
        endpointer = Endpointer(800, 60_000, noise_threshold=noise_threshold)
        feed(endpointer, *[0.99] * 10)
        events = feed(endpointer, *[probability] * windows(1_000))
        assert [isinstance(event, SpeechStopped) for event in events] == ([True] if stops else [])


@given(st.floats(-1, 1))
def test_silence_and_certain_speech_are_what_they_are_at_any_threshold(threshold: float) -> None:
    assert not heard(0.0, threshold)
    assert heard(1.0, threshold)
