"""The sockets that clients connect to: one per API process, on the same port."""

from __future__ import annotations

import errno
import socket
from typing import Final

from app.core.config import ConfigError

_BACKLOG: Final = 2048


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """``count`` listening sockets on one address, shared by SO_REUSEPORT; ``port`` 0 takes any free
    one. The caller closes them.

    Raises:
        ConfigError: the address cannot be had; the text says which variable to change.
    """
    try:
        # Without SO_REUSEPORT, so that another server on this port is noticed.
        with _bound(host, port, shared=False) as probe:
            if count == 1:
                return [probe.dup()]
            port = probe.getsockname()[1]
        return [_bound(host, port, shared=True) for _ in range(count)]
    except OSError as error:
        raise ConfigError(_explain(error, host, port)) from None


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        # Listening here and not in the child, so that a port in use is found now.
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"PORT: {port} is in use; stop the other server or set PORT to a free one"
    if error.errno == errno.EACCES:
        return f"PORT: no permission to listen on {port}; set PORT to 1024 or more"
    return f"HOST: cannot listen on {host!r}: {error.strerror or error}"
