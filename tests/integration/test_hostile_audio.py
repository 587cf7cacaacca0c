"""Hostile audio against a whole server: each piece costs its sender one error, and nobody anything
else; neither memory, nor a file, nor a task is left."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest

from app.core.config import Config
from tests.support.encoded import encoded
from tests.support.hostile_audio import healthy, luring, lying, mutation, ten_hours, truncated
from tests.support.leftovers import no_leftovers
from tests.support.live import Live, live_server
from tests.support.process import Served, eventually, serving
from tests.support.rawsocket import (
    COMPLETED,
    STARTS,
    Address,
    RawSocket,
    check_shown,
    opened,
    start,
    stop,
    until,
)
from tests.support.sound import joined, silence, tone

MB: Final = 1_000_000
MAX_AUDIO_BYTES: Final = int(Config.model_fields["max_audio_bytes"].default)
MAX_MESSAGE_BYTES: Final = int(Config.model_fields["max_message_bytes"].default)

SUCCESS, CLIENT_ERROR, NOT_AUDIO, TOO_LONG = 20000000, 40000000, 40000009, 41010104
REFUSALS: Final = {NOT_AUDIO, TOO_LONG, 41010100, 41010101}
"""Not audio, too much of it, a codec or a sample rate that is not read (nls-protocol.md 8.1)."""

_LIBRARY: Final = re.compile(r"ffmpeg|libav|pyav|\bav\b|://|errno|invalid data found", re.I)
"""What an error must not tell of our inside, besides :func:`check_shown`."""


def check_text(text: str) -> None:
    """An error text for a client: short, and about the audio."""
    check_shown(text)
    assert _LIBRARY.search(text) is None, text
    assert 0 < len(text) <= 250, text  # with the list of all formats


async def posted(http: httpx.AsyncClient, name: str, data: Any) -> tuple[int, str]:
    """The status and the result or error text of a REST recognition."""
    answer = await http.post("/stream/v1/asr", params={"format": name}, content=data)
    body = answer.json()
    if body["status"] == SUCCESS:
        assert answer.status_code == 200
        return SUCCESS, body["result"]
    check_text(body["message"])
    assert answer.status_code == 413 or 400 <= answer.status_code < 500, body
    return body["status"], body["message"]


async def streamed(server: Address, name: str, pieces: list[bytes], **options: Any) -> int:
    """The status of a WebSocket recognition."""
    namespace = options.pop("namespace", "SpeechTranscriber")
    async with opened(server) as client:
        await client.text(start(namespace, format=name, **options))
        sending = asyncio.create_task(_send(client, pieces, stop(namespace)))
        try:
            while True:
                header = (await client.event())["header"]
                if header["name"] == COMPLETED[namespace]:
                    return SUCCESS
                if header["name"] == "TaskFailed":
                    check_text(header["status_text"])
                    return int(header["status"])
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(client: RawSocket, pieces: list[bytes], last: str) -> None:
    for piece in pieces:
        await client.audio(piece)
    await client.text(last)


class Neighbour:
    """Somebody with a live session, who speaks one sentence after the other."""

    def __init__(self) -> None:
        self.sentences = 0
        self._leaving = False

    def leave(self) -> None:
        """End after this sentence."""
        self._leaving = True

    async def speak(self, server: Address) -> None:
        """Half a sentence, the other half once there is a result of it, and a pause."""
        async with opened(server) as client:
            await client.text(start(enable_intermediate_result=True))
            await client.expect("TranscriptionStarted")
            while not self._leaving:
                await client.audio(*_frames(600))
                await client.until("TranscriptionResultChanged")
                await client.audio(*_frames(610), *_frames(1_000, level=0))
                end = (await client.until("SentenceEnd"))[-1]["payload"]
                self.sentences += 1
                began = (self.sentences - 1) * 2_210
                assert end["result"] == "heard 1210 ms"
                assert (end["index"], end["begin_time"]) == (self.sentences, began)
            await client.text(stop())
            await client.until("TranscriptionCompleted")


def _frames(ms: int, level: float = 0.3) -> list[bytes]:
    data = tone(ms, level=level).tobytes()
    return [data[at : at + 640] for at in range(0, len(data), 640)]


@asynccontextmanager
async def a_neighbour(server: Address) -> AsyncIterator[None]:
    """In a live session while the block runs; hears everything exactly, and in time."""
    neighbour = Neighbour()
    speaking = asyncio.create_task(neighbour.speak(server))
    try:
        yield
    finally:
        neighbour.leave()
        await speaking
    assert neighbour.sentences


# Real processes: what remains of it all


@dataclass
class Site:
    """A server of processes, and what a test sees of them."""

    served: Served
    http: httpx.AsyncClient
    api: psutil.Process
    decoder: psutil.Process

    @property
    def files(self) -> list[Path]:
        """In the decode process' folder."""
        paths = [Path(str(each.laddr)) for each in self.decoder.net_connections("unix")]
        (folder,) = {path.parent for path in paths if path.name == "decode.sock"}
        return list((folder / "files").iterdir())

    def memory(self) -> tuple[float, float]:
        """Resident MB of the API process and of the decode process."""
        return self.api.memory_info().rss / MB, self.decoder.memory_info().rss / MB


