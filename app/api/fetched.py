"""Audio that a request names by its URL."""

from __future__ import annotations

import asyncio

from app.api.doors import Doors
from app.core.errors import BadAudio
from app.services.fetch import fetch


async def fetched(url: str, doors: Doors) -> bytes:
    """The audio at ``url``, never empty; nothing of it is left on the disk.

    Raises:
        InvalidRequest, AudioTooLong: see :func:`app.services.fetch.fetch`.
        BadAudio: there is nothing in the file.
    """
    async with (
        doors.fetches,
        fetch(url, limits=doors.fetch, folder=doors.fetch_folder) as file,
    ):
        audio = await asyncio.to_thread(file.read_bytes)
    if not audio:
        raise BadAudio("The file at audio_address is empty.")
    return audio
