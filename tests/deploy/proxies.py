"""nginx and HAProxy as child processes, with the configurations of ``deploy/``: only addresses,
files and the values that a test names are replaced."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CERTIFICATE: Final = ROOT / "tests/support/self_signed.pem"
START_TIMEOUT_S: Final = 20.0

_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Proxy:
    """A proxy that accepts connections, with TLS. ``folder`` has all that it writes."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    folder: Path

    @property
    def http(self) -> str:
        """Base URL of the REST doors."""
        return f"https://{self.host}:{self.port}"

    @property
    def ws(self) -> str:
        """URL that every SDK takes."""
        return f"wss://{self.host}:{self.port}/ws/v1"

    def log(self) -> str:
        """All that it has logged and printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@dataclass(frozen=True)
class Kind:
    """A proxy program. ``command`` makes its command line from the program's path and a folder with
    the configuration, ``adapt`` the replacements that any test needs."""

    name: str
    config: Path
    listen: str
    command: Callable[[str, Path], Sequence[str]]
    adapt: Callable[[Path], Mapping[str, str]]

    @property
    def program(self) -> str | None:
        """Where it is, if it is installed. Debian keeps both out of the path of most users."""
        return shutil.which(self.name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def trusting() -> ssl.SSLContext:
    """For clients: trusts the certificate of the tests, whose name is not this machine's."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False
    return context


@contextmanager
def running(
    kind: Kind, folder: Path, backend: int, replaced: Mapping[str, str]
) -> Generator[Proxy, None, None]:
    """The proxy, in front of a server on port ``backend`` of 127.0.0.1. ``replaced``: texts of its
    configuration and what stands in their place."""
    assert kind.program is not None
    folder.mkdir()
    with ExitStack() as stack:
        # Bound and not listening: nobody else gets the port, and the proxy may share it.
        reserved = stack.enter_context(socket.socket())
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        config = filled(
            kind.config.read_text(),
            {
                kind.listen: kind.listen.replace(":443", "443").replace("443", f"127.0.0.1:{port}"),
                "127.0.0.1:8000": f"127.0.0.1:{backend}",
                "/etc/funspeech/tls.pem": str(CERTIFICATE),
                **kind.adapt(folder),
                **replaced,
            },
        )
        (folder / kind.config.name).write_text(config)
        output = stack.enter_context((folder / "output.log").open("wb"))
        process = subprocess.Popen(
            kind.command(kind.program, folder),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        stack.callback(_end, process)
        proxy = Proxy(process, "127.0.0.1", port, folder)
        _await_listening(proxy)
        yield proxy


def filled(config: str, replaced: Mapping[str, str]) -> str:
    """``config`` with each of some texts replaced wherever it stands, which must be somewhere."""
    for old, new in replaced.items():
        assert old in config, f"the configuration has no {old!r}"
        config = config.replace(old, new)
    return config


def _await_listening(proxy: Proxy) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert proxy.process.poll() is None, f"the proxy ended:\n{proxy.log()}"
        try:
            socket.create_connection((proxy.host, proxy.port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, f"the proxy does not listen:\n{proxy.log()}"
            time.sleep(0.01)
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too; the group is its own
        process.wait()


def _nginx_command(program: str, folder: Path) -> Sequence[str]:
    own = f"daemon off; pid {folder}/nginx.pid;"
    if os.geteuid() == 0:
        own += " user root;"  # the tests' folder is closed to nginx's own user
    config = folder / NGINX.config.name
    return (program, "-p", str(folder), "-e", "stderr", "-c", str(config), "-g", own)


def _adapt_nginx(folder: Path) -> Mapping[str, str]:
    # nginx makes these folders where it was built to, even if nothing is ever put into them.
    temporary = "".join(f"{name}_temp_path {folder}/{name};\n" for name in _TEMPORARY)
    return {"http {": f"http {{\n{temporary}", "/var/log/nginx": str(folder)}


def _haproxy_command(program: str, folder: Path) -> Sequence[str]:
    return (program, "-db", "-f", str(folder / HAPROXY.config.name))


def _adapt_haproxy(folder: Path) -> Mapping[str, str]:
    del folder  # it writes no files
    if os.geteuid() == 0:
        return {}
    # Only root may become somebody else.
    return {"    user haproxy\n": "", "    group haproxy\n": ""}


NGINX: Final = Kind("nginx", ROOT / "deploy/nginx.conf", "listen 443", _nginx_command, _adapt_nginx)
HAPROXY: Final = Kind(
    "haproxy", ROOT / "deploy/haproxy.cfg", "bind :443", _haproxy_command, _adapt_haproxy
)
