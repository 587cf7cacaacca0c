"""How NLS writes speed, pitch and volume (nls-protocol.md 4.1), for parameters and for SSML."""

from __future__ import annotations


def rate_factor(value: int) -> float:
    """NLS speech or pitch rate to a factor: -500 is 0.5, 0 is 1, 500 is 2; beyond is clamped."""
    value = min(max(value, -500), 500)
    return 1 / (1 - (0.002 if value < 0 else 0.001) * value)


def volume_factor(value: int) -> float:
    """NLS volume to a factor: 0 is silence, 50 is 1, 100 is 2; beyond is clamped."""
    return min(max(value, 0), 100) / 50
