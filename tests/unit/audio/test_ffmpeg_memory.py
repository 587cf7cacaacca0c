"""The bound on FFmpeg's allocations."""

from __future__ import annotations

from app.audio.ffmpeg_memory import MAX_ALLOCATION_BYTES, bound_allocations


def test_ffmpeg_takes_no_more_than_the_bound() -> None:
    import av
    import pytest

    assert bound_allocations()
    rate_bytes = 4
    av.AudioFrame("s32", "mono", MAX_ALLOCATION_BYTES // rate_bytes // 2)
    with pytest.raises(MemoryError):
        av.AudioFrame("s32", "mono", 2 * MAX_ALLOCATION_BYTES // rate_bytes)
