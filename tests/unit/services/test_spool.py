"""Recordings on disk: how much of them, and that nothing stays."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.errors import AudioTooLong, EngineFailed, InvalidRequest, RecordingsFull
from app.services.fetch import FetchLimits
from app.services.spool import Spool

LIMITS = FetchLimits(max_bytes=600, timeout_s=10.0, allow_private=True)


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


def left(spool: Spool, folder: Path) -> tuple[int, list[Path]]:
    return spool.used, list(folder.iterdir())


async def site(answer: bytes) -> tuple[asyncio.Server, str]:
    """A web server that answers everything with ``answer``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.wav"


async def test_a_body_is_a_private_file_for_as_long_as_the_block(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    async with spool.kept(pieces(3, 5)) as path:
        assert path.read_bytes() == bytes(8)
        assert path.parent == tmp_path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert spool.used == 8
    assert left(spool, tmp_path) == (0, [])


async def test_an_empty_body_is_an_empty_file(tmp_path: Path) -> None:
    async with Spool(tmp_path, 1_000).kept(pieces()) as path:
        assert path.read_bytes() == b""


async def test_all_files_share_the_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    async with spool.kept(pieces(600)):
        with pytest.raises(RecordingsFull):
            async with spool.kept(pieces(300, 101)):
                raise AssertionError("it does not fit")
        assert spool.used == 600
        async with spool.kept(pieces(300, 100)):
            assert spool.used == 1_000
    assert left(spool, tmp_path) == (0, [])


@pytest.mark.parametrize("where", ["body", "block"])
async def test_nothing_stays_of_one_that_fails(tmp_path: Path, where: str) -> None:
    spool = Spool(tmp_path, 1_000)

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(100)
        if where == "body":
            raise ValueError(where)

    with pytest.raises(ValueError, match=where):
        async with spool.kept(broken()):
            raise ValueError("block")
    assert left(spool, tmp_path) == (0, [])


async def test_nothing_stays_of_one_that_is_cancelled(tmp_path: Path) -> None:
    spool, arrived = Spool(tmp_path, 1_000), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(100)
        arrived.set()
        await asyncio.Event().wait()

    async def keep() -> None:
        async with spool.kept(slow()):
            raise AssertionError("it never ends")

    keeping = asyncio.create_task(keep())
    await arrived.wait()
    assert spool.used == 100
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert left(spool, tmp_path) == (0, [])


async def test_a_disk_that_fails_is_our_fault(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "away", 1_000)
    with pytest.raises(EngineFailed) as error:
        async with spool.kept(pieces(1)):
            raise AssertionError("there is no folder")
    assert "away" not in error.value.text
    server, url = await site(b"audio")
    async with server:
        with pytest.raises(EngineFailed):
            async with spool.fetched(url, LIMITS):
                raise AssertionError("there is no folder")
    assert spool.used == 0


async def test_what_a_url_gives(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    server, url = await site(b"audio")
    async with server:
        async with spool.fetched(url, LIMITS) as path:
            assert path.read_bytes() == b"audio"
            # Nobody knows how much will come.
            assert spool.used == 600
            with pytest.raises(RecordingsFull):
                async with spool.fetched(url, LIMITS):
                    raise AssertionError("it may not fit")
        assert left(spool, tmp_path) == (0, [])


async def test_a_url_that_gives_nothing_usable(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    server, url = await site(bytes(601))
    async with server:
        with pytest.raises(AudioTooLong):
            async with spool.fetched(url, LIMITS):
                raise AssertionError("it is too large")
    with pytest.raises(InvalidRequest):
        async with spool.fetched("ftp://host/a.wav", LIMITS):
            raise AssertionError("no such protocol")
    assert left(spool, tmp_path) == (0, [])
