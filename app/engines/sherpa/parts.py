"""The recogniser, put together from the models that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from app.engines.base import Progress, RecognizerParts
from app.engines.composed import capabilities_of
from app.engines.sherpa.files import folders
from app.engines.sherpa.folder import refusals
from app.engines.sherpa.kinds import FoundModel, ModelRole, find_model
from app.engines.sherpa.languages import languages_of
from app.engines.sherpa.offline import load_offline
from app.engines.sherpa.punctuation import load_punctuators
from app.engines.sherpa.rows import independent
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.streaming import load_streaming

Part = TypeVar("Part")
Loader = Callable[[FoundModel, SherpaOptions, Progress], Part]


def load_parts(options: SherpaOptions, progress: Progress) -> RecognizerParts:
    """All models, on the CPU. Models of the catalogue that are missing are downloaded first. The
    files of all of them are looked at before any is loaded: the runtime would end the process over
    some that are damaged.

    Raises:
        EngineNotUsable: files or settings are not usable.
    """
    found = folders(options, "asr", progress)
    models = {role: find_model(folder, role) for role, folder in found.items()}

    def loaded(role: ModelRole, load: Loader[Part]) -> Part | None:
        return _loaded(models[role], load, options, progress) if role in models else None

    streaming = loaded("streaming", load_streaming)
    offline = loaded("offline", load_offline)
    punctuators = loaded("punctuation", load_punctuators)
    final, interim = punctuators or (None, None)
    return RecognizerParts(
        capabilities_of(
            streaming,
            offline,
            punctuates=final is not None,
            device="cpu",
            notice=f"{_summary(models)}; on the CPU",
        ),
        streaming,
        offline,
        final,
        interim if options.realtime_punctuation else None,
    )


def _summary(models: Mapping[ModelRole, FoundModel]) -> str:
    """The models, in words for people: what they hear, and what each is there for."""
    names = {role: model.folder.name for role, model in models.items()}
    first, *rest = (names[role] for role in ("streaming", "offline") if role in names)
    heard = models["streaming" if "streaming" in models else "offline"]
    parts = [f"{first} ({', '.join(languages_of(heard))})"]
    parts += [f"second pass {name}" for name in rest]
    if "punctuation" in names:
        parts.append(f"punctuation {names['punctuation']}")
    return ", ".join(parts)


def _loaded(
    model: FoundModel, load: Loader[Part], options: SherpaOptions, progress: Progress
) -> Part:
    with refusals(model.folder), independent(model) as runnable:
        return load(runnable, options, progress)
