from __future__ import annotations

from pathlib import Path

import pytest

from app.core.cpus import usable_cores


@pytest.mark.parametrize(("text", "cores"), [("100000 100000\n", 1), ("50000 100000\n", 1)])
def test_a_quota_counts(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("text", ["max 100000\n", "", "99900000 100000\n"])
def test_no_quota_is_all_cores(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "nothing") >= 1
