"""Paths of the settings: the home directory, and names that no file can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.paths import expanded


def test_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert expanded("~/models") == Path("/somewhere/models")
    assert expanded("models/~") == Path("models/~")


def test_the_longest_names_pass() -> None:
    path = "/" + "/".join(["é" * 127 + "x"] * 15)
    assert expanded(path) == Path(path)


@pytest.mark.parametrize(
    "text, says",
    [
        ("~nobody-of-this-name/x", "~nobody-of-this-name is no home directory"),
        ("/x/" + "é" * 128, "longer than one can be"),
        ("/" + "/".join(["x" * 200] * 21), "longer than one can be"),
        ("a\0b", "without a NUL"),
    ],
)
def test_what_no_file_can_be(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        expanded(text)
