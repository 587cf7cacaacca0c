"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline for an example: nothing timed is asserted, and the machine may be busy.
settings.register_profile("funspeech", deadline=None)
settings.load_profile("funspeech")
