from __future__ import annotations

import pytest

from app.core.manner import rate_factor, volume_factor


@pytest.mark.parametrize(
    ("value", "factor"),
    [(-500, 0.5), (-250, 1 / 1.5), (0, 1), (250, 1 / 0.75), (500, 2), (-9999, 0.5), (9999, 2)],
)
def test_rate_factor(value: int, factor: float) -> None:
    assert rate_factor(value) == pytest.approx(factor)


@pytest.mark.parametrize(("value", "factor"), [(0, 0), (50, 1), (100, 2), (-1, 0), (101, 2)])
def test_volume_factor(value: int, factor: float) -> None:
    assert volume_factor(value) == factor
