"""Hostile files: each costs one error, and neither memory, nor time, nor a file or a connection.

What may crash runs in a process of its own (tests/support/fuzz_container.py).
"""

from __future__ import annotations

import ctypes
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from app.audio.budget import Budget
from app.audio.container import CONTAINERS
from app.audio.sniff import Kind
from app.core.errors import AudioTooLong, BadAudio, SpeechError
from tests.support.encoded import encoded, muxed
from tests.support.fuzz_container import decoded_size, healthy
from tests.support.sound import tone

MB: Final = 1_000_000
ROOT: Final = Path(__file__).parents[3]
BUDGET: Final = Budget(max_bytes=200 * MB, max_audio_ms=600_000, wall_s=60)


def _run(*arguments: str, input: bytes = b"") -> dict[str, Any]:
    """The JSON that a Python process prints; nothing else, and no crash."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, input=input, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


_ONE_FILE: Final = """
import json, sys
from app.core.errors import SpeechError
from tests.support.fuzz_container import Budget, decoded_size, healthy, peak_bytes
data, kind = sys.stdin.buffer.read(), sys.argv[1]
for each in healthy():
    decoded_size(*each)
before = peak_bytes()
try:
    result = decoded_size(kind, data, Budget(200_000_000, 600_000, 60))
except SpeechError as error:
    result = type(error).__name__
