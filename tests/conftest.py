"""Settings of all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No deadline for an example, nor for making one: nothing timed is asserted, and the machine may be
# busy.
settings.register_profile("funspeech", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("funspeech")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the second run of `make test`, with two API processes, leave out what would be the same
    again."""
    if os.environ.get("WORKERS", "1") == "1":
        return
    again = [item for item in items if item.get_closest_marker("own_workers")]
    config.hook.pytest_deselected(items=again)
    items[:] = [item for item in items if item not in again]
