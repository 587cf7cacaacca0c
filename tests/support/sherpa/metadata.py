"""Changes to the metadata of an ONNX file."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper


def set_metadata(path: Path, **changes: str | None) -> None:
    """Change or, with None, remove metadata of a file."""
    model = onnx.load(str(path))
    known = {entry.key: entry.value for entry in model.metadata_props}
    kept = {key: value for key, value in {**known, **changes}.items() if value is not None}
    del model.metadata_props[:]
    helper.set_model_props(model, kept)
    onnx.save(model, str(path))
