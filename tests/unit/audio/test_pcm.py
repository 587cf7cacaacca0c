import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.audio.pcm import EMPTY, joined, to_float, to_int16


@given(st.lists(st.integers(-32768, 32767)))
def test_there_and_back_is_exact(values: list[int]) -> None:
    samples = np.array(values, np.int16)
    back = to_int16(to_float(samples))
    assert back.dtype == np.int16
    assert np.array_equal(back, samples)


def test_float_range() -> None:
    floats = to_float(np.array([-32768, 0, 32767], np.int16))
    assert floats.dtype == np.float32
    assert floats[0] == -1.0
    assert floats[1] == 0.0
    assert floats[2] < 1.0


def test_out_of_range_is_clipped_and_not_wrapped() -> None:
    loud = np.array([-2.0, 2.0, 1.0], np.float32)
    assert to_int16(loud).tolist() == [-32768, 32767, 32767]


def test_rounds_to_nearest() -> None:
    near = np.array([0.6, -0.6, 0.4], np.float32) / np.float32(32768)
    assert to_int16(near).tolist() == [1, -1, 0]


def test_empty_is_shared_and_safe() -> None:
    assert EMPTY.size == 0
    assert not EMPTY.flags.writeable


def test_joined() -> None:
    assert joined([]) is EMPTY
    assert joined([EMPTY, EMPTY]) is EMPTY
    one = np.ones(3, np.int16)
    assert joined([EMPTY, one]) is one
    assert joined([one, EMPTY, one]).tolist() == [1] * 6
