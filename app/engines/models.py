"""Model files of an engine family, as the registry and the commands see them.

An engine that downloads models names in its registry entry a module that has a
:class:`ModelFiles` as its attribute ``MODEL_FILES``. The supervisor and commands import that
module, so it imports no model library and no numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from app.core.errors import EngineNotUsable
from app.core.speech import Role


class SwitchedOff(EngineNotUsable):
    """The settings leave an engine no model for a role, as with ``none`` for a voice: where the
    choice is the server's it goes on to the next engine. The text says how to switch it on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A published model.

    ``name`` is what settings and commands call it. ``source``: its name at the hub that it comes
    from; ``revision``: which of its versions. ``files``: what must be there; ``extra_files``: what
    is fetched, too, where the hub has it. ``size_bytes`` is that of the download, roughly.
    ``sample_rate`` in Hz, None for models of text.
    """

    name: str
    purpose: str
    languages: tuple[str, ...]
    sample_rate: int | None
    source: str
    revision: str
    files: tuple[str, ...]
    extra_files: tuple[str, ...] = ()
    size_bytes: int
    licence: str


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a model is: what is being done, and how many bytes of how many are."""

    model: str
    doing: str
    done: int
    total: int


NO_SETTINGS: Final[Mapping[str, object]] = {}

Report = Callable[[Advance], None]
"""Told at least every few seconds while a call works or waits."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one model. ``checked``: its files have been compared with checksums.
    ``faults``: what is wrong, one line each; none means that it can be used. ``note``: what else
    its owner should know of it, half a line. ``damaged``: a start stops over the faults, because
    it was whole once or is a folder of the owner's; else it fetches what is missing."""

    folder: Path | None
    faults: tuple[str, ...]
    checked: bool
    note: str = ""
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where a model is now, and how many bytes of it were fetched."""

    folder: Path
    fetched: int


class ModelFiles(Protocol):
    """The models of one engine family. ``cache`` is the folder of downloaded models."""

    def models(self) -> Sequence[Model]:
        """All that it can use, in the order in which to list them."""
        ...

    def needed(self, settings: Mapping[str, object], role: Role, *, on_card: bool) -> Sequence[str]:
        """What it would load for this role with these settings, on a card or a CPU: names of
        models, or folders. Where the choice is the engine's, models that are here come first.

        Raises:
            SwitchedOff: the settings leave it no model for this role.
            EngineNotUsable: a setting has a value that cannot be, such as the name of no model.
        """
        ...

    def to_pull(
        self, settings: Mapping[str, object], role: Role, *, on_card: bool
    ) -> Sequence[str]:
        """What to fetch for this role where the owner names nothing: all that is needed, and what
        it would be poor without. Raises as :meth:`needed`."""
        ...

    def inspect(self, model: str, cache: Path) -> Verdict:
        """Whether it is there, by presence and sizes: quick. No network."""
        ...

    def verify(self, model: str, cache: Path, report: Report) -> Verdict:
        """The same with checksums, where they are known. No network."""
        ...

    def pull(
        self,
        model: str,
        cache: Path,
        report: Report,
        settings: Mapping[str, object] = NO_SETTINGS,
    ) -> Pulled:
        """Fetch what is missing or damaged; goes on where it was broken off. ``settings``: of the
        engine, which may tell where from.

        Raises:
            EngineNotUsable: it cannot be had; the text says why, and what to do.
        """
        ...
