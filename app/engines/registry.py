"""Engines by name. Nothing here imports an engine before it is asked to load one, so the API
process and the supervisor stay light (not even numpy); only a worker calls :func:`load`."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.errors import EngineNotUsable
from app.core.speech import Role

if TYPE_CHECKING:
    from app.engines.base import EngineFamily


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an engine is and what must be installed for it.

    ``asr_needs`` and ``tts_needs`` are top-level Python modules; None means that the family has
    no such half. ``extra`` is the pip extra that brings them. ``auto`` tells whether ``auto`` may
    choose it: the higher, the better; None is never chosen. ``gpu``: whether it can use a card.
    """

    module: str
    asr_needs: tuple[str, ...] | None
    tts_needs: tuple[str, ...] | None
    extra: str = ""
    auto: int | None = None
    gpu: bool = False

    def needs(self, role: Role) -> tuple[str, ...] | None:
        """The modules that ``role`` needs, or None if this family has no such half."""
        return self.asr_needs if role == "asr" else self.tts_needs


ENGINES: dict[str, Entry] = {
    "fake": Entry("app.engines.fake", asr_needs=(), tts_needs=()),
    "embedded": Entry(
        "app.engines.embedded",
        asr_needs=("pocketsphinx",),
        tts_needs=("espeakng_loader",),
        extra="embedded",
        auto=10,
    ),
}


def how_to_install(extra: str) -> str:
    """The command that brings an extra. FunSpeech is on no package index: a package of that name
    there is somebody else's, so it is installed from the checkout."""
    return f"in the checkout: .venv/bin/pip install -c constraints.txt -e '.[{extra}]'"


def missing(name: str, role: Role) -> list[str] | None:
    """The Python modules that ``name`` still needs for ``role``; None if it has no such half."""
    needs = ENGINES[name].needs(role)
    if needs is None:
        return None
    return [module for module in needs if importlib.util.find_spec(module) is None]


def choose(name: str, role: Role) -> str:
    """Resolve ``auto`` to the best installed engine, and check a chosen one.

    Raises:
        EngineNotUsable: unknown name, or not installed; the text says what to install.
    """
    if name != "auto":
        if name not in ENGINES:
            known = ", ".join(sorted(ENGINES))
            raise EngineNotUsable(f"unknown engine {name!r}; known engines: auto, {known}")
        lacking = missing(name, role)
        if lacking is None:
            raise EngineNotUsable(f"engine {name!r} has no {role} half")
        if lacking:
            raise EngineNotUsable(
                f"engine {name!r} needs {', '.join(lacking)}; {how_to_install(ENGINES[name].extra)}"
            )
        return name
    installed = [
        (entry.auto, key)
        for key, entry in ENGINES.items()
        if entry.auto is not None and missing(key, role) == []
    ]
    if not installed:
        raise EngineNotUsable(
            f"no {role} engine is installed; for one to try out, {how_to_install('embedded')}"
        )
    return max(installed)[1]


def load(name: str) -> EngineFamily:
    """Import the family. For workers only: the import may be slow and heavy."""
    family: EngineFamily = importlib.import_module(ENGINES[name].module).FAMILY
    return family
