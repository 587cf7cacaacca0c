from __future__ import annotations

import pytest

from app.engines.sensevoice_tags import Tags, read_tags


@pytest.mark.parametrize(
    ("names", "tags"),
    [
        ((), Tags()),
        (("zh", "HAPPY", "Speech", "withitn"), Tags("zh", "happy")),
        (("yue", "EMO_UNKNOWN", "BGM", "woitn"), Tags("yue", None, ("music",))),
        (
            ("en", "SAD", "Laughter", "Applause", "Laughter"),
            Tags("en", "sad", ("laughter", "applause")),
        ),
        (("nospeech", "Event_UNK"), Tags()),
        (("zh", "en", "HAPPY", "SAD"), Tags("zh", "happy")),
    ],
)
def test_tags(names: tuple[str, ...], tags: Tags) -> None:
    assert read_tags(names) == tags
