"""What has no effect at the REST doors is taken with any value (``app/nls/ignored.py``)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.nls.ignored import IGNORED

DOORS = {"/stream/v1/asr": {}, "/stream/v1/FlashRecognizer": {"format": "wav"}}
"""With what a request cannot do without."""


@pytest.mark.parametrize(
    "parameter",
    [
        "/stream/v1/asr.enable_voice_detection",
        "/stream/v1/FlashRecognizer.enable_timestamp_alignment",
    ],
)
async def test_ignored_parameters(world: Any, parameter: str) -> None:
    path, name = parameter.split(".")
    assert IGNORED[path][name]
    needed = DOORS[path]
    async with world.client() as client:
        for query in [{}, *({name: value} for value in ("", "true", "false", "?", "-1"))]:
            answer = await client.post(path, params={**needed, **query}, content=b"x" * 512)
            assert answer.status_code == 200, answer.text
    plain, *others = [
        msgspec.structs.replace(request, task_id="") for request in world.recognition.requests
    ]
    assert len(others) == 5
    assert all(other == plain for other in others)


def test_every_ignored_parameter_has_a_test() -> None:
    (mark,) = test_ignored_parameters.pytestmark
    listed = {f"{path}.{name}" for path in DOORS for name in IGNORED[path]}
    assert listed == set(mark.args[1])
