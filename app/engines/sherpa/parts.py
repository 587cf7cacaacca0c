"""The recogniser, put together from the models that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.engines.base import (
    Progress,
    RecognizerParts,
)
from app.engines.composed import capabilities_of
from app.engines.sherpa.files import folders
from app.engines.sherpa.kinds import Model, Role, find_model
from app.engines.sherpa.offline import load_offline
from app.engines.sherpa.onnx_file import unusable
from app.engines.sherpa.punctuation import load_punctuators
from app.engines.sherpa.rows import independent
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.streaming import load_streaming

Part = TypeVar("Part")
Loader = Callable[[Model, SherpaOptions, Progress], Part]


def load_parts(options: SherpaOptions, progress: Progress) -> RecognizerParts:
    """All models, on the CPU. Models of the catalogue that are missing are downloaded first. The
    files of all of them are looked at before any is loaded: the runtime would end the process over
    some that are damaged.

    Raises:
        EngineNotUsable: files or settings are not usable.
    """
    found = folders(options, "asr", progress)
    models = {role: find_model(folder, role) for role, folder in found.items()}

    def loaded(role: Role, load: Loader[Part]) -> Part | None:
        return _loaded(models[role], load, options, progress) if role in models else None

    streaming = loaded("streaming", load_streaming)
    offline = loaded("offline", load_offline)
    punctuators = loaded("punctuation", load_punctuators)
    final, interim = punctuators or (None, None)
    names: list[Role] = ["streaming", "offline"]
    notice = ", then ".join(models[role].folder.name for role in names if role in models)
    return RecognizerParts(
        capabilities_of(
            streaming,
            offline,
            punctuates=final is not None,
            device="cpu",
            notice=f"{notice}; on the CPU",
        ),
        streaming,
        offline,
        final,
        interim if options.realtime_punctuation else None,
    )


def _loaded(model: Model, load: Loader[Part], options: SherpaOptions, progress: Progress) -> Part:
    try:
        with independent(model) as runnable:
            return load(runnable, options, progress)
    except (RuntimeError, ValueError, AssertionError) as error:
        lines = str(error).strip().splitlines() or ["the runtime does not say why"]
        raise unusable(model.folder, lines[0][:300]) from error
