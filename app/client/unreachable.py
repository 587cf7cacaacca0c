"""Why there is no connection, in the same words for WebSocket and REST."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from app.client.errors import CertificateRefused, ServerUnreachable
from app.client.urls import http_url


def unreachable(url: str, error: BaseException) -> ServerUnreachable:
    """The error for a connection to ``url`` that could not be made because of ``error``."""
    where = http_url(url)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = cause.verify_message or "it cannot be verified"
            return CertificateRefused(f"the TLS certificate of {where} is not trusted: {reason}")
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return ServerUnreachable(f"no answer from {where}")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return ServerUnreachable(f"nothing listens at {where}")
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return ServerUnreachable(f"no connection to {where}: {(reasons or [str(error)])[-1]}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what it was raised from; libraries wrap, and group the tries of several
    addresses."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from _causes(each)
        error = error.__cause__ or error.__context__