async def in_parallel(
    samples: list[tuple[str, Any]], send: Callable[[str, Any], Awaitable[Any]]
) -> list[Any]:
    """Send all, four at the same time."""
    found: list[Any] = [None] * len(samples)
    numbers = iter(range(len(samples)))

    async def one_after_the_other() -> None:
        for number in numbers:
            found[number] = await send(*samples[number])

    await asyncio.gather(*(one_after_the_other() for _ in range(4)))
    return found


async def everything_once(site: Site) -> None:
    """Warm up: every format at every door, and some of the damage."""

    async def at_every_door(name: str, data: bytes) -> None:
        await posted(site.http, name, data)
        await streamed(site.served, name, [data])

    await in_parallel([*healthy(), *map(mutation, range(1_000, 1_100))], at_every_door)
    assert (await posted(site.http, "pcm", bytes(MAX_AUDIO_BYTES)))[0] == TOO_LONG


async def a_bomb(site: Site) -> None:
    status, text = await posted(site.http, "flac", ten_hours())
    assert (status, "60 s" in text) == (TOO_LONG, True)
    pieces = [ten_hours()[at : at + 65_536] for at in range(0, len(ten_hours()), 65_536)]
    assert await streamed(site.served, "flac", pieces, namespace="SpeechRecognizer") == TOO_LONG


async def mutations(site: Site) -> None:
    found = await in_parallel(
        list(map(mutation, range(1_000))), lambda name, data: posted(site.http, name, data)
    )
    statuses = [status for status, _ in found]
    assert set(statuses) <= {SUCCESS, *REFUSALS}, set(statuses)
    assert statuses.count(SUCCESS) > 300
    assert statuses.count(NOT_AUDIO) > 100


async def less_than_a_file(site: Site) -> None:
    found = await in_parallel(truncated(), lambda name, data: posted(site.http, name, data))
    assert {status for status, _ in found} == {SUCCESS, NOT_AUDIO}
    nothing = [(name, b"") for name, _ in healthy()]
    found = await in_parallel(nothing, lambda name, data: posted(site.http, name, data))
    assert {status for status, _ in found} == {NOT_AUDIO}
    for name in {name for name, _ in healthy()}:
        # A client that sends nothing and stops has said nothing: that is no error.
        assert await streamed(site.served, name, []) == SUCCESS


async def lies(site: Site) -> None:
    found = await in_parallel(lying(), lambda name, data: posted(site.http, name, data))
    for (name, data), (status, text) in zip(lying(), found, strict=True):
        assert status in REFUSALS, (name, data[:12], status, text)


async def lures(site: Site) -> None:
    hits = 0

    async def hit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hits
        hits += 1
        writer.close()

    async with await asyncio.start_server(hit, "127.0.0.1", 0) as trap:
        port = trap.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/a.wav"
        names = ("wav", "mp3", "aac", "m4a", "flac", "ogg", "opu", "webm", "amr", "speex", "wma")
        samples = [(name, body) for name in names for body in luring(url)]
        found = await in_parallel(samples, lambda name, data: posted(site.http, name, data))
        for (name, _), (status, text) in zip(samples, found, strict=True):
            # Under these names, whatever has no magic may be PCM, or packets of Opus.
            heard = name in ("wav", "ogg", "opu") and status == SUCCESS
            assert heard or status == NOT_AUDIO, (name, text)
        assert hits == 0
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: hits == 1)  # the trap does catch
        writer.close()


async def a_hundred_megabytes(site: Site) -> None:
    for name in ("pcm", "mp3", "flac", "opu", "ogg"):
        # Refused before a byte of it is sent.
        declared, sent = await uploaded(site.served, name, f"Content-Length: {100 * MB}", 0)
        assert (declared["status"], sent) == (CLIENT_ERROR, 0)
        answer, sent = await uploaded(site.served, name, "Transfer-Encoding: chunked", 100 * MB)
        assert answer["status"] in (CLIENT_ERROR, NOT_AUDIO, TOO_LONG), name
        # What was on its way when the answer came: socket buffers on both sides.
        assert sent < MAX_AUDIO_BYTES + 16 * MB, name