print(json.dumps({"result": result, "growth": peak_bytes() - before}))
"""


def _alone(kind: Kind, data: bytes) -> tuple[int | str, int]:
    """(samples or the error's name, growth of the peak memory in bytes) in a process of its own."""
    done = _run("-c", _ONE_FILE, kind.value, input=data)
    return done["result"], done["growth"]


def test_a_thousand_damaged_files_end_in_errors_that_clients_may_see() -> None:
    verdict = _run("-m", "tests.support.fuzz_container", "0", "1000")
    assert verdict["unexpected"] == []
    assert verdict["decoded"] + sum(verdict["errors"].values()) == verdict["cases"] == 1000
    assert verdict["decoded"] > 300
    assert sum(verdict["errors"].values()) > 100
    assert verdict["growth_bytes"] < 80 * MB


@pytest.mark.parametrize("number", range(len(healthy())))
def test_a_file_may_end_anywhere(number: int) -> None:
    kind, data = healthy()[number]
    whole = decoded_size(kind, data, BUDGET)
    for sixteenths in range(16):
        try:
            size = decoded_size(kind, data[: len(data) * sixteenths // 16], BUDGET)
        except BadAudio:
            continue
        assert 0 < size <= whole


@pytest.mark.parametrize("kind", sorted(CONTAINERS))
def test_nothing_at_all_is_no_audio(kind: str) -> None:
    for data in (b"", b"\0", bytes(100_000), b"\xff" * 100_000):
        with pytest.raises(BadAudio):
            decoded_size(kind, data, BUDGET)


@pytest.mark.parametrize("number", range(len(healthy())))
def test_a_wrong_label_is_an_error_and_nothing_worse(number: int) -> None:
    own, data = healthy()[number]
    for kind in CONTAINERS:
        if CONTAINERS[kind] is not CONTAINERS[own]:
            # An MP3 frame may be found in anything; then there is something to hear.
            with suppress(SpeechError):
                decoded_size(kind, data, BUDGET)


# Bombs


def _ten_hours() -> bytes:
    """Silence: 36,000 s in less than 7 MB. One minute of frames, again and again."""
    data = encoded("flac", np.zeros(60 * 16_000, np.int16), 16_000)
    first = data.index(b"\xff\xf8")  # sync code of the first frame
    return data[:first] + 600 * data[first:]


def test_ten_hours_of_flac_are_too_long_after_ten_minutes() -> None:
    result, growth = _alone(Kind.FLAC, _ten_hours())
    assert result == "AudioTooLong"
    assert growth < 10 * MB


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _announcing_fragments(samples: int) -> bytes:
    """A fragmented MP4 whose last fragment claims that many samples in one number."""
    options = {"movflags": "empty_moov+frag_every_frame+default_base_moof"}
    data = bytearray(muxed(tone(3000), 16_000, "mp4", "aac", seekable=False, options=options))
    count = data.rindex(b"trun") + 8
    data[count : count + 4] = _u32(samples)
    return bytes(data)


def _announcing_index(samples: int) -> bytes:
    """An MP4 with a table of that many samples of one byte, all in its chunks."""
    data = bytearray(encoded("m4a", tone(3000), 16_000))
    sizes = data.index(b"stsz") + 8
    data[sizes : sizes + 8] = _u32(1) + _u32(samples)
    chunks = data.index(b"stsc") + 8
    for i in range(int.from_bytes(data[chunks : chunks + 4], "big")):
        at = chunks + 4 + 12 * i + 4
        data[at : at + 4] = _u32(samples)
    return bytes(data)


def _alac_frame_size(samples: int) -> bytes:
    """Apple Lossless whose head asks for room for blocks of that many samples."""
    data = bytearray(muxed(tone(1000), 16_000, "mp4", "alac"))
    at = data.rindex(b"alac") + 8
    data[at : at + 4] = _u32(samples)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        _announcing_fragments(50_000_000),
        _announcing_fragments(1_300_000),
        _announcing_index(89_000_000),
        _announcing_index(1_300_000),
        _alac_frame_size(1 << 24),
    ],
    ids=["fragments", "fewer fragments", "index", "smaller index", "blocks"],
)
def test_numbers_in_an_mp4_take_no_memory(data: bytes) -> None:
    """Without a bound on FFmpeg's allocations, the first and third took 1.2 and 3.2 GB."""
    result, growth = _alone(Kind.M4A, data)
    assert result == "BadAudio" or isinstance(result, int)
    assert growth < 80 * MB


def _flac_head(rate: int, channels: int, bits: int, total: int) -> bytes:
    info = struct.pack(">HH", 4096, 65535) + bytes(6)
    info += (rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | total).to_bytes(8, "big")
    return b"fLaC\x00\x00\x00\x22" + info + bytes(16)


def _wav_head(codec: int, channels: int, rate: int, bits: int, align: int) -> bytes:
    chunk = struct.pack("<HHIIHH", codec, channels, rate, rate * align % 2**32, align, bits)
    riff = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", len(chunk)) + chunk
    return riff + b"data\xff\xff\xff\xff"


_NOISE: Final = np.random.default_rng(0).bytes(20 * MB)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Kind.FLAC, _flac_head(655_350, 8, 32, 2**36 - 1) + _NOISE[:MB]),
        (Kind.FLAC, _flac_head(0, 1, 16, 0) + _NOISE[:MB]),
        (Kind.WAV, _wav_head(1, 65_535, 16_000, 16, 65_535) + _NOISE[:MB]),
        (Kind.WAV, _wav_head(1, 1, 4_000_000_000, 16, 2) + _NOISE[:MB]),
        (Kind.WAV, _wav_head(1, 0, 16_000, 16, 0) + _NOISE[:MB]),
        (Kind.WAV, b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f" + _NOISE[:MB]),
        (Kind.WAV, b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\x7f" + _NOISE[:MB]),
        (Kind.MP3, b"ID3\4\0\0\x7f\x7f\x7f\x7f" + _NOISE[:MB]),
        (Kind.AMR, b"#!AMR\n" + _NOISE),
        (Kind.AMR, b"#!AMR\n" + b"\x7c" * 20 * MB),
        (Kind.AMR, b"#!AMR-WB\n" + _NOISE),
        (Kind.AAC, b"\xff\xf1" * 10 * MB),
        (Kind.MP3, b"\xff\xfb" * 10 * MB),
        (Kind.OGG, b"OggS" + bytes(20 * MB)),
        (Kind.FLAC, b"fLaC" + bytes(20 * MB)),
        (Kind.WEBM, b"\x1a\x45\xdf\xa3" + bytes(20 * MB)),
        (Kind.WMA, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + _NOISE),
        (Kind.M4A, b"\0\0\0\x18ftypM4A \0\0\0\0" + bytes(8) + _NOISE),
    ],
)
def test_heads_that_lie_and_bodies_of_rubbish(kind: Kind, data: bytes) -> None:
    # Twenty million exceptions of the AMR decoder would outlast the test's own time.
    with pytest.raises((BadAudio, AudioTooLong)):
        decoded_size(kind, data, BUDGET)


def test_rubbish_is_not_kept() -> None:
    result, growth = _alone(Kind.MP3, bytes(100 * MB))
    assert result == "BadAudio"
    assert growth < 100 * MB  # FFmpeg looks for the first frame in all of it


