"""The streaming Paraformers with random weights that the benchmarks use, for tests."""

from __future__ import annotations

from benchmarks.random_paraformer import FULL, SMALL, Size, noise, token_names, write_streaming

__all__ = ["FULL", "SMALL", "Size", "noise", "token_names", "write_streaming"]