async def uploaded(server: Address, name: str, header: str, size: int) -> tuple[Any, int]:
    """A client that uploads until it has an answer: that, and how many bytes it has sent."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    request = f"POST /stream/v1/asr?format={name} HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n"
    writer.write(request.encode())
    answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    chunk, sent = bytes(65_536), 0
    while sent < size and not answer.done():
        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await writer.drain()
        sent += len(chunk)
    head = (await answer).lower()
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None
    body = json.loads(await reader.readexactly(int(found[1])))
    check_text(body["message"])
    assert head.startswith(b"http/1.1 413" if body["status"] == CLIENT_ERROR else b"http/1.1 400")
    writer.transport.abort()
    return body, sent


async def endless_messages(site: Site) -> None:
    """Over the WebSocket there is no body to declare."""
    zeros, count = bytes(MAX_MESSAGE_BYTES), 100
    heads = {
        "flac": b"fLaC",
        "m4a": b"\0\0\0\x18ftypM4A ",
        "amr": b"#!AMR\n",
        "speex": b"",
        "wma": b"",
    }
    for name, head in heads.items():
        assert await streamed(site.served, name, [head, *[zeros] * count]) == TOO_LONG, name
    for name in ("mp3", "aac", "webm", "ogg", "opu", "opus"):
        assert await streamed(site.served, name, [zeros] * count) == NOT_AUDIO, name


async def vanishing(site: Site) -> None:
    for name, data in healthy():
        for reset in (True, False):
            await half_a_post(site.served, name, data, reset=reset)
            await half_a_task(site.served, name, data, reset=reset)


async def half_a_post(server: Address, name: str, data: bytes, *, reset: bool) -> None:
    """A client that ends its connection in the middle of an upload."""
    client = RawSocket(*await asyncio.open_connection(server.host, server.port))
    head = f"POST /stream/v1/asr?format={name} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}"
    await client.send(head.encode() + b"\r\n\r\n" + data[: len(data) // 2])
    client.abort(reset=reset)


async def half_a_task(
    server: Address, name: str, data: bytes, *, reset: bool, namespace: str = "SpeechTranscriber"
) -> None:
    """The same in a WebSocket task."""
    async with opened(server) as client:
        await client.text(start(namespace, format=name))
        await client.expect(STARTS[namespace].removeprefix("Start") + "Started")
        await client.audio(data[: len(data) // 2])
        client.abort(reset=reset)


ATTACKS: Final = (
    a_bomb,
    mutations,
    less_than_a_file,
    lies,
    lures,
    a_hundred_megabytes,
    endless_messages,
    vanishing,
)


@pytest.mark.xdist_group("processes")  # real processes: one test of them at a time
async def test_hostile_audio_costs_its_sender_an_error_and_us_nothing(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, LOG_LEVEL="WARNING", WORKERS="1") as served,
        httpx.AsyncClient(base_url=served.http, timeout=60) as http,
    ):
        await eventually(lambda: bool(served.children("app.serving.decoding")))
        (api,) = served.children("app.main")
        (decoder,) = served.children("app.serving.decoding")
        site = Site(served, http, api, decoder)
        await everything_once(site)
        before = site.memory()
        print("warm:", before)
        for attack in ATTACKS:
            async with a_neighbour(served):
                await attack(site)
            now = site.memory()
            print(attack.__name__, now)
            assert now[0] - before[0] < 30, attack.__name__
            assert now[1] - before[1] < 100, attack.__name__
            await eventually(lambda: not site.files)
        assert served.children("app.serving.decoding") == [decoder]  # it has never died


# In one process: what is left of the tasks, and the codes


def decoding(live: Live) -> int:
    """Tasks of the decode process."""
    assert live.decoder is not None
    return sum(len(connection.running()) for connection in live.decoder._connections)


def files(live: Live) -> list[Path]:
    """In the decode process' folder."""
    assert live.decoder is not None
    return list(live.decoder.folder.iterdir())


