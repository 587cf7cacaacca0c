"""Enough file descriptors: one for each connection, and some."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

import structlog

log = structlog.get_logger(__name__)

RESERVE: Final = 256
"""Descriptors that an API process wants beside its NLS connections: REST requests, the workers'
sockets, files."""


def raise_limit(max_connections: int) -> None:
    """Raise this process' soft limit to its hard one; children that are started later inherit it.
    A limit that is still too low for ``max_connections`` is a warning: up to it, everything works.

    Only for a process whose code does not use ``select``, which fails above 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS says "unlimited" and takes less.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    wanted = max_connections + RESERVE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning(
            "too few file descriptors for MAX_CONNECTIONS; raise the limit (ulimit -n) or lower it",
            max_connections=max_connections,
            needs=wanted,
            limit=soft,
        )
