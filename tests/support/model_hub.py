"""A model hub on this machine, for downloads with the client library itself: ModelScope's file
list, and its files with HTTP ranges (what modelscope-hub 0.5 asks for)."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LIST = re.compile(r"/api/v1/models/([^/]+/[^/]+)/repo/files")
FILE = re.compile(r"/api/v1/models/([^/]+/[^/]+)/repo")


class ModelHub(ThreadingHTTPServer):
    """``repositories``: files by repository and path. ``requests``: what was asked for, in order:
    paths of files, ``list NAME`` for lists. ``ranges``: where the answers began. A file in
    ``cut_at`` breaks off there, once. ``held``: an event to wait for before a body goes out.
    ``listed``: what the list says of a file that is not so, by path and key."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {name: dict(files) for name, files in repositories.items()}
        self.requests: list[str] = []
        self.ranges: dict[str, list[int]] = {}
        self.cut_at: dict[str, int] = {}
        self.listed: dict[str, dict[str, object]] = {}
        self.revisions: set[str] = set()
        self.held: threading.Event | None = None
        self.reached = threading.Event()  # a file was asked for

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """The files that were asked for."""
        return [name for name in self.requests if not name.startswith("list ")]


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.revisions.add(query.get("Revision", ""))
        if match := LIST.fullmatch(url.path):
            self._list(match[1])
        elif match := FILE.fullmatch(url.path):
            self._file(match[1], query["FilePath"])
        else:
            self._json(404, {"Success": False, "Message": "not here"})

    def _list(self, name: str) -> None:
        self.server.requests.append(f"list {name}")
        files = self.server.repositories.get(name)
        if files is None:
            self._json(404, {"Success": False, "Message": "no such model"})
            return
        listed = [
            {
                "Path": path,
                "Name": path,
                "Type": "blob",
                "Size": len(data),
                "Sha256": hashlib.sha256(data).hexdigest(),
                **self.server.listed.get(path, {}),
            }
            for path, data in files.items()
        ]
        self._json(200, {"Success": True, "Code": 200, "Data": {"Files": listed}})

    def _file(self, name: str, path: str) -> None:
        self.server.requests.append(path)
        self.server.reached.set()
        data = self.server.repositories[name][path]
        start = 0
        if match := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
        self.server.ranges.setdefault(path, []).append(start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut = self.server.cut_at.pop(path, None)
        self.wfile.write(data[start:cut])
        if cut is not None:
            self.wfile.flush()
            if self.server.held is not None:
                self.server.held.wait()
            self.close_connection = True

    def _json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[ModelHub]:
    """A hub that serves until the end of the block."""
    with ModelHub(repositories) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            if hub.held is not None:
                hub.held.set()
            hub.shutdown()
            thread.join()
