"""Engines by name. Nothing here imports an engine before it is asked to load one, so the API
process and the supervisor stay light (not even numpy); only a worker calls :func:`load`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines.models import SwitchedOff

if TYPE_CHECKING:
    from app.engines.base import EngineFamily
    from app.engines.models import ModelFiles

EngineSettings = Callable[[str], Mapping[str, object]]
"""The settings of the engine of a name, as :meth:`app.core.config.Config.engine_settings` has
them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an engine is and what must be installed for it.

    ``asr_needs`` and ``tts_needs`` are top-level Python modules; None means that the family has
    no such half. ``extra`` is the pip extra that brings them. ``auto`` tells whether ``auto`` may
    choose it on a CPU: the higher, the better; None is never chosen. ``auto_on_card``: the same
    where a card is used, for an engine that can use one. ``models``: for an engine that downloads
    models, the module with its :class:`~app.engines.models.ModelFiles`. ``prints_texts``: its
    libraries write people's words to the standard error, which is dropped while it serves.
    """

    module: str
    asr_needs: tuple[str, ...] | None
    tts_needs: tuple[str, ...] | None
    extra: str = ""
    auto: int | None = None
    auto_on_card: int | None = None
    models: str | None = None
    prints_texts: bool = False

    def needs(self, role: Role) -> tuple[str, ...] | None:
        """The modules that ``role`` needs, or None if this family has no such half."""
        return self.asr_needs if role == "asr" else self.tts_needs

    def rank(self, *, card: bool) -> int | None:
        """How much ``auto`` would rather take it than others; None: not at all."""
        return self.auto_on_card if card and self.auto_on_card is not None else self.auto


ENGINES: dict[str, Entry] = {
    "fake": Entry("app.engines.fake", asr_needs=(), tts_needs=()),
    "embedded": Entry(
        "app.engines.embedded",
        asr_needs=("pocketsphinx",),
        tts_needs=("espeakng_loader",),
        extra="embedded",
        auto=10,
    ),
    "funasr": Entry(
        "app.engines.funasr",
        asr_needs=("torch", "modelscope_hub", "sentencepiece", "yaml"),
        tts_needs=None,
        extra="funasr",
        auto=15,
        auto_on_card=30,
        models="app.engines.funasr.files",
    ),
    "sherpa": Entry(
        "app.engines.sherpa",
        asr_needs=("sherpa_onnx",),
        tts_needs=("sherpa_onnx",),
        extra="sherpa",
        auto=20,
        models="app.engines.sherpa.files",
        prints_texts=True,
    ),
}

DEVICE_FOLDER: Final = Path("/dev")


HOW_TO_INSTALL_FUNASR: Final = (
    "install funasr as docs/models.md tells (in Docker: the image of Dockerfile.funasr)"
)
"""torch has to come first, and which one depends on the machine: more than a line can tell."""


def how_to_install(extra: str) -> str:
    """The command that brings an extra, or where it is told. FunSpeech is on no package index: a
    package of that name there is somebody else's, so it is installed from the checkout."""
    if extra == "funasr":
        return HOW_TO_INSTALL_FUNASR
    return f"in the checkout: .venv/bin/pip install -c constraints.txt -e '.[{extra}]'"


def missing(name: str, role: Role) -> list[str] | None:
    """The Python modules that ``name`` still needs for ``role``; None if it has no such half."""
    needs = ENGINES[name].needs(role)
    if needs is None:
        return None
    return [module for module in needs if importlib.util.find_spec(module) is None]


class NotInstalled(EngineNotUsable):
    """There is no engine for a role: the server can do without one. The text says what to
    install."""


