"""Text in pieces, as a client sends it, and the speech that comes of it (nls-protocol.md 5)."""

from __future__ import annotations

import json
from typing import Final

from tests.support.rawsocket import BINARY, RawSocket, message, start

FLOWING: Final = "FlowingSpeechSynthesizer"

SENTENCE: Final = ["SentenceBegin", "audio", "SentenceEnd"]
"""What :func:`heard` tells of one."""

BYTES_PER_CHAR: Final = 16_000 * 2 // 5
"""Of the fake engine's 16 kHz audio: a character takes 200 ms."""


def piece(text: str) -> str:
    """More text."""
    return message(FLOWING, "RunSynthesis", {"text": text})


def flush() -> str:
    """Speak what there is."""
    return message(FLOWING, "FlushText")


async def heard(client: RawSocket, until_name: str) -> tuple[list[str], bytes]:
    """The names of what comes, ``audio`` for any number of binary frames, and the audio."""
    names, audio = list[str](), b""
    while until_name not in names:
        got = await client.frame()
        if got.opcode == BINARY:
            audio += got.payload
            name = "audio"
        else:
            event = json.loads(got.payload)
            name = event["header"]["name"]
            assert name != "TaskFailed", event
        if name != "audio" or names[-1:] != ["audio"]:
            names.append(name)
    return names, audio


async def whole(client: RawSocket, text: str, **options: object) -> bytes:
    """The audio of the text in one piece."""
    await client.text(start("SpeechLongSynthesizer", text=text, **options))
    return (await heard(client, "SynthesisCompleted"))[1]