async def test_clients_that_vanish_in_an_upload_leave_nothing(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:

        async def each_kind() -> None:
            for name, data in healthy():
                for reset in (True, False):
                    await half_a_post(live, name, data, reset=reset)
                    for namespace in ("SpeechTranscriber", "SpeechRecognizer"):
                        await half_a_task(live, name, data, reset=reset, namespace=namespace)
            # The last connection is the same each time: the event loop keeps some of it.
            assert await streamed(live, "flac", [healthy()[0][1]]) == SUCCESS
            await until(lambda: not any(server.server_state.connections for _, server in live.apis))
            await until(lambda: not decoding(live) and not files(live))

        await each_kind()
        async with no_leftovers(live):
            await each_kind()


async def test_a_task_is_decoded_while_its_client_uploads(tmp_path: Path) -> None:
    """So that the test above does not pass for want of tasks."""
    async with live_server(tmp_path) as live:
        for name, data in healthy():
            async with opened(live) as client:
                await client.text(start(format=name))
                await client.expect("TranscriptionStarted")
                await client.audio(data[: len(data) // 2])
                if name not in ("pcm", "wav"):
                    await until(lambda: decoding(live) == 1)
            await until(lambda: decoding(live) == 0)


async def test_what_takes_too_long_to_decode_is_given_up(tmp_path: Path) -> None:
    short, long = encoded("flac", tone(300), 16_000), ten_hours()
    async with (
        live_server(tmp_path, max_decode_seconds=0.5, max_audio_seconds=100_000) as live,
        httpx.AsyncClient(base_url=live.http, timeout=60) as http,
        a_neighbour(live),
    ):
        answer = await http.post("/stream/v1/asr", params={"format": "flac"}, content=long)
        assert (answer.status_code, answer.json()["status"]) == (400, NOT_AUDIO)
        assert "too long" in answer.json()["message"]
        check_text(answer.json()["message"])
        pieces = [long[at : at + MB] for at in range(0, len(long), MB)]
        assert await streamed(live, "flac", pieces) == NOT_AUDIO
        await until(lambda: not decoding(live) and not files(live))
        assert await posted(http, "flac", short) == (SUCCESS, "heard 300 ms")


async def test_short_recognition_is_limited_in_seconds_of_audio(tmp_path: Path) -> None:
    exactly = joined(silence(300), tone(1_400), silence(300))
    beyond = joined(exactly, silence(300))
    # By their encoders; that of m4a is cut off, but counts.
    padded = ("wav-adpcm-ms", "mp3", "aac", "m4a", "wma", "amr", "opu")
    async with (
        live_server(tmp_path, max_audio_seconds=2) as live,
        httpx.AsyncClient(base_url=live.http, timeout=60) as http,
    ):
        for format, name in FORMATS.items():
            step, rate = (2, 8_000) if name == "amr" else (1, 16_000)
            within = encoded(format, exactly[: -3_200 if format in padded else None : step], rate)
            longer = encoded(format, beyond[::step], rate)
            for data, expected in ((within, SUCCESS), (longer, TOO_LONG)):
                assert (await posted(http, name, data))[0] == expected, format
                status = await streamed(live, name, [data], namespace="SpeechRecognizer")
                assert status == expected, format
            # A transcriber may listen for hours.
            assert await streamed(live, name, [longer]) == SUCCESS, format


FORMATS: Final = {
    "pcm": "pcm",
    "wav-s16": "wav",
    "wav-mulaw": "wav",
    "wav-adpcm-ms": "wav",
    "mp3": "mp3",
    "mp3-lame": "mp3",
    "aac": "aac",
    "m4a": "m4a",
    "flac": "flac",
    "ogg-opus": "opus",
    "ogg-flac": "ogg",
    "webm-opus": "webm",
    "amr": "amr",
    "wma": "wma",
    "opu": "opu",
}
"""Names of ``encoded.py``, and those for clients."""


@pytest.mark.parametrize("name", sorted(set(FORMATS.values()) - {"pcm", "wav"} | {"speex"}))
async def test_what_is_no_audio_has_its_code_at_every_door(tmp_path: Path, name: str) -> None:
    """40000009 is the gateway's code for audio that is not what it says (nls-protocol.md 8.1)."""
    noise = NOT_AUDIO_OF.get(name, bytes(5_000))
    async with (
        live_server(tmp_path) as live,
        httpx.AsyncClient(base_url=live.http) as http,
        a_neighbour(live),
    ):
        assert (await posted(http, name, noise))[0] == NOT_AUDIO
        for namespace in ("SpeechTranscriber", "SpeechRecognizer"):
            assert await streamed(live, name, [noise], namespace=namespace) == NOT_AUDIO


NOT_AUDIO_OF: Final = {"opus": b"OggS" + bytes(5_000), "ogg": b"OggS" + bytes(5_000)}
"""Where zeros are a packet of silence."""


async def test_wav_with_a_broken_header_has_its_code(tmp_path: Path) -> None:
    broken = [
        b"RIFF\0\0\0\0WAVE",
        encoded("wav-s16", tone(100), 16_000)[:30],
        b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f" + bytes(100_000),
    ]
    async with live_server(tmp_path) as live, httpx.AsyncClient(base_url=live.http) as http:
        for data in broken:
            status, text = await posted(http, "wav", data)
            assert (status, "wav header!" in text) == (NOT_AUDIO, True)
            assert await streamed(live, "wav", [data]) == NOT_AUDIO


async def test_a_format_without_a_decoder_has_its_code(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live, httpx.AsyncClient(base_url=live.http) as http:
        for name in ("xyz", "../flac", "wav;mp3", "dsf", "a" * 5_000):
            assert (await posted(http, name, bytes(100)))[0] == 41010100
            assert await streamed(live, name, [bytes(100)]) == 41010100