def choose(
    name: str, role: Role, settings: EngineSettings, devices: Sequence[str] = ("auto",)
) -> str:
    """Resolve ``auto`` to the best engine that is installed and at hand, and check a chosen one.

    An engine that downloads models is at hand for ``auto`` where they are on this machine, or where
    there is a card for it (``devices``: those of the role): nobody's laptop is to download
    gigabytes unasked. Where no other is installed it is taken all the same. Models that are damaged
    count as here: the start is to stop over them, and not to serve with the second best. One that
    the settings switch off is passed over.

    Raises:
        NotInstalled: ``auto``, and there is none, or all are switched off.
        EngineNotUsable: unknown name, not installed, or settings that cannot be; the text says what
            to do.
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
    card = uses_card(devices)
    installed = [key for key in _by_preference(role, card=card) if missing(key, role) == []]
    if not installed:
        raise NotInstalled(
            f"no {role} engine is installed; for one to try out, {how_to_install('embedded')}"
        )
    return _at_hand(installed, role, settings, card=card)


def _at_hand(names: Sequence[str], role: Role, settings: EngineSettings, *, card: bool) -> str:
    """The first of these engines that needs no download, else the first that is not switched off.

    Raises:
        NotInstalled: all are switched off.
        EngineNotUsable: a setting has a value that cannot be.
    """
    first, off = "", ""
    for name in names:
        if card and ENGINES[name].auto_on_card is not None:
            return name
        try:
            absent = absent_models(name, role, settings(name), on_card=card)
        except SwitchedOff as error:
            off = off or str(error)
            continue
        if not absent:
            return name
        first = first or name
    if not first:
        raise NotInstalled(off)
    return first


def advice(
    chosen: str,
    role: Role,
    settings: EngineSettings,
    devices: Sequence[str] = ("auto",),
    *,
    program: str = "funspeech",
) -> str:
    """What to do that ``auto`` takes a better engine than the one it has ``chosen`` for
    ``devices``; empty if that is the best. ``program``: how this one is called in a shell.

    Raises:
        EngineNotUsable: a setting of the better one has a value that cannot be.
    """
    card = uses_card(devices)
    better = _by_preference(role, card=card)
    better = better[: better.index(chosen)] if chosen in better else []
    if not better or ENGINES[chosen].auto_on_card is not None:
        return ""  # what cards are for is as good on a CPU, if slower
    for best in better:
        with contextlib.suppress(SwitchedOff):
            absent = absent_models(best, role, settings(best), on_card=card)
            return _steps(best, role, absent, program)
    return ""


def _steps(name: str, role: Role, absent: Sequence[str], program: str) -> str:
    """What to do that a start takes an engine with its models that are ``absent``."""
    steps = []
    if missing(name, role):
        steps.append(how_to_install(ENGINES[name].extra))
    if absent:
        names = f" {absent[0]}" if len(absent) == 1 else ""
        steps.append(f"{program} models pull{names}")
    return ", then ".join((*steps, "restart"))


def recommended(
    role: Role, settings: EngineSettings, devices: Sequence[str] = ("auto",)
) -> str | None:
    """The best of the installed engines that download models and are not switched off; None if
    there is none. One whose settings cannot be is told by who uses it."""
    card = uses_card(devices)
    for name in _by_preference(role, card=card):
        files = model_files(name)
        if files is None or missing(name, role) != []:
            continue
        try:
            files.needed(settings(name), role, on_card=card)
        except SwitchedOff:
            continue
        except EngineNotUsable:
            pass
        return name
    return None


def _by_preference(role: Role, *, card: bool) -> list[str]:
    """The engines that ``auto`` may choose for a role, the best first."""
    ranked = [
        (rank, key)
        for key, entry in ENGINES.items()
        if (rank := entry.rank(card=card)) is not None and entry.needs(role) is not None
    ]
    return [key for _, key in sorted(ranked, reverse=True)]


def model_files(name: str) -> ModelFiles | None:
    """The models of an engine; None if it downloads none. Nothing heavy is imported."""
    module = ENGINES[name].models
    if module is None:
        return None
    files: ModelFiles = importlib.import_module(module).MODEL_FILES
    return files


def absent_models(
    name: str, role: Role, settings: Mapping[str, object], *, on_card: bool
) -> list[str]:
    """The models that an engine would load for ``role`` with its ``settings``, on a card or a CPU,
    and that are not here, or not yet whole. By presence and sizes; no network.

    Raises:
        SwitchedOff: the settings leave it no model for this role.
        EngineNotUsable: a setting has a value that cannot be.
    """
    files = model_files(name)
    if files is None:
        return []
    cache, needed = models_folder(settings), files.needed(settings, role, on_card=on_card)
    verdicts = {model: files.inspect(model, cache) for model in needed}
    return [model for model, found in verdicts.items() if found.faults and not found.damaged]


def models_folder(settings: Mapping[str, object]) -> Path:
    """The folder of downloaded models that the settings name."""
    return Path(str(settings["MODELSCOPE_CACHE"])).expanduser()


def uses_card(devices: Sequence[str]) -> bool:
    """Whether a replica on one of these devices of the settings uses a card."""
    return any(device != "cpu" for device in devices) and has_nvidia_card()


def has_nvidia_card(devices: Path = DEVICE_FOLDER) -> bool:
    """Whether the NVIDIA driver shows a card here; torch is not asked."""
    return any(devices.glob("nvidia[0-9]*"))


def load(name: str) -> EngineFamily:
    """Import the family. For workers only: the import may be slow and heavy."""
    family: EngineFamily = importlib.import_module(ENGINES[name].module).FAMILY
    return family
