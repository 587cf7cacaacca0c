"""Where the server of this machine is reached, and how to know it when it has TLS."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from app.core.config import Config, ConfigError

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


def local_url(host: str, port: int, *, tls: bool) -> str:
    """The address at which this machine reaches a server that listens on ``host`` and ``port``."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http{'s' if tls else ''}://{host_and_port(host, port)}"


def host_and_port(host: str, port: int) -> str:
    """The two as an address has them: an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_tls(config: Config) -> ssl.SSLContext | None:
    """For connections to the server of these settings: trusts its certificate and no other, under
    any name, since such a certificate is seldom made for 127.0.0.1. None without SSL_CERTFILE.

    Raises:
        ConfigError: the file has no usable certificate.
    """
    if config.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # So that a certificate of an authority can be trusted without trusting the authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=_server_certificate(config.ssl_certfile))
    except (OSError, ValueError) as error:
        raise ConfigError("SSL_CERTFILE: must be a file with a PEM certificate") from error
    return context


def _server_certificate(path: Path) -> str:
    """The first certificate of the file is the server's own; those of authorities follow."""
    found = _CERTIFICATE.search(path.read_text("ascii", "replace"))
    if found is None:
        raise ValueError("no certificate")
    return found.group()
