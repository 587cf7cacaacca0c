"""A certificate as ``funspeech cert`` makes it for a server on a local network."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LanCertificate:
    """The folder that the command has written."""

    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        """For the server."""
        return {
            "SSL_CERTFILE": str(self.folder / "cert.pem"),
            "SSL_KEYFILE": str(self.folder / "key.pem"),
        }

    def trusting(self) -> ssl.SSLContext:
        """For a client whose machine trusts the authority."""
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))


async def lan_certificate(folder: Path, name: str = "127.0.0.1") -> LanCertificate:
    """Make one for a server of this name or address, in a new folder."""
    made = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app", "cert", name, "--output", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    return LanCertificate(folder)
