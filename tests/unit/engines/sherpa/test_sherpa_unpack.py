"""Archives: the named files come out, and nothing else has any effect."""

from __future__ import annotations

import bz2
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from app.engines.sherpa.unpack import UnpackFailed, unpack
from tests.support.model_mirror import archived

FILES = {"encoder.onnx": os.urandom(300_000), "tokens.txt": b"a 0\n", "README.md": b"hello"}
WANTED = ("encoder.onnx", "tokens.txt")


def unpacked(folder: Path, archive: bytes, *, most_bytes: int = 10**7) -> frozenset[str]:
    (folder / "x.tar.bz2").write_bytes(archive)
    told: list[int] = []
    try:
        return unpack(
            folder / "x.tar.bz2", folder, WANTED, most_bytes=most_bytes, advance=told.append
        )
    finally:
        (folder / "x.tar.bz2").unlink()
        assert told == sorted(told) and all(done <= len(archive) for done in told)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def member(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def test_only_what_is_wanted_comes_out(tmp_path: Path) -> None:
    assert unpacked(tmp_path, archived("model", FILES)) == set(WANTED)
    assert names(tmp_path) == set(WANTED)
    for name in WANTED:
        assert (tmp_path / name).read_bytes() == FILES[name]
        assert (tmp_path / name).stat().st_mode & 0o111 == 0


def test_a_leading_dot_does_no_harm(tmp_path: Path) -> None:
    assert unpacked(tmp_path, archived("./model", FILES)) == set(WANTED)


def test_what_is_deeper_or_outside_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    for top in ("model/deeper", "..", "../..", "/", "model/../.."):
        assert unpacked(folder, archived(top, {"tokens.txt": b"x"})) <= {"tokens.txt"}
    assert names(tmp_path) == {"inner"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_what_is_no_plain_file_is_not_taken(tmp_path: Path, kind: bytes) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    folder = tmp_path / "inner"
    folder.mkdir()
    odd = member("model/tokens.txt", kind, str(outside))
    assert unpacked(folder, archived("model", {}, odd)) == set()
    assert unpacked(folder, archived("model", FILES, odd)) == set(WANTED)
    assert (folder / "tokens.txt").read_bytes() == FILES["tokens.txt"]
    assert outside.read_bytes() == b"secret"


def test_the_first_of_two_counts(tmp_path: Path) -> None:
    info = tarfile.TarInfo("model/tokens.txt")
    info.size = 5
    unpacked(tmp_path, archived("model", FILES, (info, b"first")))
    assert (tmp_path / "tokens.txt").read_bytes() == b"first"


def test_it_is_read_only_as_far_as_it_takes(tmp_path: Path) -> None:
    archive = archived("model", {**FILES, "more.onnx": os.urandom(3_000_000)})
    assert unpacked(tmp_path, archive[: len(archive) // 2]) == set(WANTED)


@pytest.mark.parametrize(
    "archive", [b"", b"<html>no</html>" * 100, b"BZh9" + b"x" * 1000, archived("m", FILES)[:1000]]
)
def test_what_is_no_archive(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(UnpackFailed, match="damaged, or no archive") as raised:
        unpacked(tmp_path, archive)
    assert "\n" not in str(raised.value)
    assert names(tmp_path) == set()


def test_more_than_it_may_have(tmp_path: Path) -> None:
    with pytest.raises(UnpackFailed, match="more than 100,000 bytes"):
        unpacked(tmp_path, archived("model", FILES), most_bytes=100_000)
    assert names(tmp_path) == set()


# Headers that are made to do harm


def announced(kind: bytes, size: int, name: str = "model/x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_would_fill_the_memory(tmp_path: Path, kind: bytes) -> None:
    archive = bz2.compress(announced(kind, 2**30) + bytes(10**6))
    with pytest.raises(UnpackFailed, match="a header of 1,073,741,824 bytes"):
        unpacked(tmp_path, archive)


def test_what_is_tiny_packed_is_not_unpacked_at_once(tmp_path: Path) -> None:
    archive = bz2.compress(announced(tarfile.XHDTYPE, 2**30) + bytes(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(UnpackFailed):
            unpacked(tmp_path, archive)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_headers_of_headers(tmp_path: Path) -> None:
    with pytest.raises(UnpackFailed, match="damaged, or no archive"):
        unpacked(tmp_path, bz2.compress(announced(tarfile.GNUTYPE_LONGNAME, 0) * 5000))


def test_very_many_parts(tmp_path: Path) -> None:
    with pytest.raises(UnpackFailed, match="more than 10,000 parts"):
        unpacked(tmp_path, bz2.compress(announced(tarfile.REGTYPE, 0) * 10_001))


@pytest.mark.parametrize("size", [-1, -(10**6)])
def test_sizes_below_nothing(tmp_path: Path, size: int) -> None:
    with pytest.raises(UnpackFailed):
        unpacked(tmp_path, bz2.compress(announced(tarfile.REGTYPE, size)) + b"\0" * 1024)


@pytest.mark.parametrize("text", ["abc", "9" * 5000])
@pytest.mark.parametrize("key", ["GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.map"])
def test_numbers_that_are_none(tmp_path: Path, key: str, text: str) -> None:
    info = tarfile.TarInfo("model/tokens.txt")
    info.pax_headers = {key: text}
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:bz2", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(UnpackFailed) as raised:
        unpacked(tmp_path, target.getvalue())
    assert len(str(raised.value)) < 200


def test_a_disk_that_cannot_be_written_is_not_the_archive_s_fault(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        unpacked(tmp_path, archived("model", FILES))
