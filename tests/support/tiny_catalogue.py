"""``funspeech`` with another list of sherpa-onnx models: ``python -m tests.support.tiny_catalogue
LIST.json models pull zh-small``.

The checksums in models.toml are those of the published files, which no test has.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from app.cli import main
from app.engines.sherpa import catalogue

if __name__ == "__main__":
    entries = Path(sys.argv.pop(1)).read_bytes()
    catalogue.ENTRIES = msgspec.json.decode(entries, type=tuple[catalogue.Entry, ...])
    main()
