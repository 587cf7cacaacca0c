"""Sites with model files on this machine, for downloads by real HTTP: files with ranges and ETags,
connections that break or stall, redirects, and what sites send in place of a file."""

from __future__ import annotations

import hashlib
import io
import re
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    """A request: its path, where its range begins, and the ETag that it depends on."""

    path: str
    begin: int
    if_range: str | None


@dataclass(eq=False)
class ModelMirror:
    """``files``: by path, with the slash. Of these, each is by path, too:

    ``cut_at``: an answer breaks off at this byte of the file, once. ``held``: it stops there, once,
    until ``released``, and then breaks off. ``redirects``: addresses to go to instead.
    ``statuses``: answers without a file. ``types``: the Content-Type. ``etags``: in place of the
    file's own; empty for none.

    ``down``: all answers are 503. ``goes_down``: so they are after a cut. ``always_held``: not
    once only. ``no_ranges``: ranges are ignored. ``chunked``: the length is not told.
    """

    files: dict[str, bytes]
    cut_at: dict[str, int] = field(default_factory=dict)
    goes_down: bool = False
    down: bool = False
    held: dict[str, int] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    always_held: bool = False
    no_ranges: bool = False
    chunked: bool = False
    asked: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def asked_for(self, ending: str) -> list[int]:
        """Where the answers to requests for a file of this ending began."""
        return [asked.begin for asked in self.asked if asked.path.endswith(ending)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mirror: ModelMirror) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mirror = mirror

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        mirror, path = self.server.mirror, self.path
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin, if_range = int(match[1]) if match else 0, self.headers.get("If-Range")
        mirror.asked.append(Asked(path, begin, if_range))
        data = mirror.files.get(path)
        if path in mirror.redirects:
            self._empty(302, Location=mirror.redirects[path])
        elif mirror.down or path in mirror.statuses or data is None:
            self._empty(503 if mirror.down else mirror.statuses.get(path, 404))
        else:
            etag = mirror.etags.get(path, f'"{hashlib.sha256(data).hexdigest()[:16]}"')
            if mirror.no_ranges or if_range not in (None, etag):
                begin = 0
            if begin and begin >= len(data):
                self._empty(416, **{"Content-Range": f"bytes */{len(data)}"})
            else:
                self._send(path, data, begin, etag)

    def _send(self, path: str, data: bytes, begin: int, etag: str) -> None:
        mirror = self.server.mirror
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Type", mirror.types.get(path, "application/octet-stream"))
        if mirror.chunked:  # in one chunk: the length comes with the body
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data) - begin, data[begin:]))
            return
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        cut = mirror.cut_at.pop(path, None)
        hold = mirror.held.get(path) if mirror.always_held else mirror.held.pop(path, None)
        end = cut if cut is not None else hold
        self.wfile.write(data[begin:end])
        self.wfile.flush()
        if hold is not None:
            mirror.released.wait()
            self.close_connection = True
        if cut is not None:
            mirror.down = mirror.goes_down
            self.close_connection = True

    def _empty(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def mirroring(files: Mapping[str, bytes]) -> Iterator[ModelMirror]:
    """A mirror that serves until the end of the block."""
    mirror = ModelMirror(dict(files))
    with _Server(mirror) as server:
        mirror.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.released.set()
            server.shutdown()
            thread.join()


def archived(top: str, files: Mapping[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An archive as sherpa-onnx publishes them, of files in one folder; ``more``: other members,
    which come first."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:bz2") as archive:
        for info, data in more:
            archive.addfile(info, io.BytesIO(data))
        for name, data in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()