# No path, no URL


class _Server:
    """Counts who asks it for anything."""

    def __init__(self) -> None:
        hits = self.hits = list[str]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hits.append(self.path)
                self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/a.wav"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> _Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Bait:
    """An audio file that tells whether anybody has opened it (inotify(7))."""

    _IN_OPEN: Final = 0x20

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bait.wav"
        self.path.write_bytes(encoded("wav-s16", tone(1000), 16_000))
        libc = ctypes.CDLL(None)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch = libc.inotify_add_watch(self._descriptor, os.fsencode(self.path), self._IN_OPEN)
        assert watch >= 0

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def opened(self) -> bool:
        """Since this was last asked."""
        try:
            return bool(os.read(self._descriptor, 4096))
        except BlockingIOError:
            return False


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[_Bait]:
    if sys.platform != "linux":
        pytest.skip("inotify is a call of Linux")
    made = _Bait(tmp_path)
    yield made
    made.close()


def _playlist(target: str) -> bytes:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n"
    return f"{head}#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n".encode()


def _concat(target: str) -> bytes:
    return f"ffconcat version 1.0\nfile '{target}'\n".encode()


def _sdp(port: int) -> bytes:
    lines = ("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0")
    return "\r\n".join([*lines, f"m=audio {port} RTP/AVP 0", ""]).encode()


def _dash(target: str) -> bytes:
    representation = f"<Representation id='1'><BaseURL>{target}</BaseURL></Representation>"
    sets = f"<AdaptationSet mimeType='audio/mp4'>{representation}</AdaptationSet>"
    head = "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'>"
    return f"{head}<Period>{sets}</Period></MPD>".encode()


def _outside_reference(path: Path) -> bytes:
    """An MP4 whose track says that its audio is in the file at ``path``."""
    data = encoded("m4a", tone(1000), 16_000)
    own = b"\0\0\0\x0curl \0\0\0\x01"
    assert data.count(own) == 1
    # An alias record of QuickTime: volume, file name, levels, and the path as tagged string 2.
    absolute = b"disk" + str(path).replace("/", ":").encode()
    record = bytes(10) + b"\4disk".ljust(28, b"\0") + bytes(12) + b"\4bait".ljust(64, b"\0")
    record += bytes(16 + 4 + 16) + struct.pack(">HH", 2, len(absolute)) + absolute
    record += bytes(len(absolute) % 2) + b"\xff\xff\0\0"
    other = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    # Every box around it grows.
    grown = bytearray(data.replace(own, other))
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.index(name) - 4
        size = int.from_bytes(data[at : at + 4], "big") + len(other) - len(own)
        grown[at : at + 4] = _u32(size)
    return bytes(grown)


@pytest.mark.parametrize("kind", sorted(CONTAINERS))
def test_no_path_and_no_url_is_ever_opened(kind: str, bait: _Bait) -> None:
    with _Server() as server:
        for data in (
            _playlist(server.url),
            _playlist(f"file://{bait.path}"),
            _playlist(str(bait.path)),
            _concat(server.url),
            _concat(str(bait.path)),
            _concat(f"subfile,,start,0,end,0,,:{bait.path}"),
            _sdp(5004),
            _dash(server.url),
            str(bait.path).encode(),
            server.url.encode(),
        ):
            with pytest.raises(BadAudio):
                decoded_size(kind, data, BUDGET)
    assert server.hits == []
    assert not bait.opened


def test_the_traps_of_that_test_do_catch(bait: _Bait) -> None:
    import av
    from av.error import FFmpegError

    with _Server() as server, suppress(FFmpegError):
        av.open(io.BytesIO(_playlist(server.url)), "r", format="hls")
    assert server.hits == ["/a.wav"]
    with suppress(FFmpegError):
        av.open(io.BytesIO(_concat(str(bait.path))), "r", format="concat", options={"safe": "0"})
    assert bait.opened
    follow = {"enable_drefs": "1", "use_absolute_path": "1"}
    with suppress(FFmpegError):
        av.open(io.BytesIO(_outside_reference(bait.path)), "r", format="mov", options=follow)
    assert bait.opened


def test_a_reference_to_another_file_is_not_followed(bait: _Bait) -> None:
    with pytest.raises(BadAudio):
        decoded_size(Kind.M4A, _outside_reference(bait.path), BUDGET)
    assert not bait.opened
