"""Which models the settings stand for, where they leave the choice to us.

``auto`` never asks for more than it takes: what is on this machine is used, and only what nothing
would work without is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable

from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines.downloads import State
from app.engines.models import SwitchedOff
from app.engines.sherpa import catalogue
from app.engines.sherpa.kinds import ModelRole
from app.engines.sherpa.settings import AUTO, NONE, SherpaOptions, setting_of

Look = Callable[[str], State]
"""How far a model of the catalogue is on this machine."""


def chosen(options: SherpaOptions, half: Role, look: Look) -> dict[ModelRole, str]:
    """The models to load for recognition or for synthesis: names of the catalogue, or folders of
    the owner's, as written.

    Raises:
        SwitchedOff: nothing would recognise or speak.
        EngineNotUsable: a model is for something else.
    """
    return _recognition(options, look) if half == "asr" else _synthesis(options, look)


def to_pull(options: SherpaOptions, half: Role, look: Look) -> tuple[str, ...]:
    """The models to fetch for recognition or for synthesis where nobody names any: those to load,
    and one for interim results, which ``auto`` does without where another recognises.

    Raises:
        EngineNotUsable: see :func:`chosen`.
    """
    models = chosen(options, half, look)
    lacks_interim = half == "asr" and options.mode != "offline" and "streaming" not in models
    if lacks_interim and _wanted(options, half)["streaming"] == AUTO:
        return (catalogue.STREAMING_MODEL, *models.values())
    return tuple(models.values())


def left_out(options: SherpaOptions, half: Role, look: Look) -> tuple[str, ...]:
    """The models that ``auto`` would take for recognition or for synthesis, were they not damaged.

    Raises:
        EngineNotUsable: see :func:`chosen`.
    """
    models = chosen(options, half, look)
    return tuple(
        best
        for role, model in _wanted(options, half).items()
        if model == AUTO and (best := _first(role, look)) and best != models.get(role)
    )


def _wanted(options: SherpaOptions, half: Role) -> dict[ModelRole, str]:
    """What the settings say for each role, see :func:`_named`; ``none`` where the mode has none."""
    if half == "tts":
        return {"voice": _named("voice", options.voice_model)}
    streaming = _named("streaming", options.streaming_model)
    offline = _named("offline", options.offline_model)
    return {
        "streaming": NONE if options.mode == "offline" else streaming,
        "offline": NONE if options.mode == "realtime" else offline,
        "punctuation": _named("punctuation", options.punctuation_model),
    }


def _recognition(options: SherpaOptions, look: Look) -> dict[ModelRole, str]:
    """Where a model for interim results is here, the second pass is one that is whole, or none; so
    is punctuation always."""
    found = _wanted(options, "asr")
    if found["offline"] == AUTO:
        streaming = found["streaming"]
        alone = streaming == NONE or (streaming == AUTO and not _best("streaming", look))
        instead = catalogue.OFFLINE_MODEL if streaming == NONE else NONE
        best = _best("offline", look) if alone else _whole("offline", look)
        found["offline"] = best or instead
    if found["streaming"] == AUTO:
        instead = NONE if _is_here(found["offline"], look) else catalogue.STREAMING_MODEL
        found["streaming"] = _best("streaming", look) or instead
    if found["punctuation"] == AUTO:
        found["punctuation"] = _whole("punctuation", look) or NONE
    if found["streaming"] == found["offline"] == NONE:
        raise SwitchedOff(_nothing_recognises(options))
    return {role: model for role, model in found.items() if model != NONE}


def _synthesis(options: SherpaOptions, look: Look) -> dict[ModelRole, str]:
    voice = _wanted(options, "tts")["voice"]
    if voice == AUTO:
        voice = _best("voice", look) or catalogue.VOICE_MODEL
    if voice == NONE:
        raise SwitchedOff(
            f"nothing would speak: set {setting_of('voice')} to a model ('funspeech models list' "
            "has them) or to a folder, or TTS_ENGINE to another engine"
        )
    return {"voice": voice}


def _nothing_recognises(options: SherpaOptions) -> str:
    names = {"realtime": setting_of("streaming"), "offline": setting_of("offline")}
    either = f"{setting_of('streaming')} or {setting_of('offline')}"
    return (
        f"nothing would recognise speech: set {names.get(options.mode, either)} to a model "
        f"('funspeech models list' has them) or to a folder; ASR_MODEL_MODE is {options.mode}"
    )


def _named(role: ModelRole, model: str) -> str:
    """``auto``, ``none``, the catalogue's name, or what else the owner has written."""
    text = model.strip()
    if text.lower() in ("", NONE):
        return NONE
    if text.lower() == AUTO:
        return AUTO
    entry = catalogue.find(text)
    if entry is None:
        return text
    if entry.role != role:
        names = ", ".join(other.name for other in catalogue.of_role(role))
        raise EngineNotUsable(
            f"{setting_of(role)}: {entry.name} is a model for {entry.role}; for {role} are: {names}"
        )
    return entry.name


def _best(role: ModelRole, look: Look) -> str | None:
    """The best model that is here; None if there is none. One that is damaged is here where no
    other is: it is to be mended, and not to give way to another engine in silence."""
    return _whole(role, look) or _first(role, look)


def _first(role: ModelRole, look: Look) -> str | None:
    """The best model that is here, whole or damaged; None if there is none."""
    names = (entry.name for entry in catalogue.of_role(role))
    return next((name for name in names if _is_here(name, look)), None)


def _whole(role: ModelRole, look: Look) -> str | None:
    """The best model that can be loaded as it is; None if there is none."""
    names = (entry.name for entry in catalogue.of_role(role))
    return next((name for name in names if look(name) == "complete"), None)


def _is_here(model: str, look: Look) -> bool:
    """A folder of the owner's counts as here: whether it can be used is told when it is loaded."""
    if model == NONE:
        return False
    return catalogue.find(model) is None or look(model) in ("complete", "damaged")
