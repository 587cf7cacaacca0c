"""The server's TLS certificate: checked at the start, and renewed while connections are open."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from app.core.config import ConfigError

log = structlog.get_logger(__name__)


def check(certfile: Path, keyfile: Path) -> None:
    """Make sure that the two files can be served.

    Raises:
        ConfigError: they cannot; the text says what they must be.
    """
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certfile, keyfile)


def renew(context: ssl.SSLContext, certfile: Path, keyfile: Path) -> None:
    """Serve what the files hold now, or go on as before if that cannot be served.

    Connections that ``context`` accepts from here on get the new certificate, open ones keep
    theirs. Call it in the thread that accepts: a context is not safe against handshakes in other
    threads.
    """
    try:
        # First on the side: a context that gets a certificate without its key has neither.
        check(certfile, keyfile)
        _load(context, certfile, keyfile)
    except ConfigError as error:
        log.error("the certificate is not renewed", reason=str(error))


def _load(context: ssl.SSLContext, certfile: Path, keyfile: Path) -> None:
    try:
        # The password callback: OpenSSL would ask on the terminal.
        context.load_cert_chain(certfile, keyfile, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "SSL_CERTFILE, SSL_KEYFILE: not a certificate and its key, both PEM and without a "
            f"password ({getattr(error, 'reason', None) or 'cannot be read'})"
        ) from None
