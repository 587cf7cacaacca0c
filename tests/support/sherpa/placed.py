"""Models of the catalogue as small files in the places of the real ones, whole or damaged."""

from __future__ import annotations

from pathlib import Path

from app.engines import manifest
from app.engines.manifest import File, Manifest
from app.engines.sherpa import catalogue


def put(cache: Path, *names: str) -> None:
    """Put these models there, as ``funspeech models pull`` leaves them."""
    for name in names:
        entry = catalogue.find(name)
        assert entry is not None
        folder = cache / "sherpa" / name
        folder.mkdir(parents=True)
        for file in entry.model.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("x")
        known = {file: File(1, manifest.sha256(folder / file)) for file in entry.model.files}
        manifest.write(folder, Manifest(entry.model.source, entry.model.revision, known))


def put_damaged(cache: Path, *names: str) -> None:
    """The same, after something has taken a file of each away."""
    put(cache, *names)
    for name in names:
        entry = catalogue.find(name)
        assert entry is not None
        (cache / "sherpa" / name / entry.model.files[0]).unlink()
