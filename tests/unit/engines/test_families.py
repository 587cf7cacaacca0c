"""A family's package is light; what it needs is imported, or missed, when a half is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.core.errors import EngineNotUsable
from app.engines import embedded, fake
from app.engines.base import EngineFamily


@pytest.mark.parametrize("family", [embedded.FAMILY, fake.FAMILY])
def test_a_family_is_one(family: object) -> None:
    assert isinstance(family, EngineFamily)


def test_importing_the_families_imports_no_engine() -> None:
    code = (
        "import sys, app.engines.embedded, app.engines.fake\n"
        "print([m for m in ('pocketsphinx', 'espeakng_loader', 'soxr', 'onnxruntime')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("half", "module"), [("recognizer", "pocketsphinx"), ("synthesizer", "espeakng_loader")]
)
def test_a_missing_module_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, half: str, module: str
) -> None:
    for name in ("recognizer", "decoders", "synthesizer", "espeak"):
        monkeypatch.delitem(sys.modules, f"app.engines.embedded.{name}", raising=False)
        monkeypatch.delattr(embedded, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    load = getattr(embedded.FAMILY, half)
    with pytest.raises(EngineNotUsable, match=rf"{module}; in the checkout: .+'\.\[embedded\]'"):
        load("cpu", {}, lambda doing: None)
