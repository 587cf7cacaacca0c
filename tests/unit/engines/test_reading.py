"""What is taken for a file of a model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.engines.reading import check_file, read_bytes, size_of


def test_a_file_and_a_link_to_one(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(path)
    for each in (path, tmp_path / "link"):
        assert size_of(each) == 5
        assert read_bytes(each, 5) == b"12345"
        check_file(each)


def test_what_is_larger_than_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123456")
    with pytest.raises(ValueError, match="more than 5 bytes"):
        read_bytes(tmp_path / "file", 5)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for ever
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        assert size_of(path) is None
        with pytest.raises(ValueError, match="no plain file"):
            read_bytes(path, 5)
    for name in ("absent", "loop", "x" * 300, "nul\0"):
        assert size_of(tmp_path / name) is None
    with pytest.raises(FileNotFoundError):
        check_file(tmp_path / "absent")


def test_what_git_lfs_leaves(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        check_file(tmp_path / "file")
