"""What counts as a manifest, and what is said about the rest."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from app.cli.evaluate_manifest import BadManifest, Clip, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With sound files a.wav and b.mp3 (they are not opened here)."""
    for name in ("a.wav", "b.mp3"):
        (tmp_path / name).write_bytes(b"sound")
    return tmp_path


def lines(path: Path, *entries: object) -> Path:
    text = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in entries)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_json_lines(folder: Path) -> None:
    path = lines(
        folder / "m.jsonl",
        {"audio": "a.wav", "text": "你好\u2028世界", "id": "first"},
        "",
        {"audio": str(folder / "b.mp3"), "speaker": 7},
    )
    found = read_manifest(path)
    assert found.clips == [
        Clip("first", folder / "a.wav", "你好\u2028世界"),
        Clip(str(folder / "b.mp3"), folder / "b.mp3", None),
    ]
    assert found.faults == []


def test_fields_of_other_tools(folder: Path) -> None:
    path = lines(
        folder / "m.jsonl",
        {"key": 1, "source": "a.wav", "target": "hello"},
        {"audio_filepath": "b.mp3", "duration": 1.5, "text": ""},
    )
    assert read_manifest(path).clips == [
        Clip("1", folder / "a.wav", "hello"),
        Clip("b.mp3", folder / "b.mp3", ""),
    ]


def test_bad_lines_are_named_and_the_others_go_on(folder: Path) -> None:
    path = lines(
        folder / "m.jsonl",
        "oops",
        "[1]",
        {"text": "no sound"},
        {"audio": ["a.wav"]},
        {"audio": "gone.wav"},
        {"audio": "a.wav"},
        {"audio": "a.wav"},
    )
    found = read_manifest(path)
    assert [clip.path.name for clip in found.clips] == ["a.wav"]
    assert list(found.faults) == [
        f"{path} line 1: not a JSON object",
        f"{path} line 2: not a JSON object",
        f"{path} line 3: 'audio' is missing",
        f"{path} line 4: 'audio' must be a text",
        f"{folder / 'gone.wav'}: no such file",
        "a.wav occurs twice; the first one counts",
    ]


@pytest.mark.parametrize("labels", ["text", "text.txt", None])
def test_two_columns(folder: Path, labels: str | None) -> None:
    path = lines(
        folder / "wav.scp", "one a.wav", f"two\t{folder}/b.mp3", "three", "four sox a.wav |"
    )
    if labels:
        lines(folder / labels, "one 今天 天气", "other x", "two")
    found = read_manifest(path)
    texts = ("今天 天气", "") if labels else (None, None)
    assert found.clips == [
        Clip("one", folder / "a.wav", texts[0]),
        Clip("two", folder / "b.mp3", texts[1]),
    ]
    assert list(found.faults) == [
        f"{path} line 3: not 'ID PATH'",
        f"{path} line 4: a command; only files are read",
    ]
    assert read_manifest(folder) == found


def test_a_folder(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "C.WAV").write_bytes(b"sound")
    (folder / "notes.html").write_text("no sound")
    (folder / "a.txt").write_text(" 你好 \n", encoding="utf-8")
    (folder / "b.txt").write_bytes(b"\xff\xfe")
    found = read_manifest(folder)
    assert found.clips == [
        Clip("a.wav", folder / "a.wav", "你好"),
        Clip("deep/C.WAV", folder / "deep" / "C.WAV", None),
    ]
    assert list(found.faults) == [f"{folder / 'b.txt'}: not UTF-8 text"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.jsonl", None, "No such file"),
        ("empty.jsonl", b"\n\n", "has no clips"),
        ("m.jsonl", b"RIFF\xff\xff", "not UTF-8"),
        ("m.jsonl", b"oops", "line 1: not a JSON object"),
        ("wav.scp", b"", "has no clips"),
    ],
)
def test_nothing_to_stream(name: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadManifest, match=reason):
        read_manifest(path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="has no clips"):
        read_manifest(tmp_path)


def test_names_and_lines_that_nothing_can_be_do_not_stop_the_others(folder: Path) -> None:
    path = lines(
        folder / "m.jsonl",
        {"audio": "x" * 300 + ".wav"},
        {"audio": "nul\0.wav"},
        '{"audio": "a.wav", "more": ' + "[" * 100_000,
        '{"audio": "a.wav", "id": ' + "9" * 5000 + "}",
        {"audio": "a.wav"},
    )
    found = read_manifest(path)
    assert found.clips == [Clip("a.wav", folder / "a.wav", None)]
    assert len(found.faults) == 4


def test_a_label_that_cannot_be_read_does_not_stop_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.txt").write_text("hello")

    def refused(path: Path, encoding: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    found = read_manifest(folder)
    assert [clip.id for clip in found.clips] == ["b.mp3"]
    assert list(found.faults) == [f"{folder / 'a.txt'}: Permission denied"]
