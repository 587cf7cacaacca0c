"""A bound on every single piece of memory that FFmpeg takes, not on all of them
together: what a file makes FFmpeg take in small pieces is bounded by its budget (``budget.py``).

A few bytes of an MP4 file can announce millions of samples, and FFmpeg makes room for the index of
all of them before it looks for the first: a file of 16 KB took 3.2 GB and five seconds (measured).
FFmpeg has a limit for that (``av_max_alloc``, libavutil/mem.h), but PyAV offers no way to it.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Final

MAX_ALLOCATION_BYTES: Final = 32 * 1024 * 1024
"""Enough for the index of 1.4 million packets: 8 hours of AAC at 48 kHz. FFmpeg's own default is
2 GiB."""


@functools.cache
def bound_allocations() -> bool:
    """Let FFmpeg take at most :data:`MAX_ALLOCATION_BYTES` at once, in this process, from now on;
    what needs more fails with its out-of-memory error.

    False if this build of PyAV does not let FFmpeg's symbols be found: then FFmpeg's default is in
    force.
    """
    import av._core

    try:
        # Looks the symbol up in the libraries that the extension module is linked with, too.
        set_limit = ctypes.CDLL(av._core.__file__).av_max_alloc
    except (OSError, AttributeError):
        return False
    set_limit.argtypes = [ctypes.c_size_t]
    set_limit.restype = None
    set_limit(MAX_ALLOCATION_BYTES)
    return True
