"""``funspeech restart-workers``: restart the workers of the running server one by one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from app.core import config as configuration
from app.serving.rolling import request_restart, socket_name
from app.serving.runtime_folder import find, remove_abandoned


def restart_workers(names: Sequence[str], port: int | None) -> None:
    """Restart the workers called ``names``, or all, of the server on ``port`` of this machine."""
    if port is None:
        try:
            port = configuration.load().port
        except configuration.ConfigError as error:
            sys.exit(f"funspeech: {error}")
    remove_abandoned()
    path = find(socket_name(port))
    if path is None:
        sys.exit(
            f"funspeech: no server of this user runs on port {port} of this machine; "
            "name its port with --port, or run this as the server's user"
        )
    try:
        for report in request_restart(path, names):
            if "error" in report:
                sys.exit(f"funspeech: {report['error']}")
            if report.get("state") == "restarting":
                typer.echo(f"{report['worker']}: restarting")
            elif report.get("state") == "ready":
                typer.echo(f"{report['worker']}: ready again after {report['seconds']} s")
            if "done" in report:
                return
    except OSError:
        pass
    sys.exit("funspeech: the server ended before it was done")
