"""Settings of all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline for an example, nor for making one: nothing timed is asserted, and the machine may be
# busy.
settings.register_profile("funspeech", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("funspeech")
