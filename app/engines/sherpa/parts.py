"""The recogniser, put together from the models that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from app.engines.base import (
    OfflineRecognizer,
    Progress,
    RecognizerCapabilities,
    RecognizerParts,
    SentenceRecognizer,
)
from app.engines.sherpa.kinds import Model, Role, find_model
from app.engines.sherpa.offline import load_offline
from app.engines.sherpa.onnx_file import unusable
from app.engines.sherpa.punctuation import load_punctuators
from app.engines.sherpa.rows import independent
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.streaming import load_streaming

_STEP_MS: Final = 600
"""Of a replica without a streaming model: nothing is stepped, so this is for form's sake."""

Part = TypeVar("Part")
Loader = Callable[[Model, SherpaOptions, Progress], Part]


def load_parts(options: SherpaOptions, progress: Progress) -> RecognizerParts:
    """All models, on the CPU. The files of all of them are looked at first: the runtime would end
    the process over some that are damaged.

    Raises:
        EngineNotUsable: files or settings are not usable.
    """
    models = {role: find_model(folder, role) for role, folder in options.folders().items()}

    def loaded(role: Role, load: Loader[Part]) -> Part | None:
        return _loaded(models[role], load, options, progress) if role in models else None

    streaming = loaded("streaming", load_streaming)
    offline = loaded("offline", load_offline)
    punctuators = loaded("punctuation", load_punctuators)
    final, interim = punctuators or (None, None)
    names: list[Role] = ["streaming", "offline"]
    notice = ", then ".join(models[role].folder.name for role in names if role in models)
    return RecognizerParts(
        _capabilities(streaming, offline, final is not None, f"{notice}; on the CPU"),
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


def _capabilities(
    streaming: SentenceRecognizer | None,
    offline: OfflineRecognizer | None,
    punctuates: bool,
    notice: str,
) -> RecognizerCapabilities:
    first = streaming.capabilities if streaming else None
    second = offline.capabilities if offline else None
    known = [each for each in (second, first) if each is not None]
    return RecognizerCapabilities(
        sample_rate=known[0].sample_rate,
        languages=tuple(dict.fromkeys(name for each in known for name in each.languages)),
        step_ms=first.step_ms if first else _STEP_MS,
        partials=first is not None,
        word_times=any(each.word_times for each in known),
        own_endpointing=False,
        max_sessions=None,
        max_sentences=first.max_sentences if first else 1,
        hotwords=any(each.hotwords for each in known),
        punctuation=punctuates,
        inverse_text_normalization=False,
        tags=second is not None and second.tags,
        device="cpu",
        notice=notice,
    )
