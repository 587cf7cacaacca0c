"""Which models the settings stand for, where they leave the choice to us.

``auto`` never asks for more than it takes: what is on this machine is used, and only what nothing
would work without is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable

from app.core.errors import EngineNotUsable
from app.core.speech import Role as Half
from app.engines.downloads import State
from app.engines.sherpa import catalogue
from app.engines.sherpa.kinds import Role
from app.engines.sherpa.settings import AUTO, NONE, SherpaOptions, setting_of

Look = Callable[[str], State]
"""How far a model of the catalogue is on this machine."""


def chosen(options: SherpaOptions, half: Half, look: Look) -> dict[Role, str]:
    """The models to load for recognition or for synthesis: names of the catalogue, or folders of
    the owner's, as written.

    Raises:
        EngineNotUsable: a model is for something else, or nothing would recognise or speak.
    """
    return _recognition(options, look) if half == "asr" else _synthesis(options, look)


def _recognition(options: SherpaOptions, look: Look) -> dict[Role, str]:
    streaming, offline, punctuation = NONE, NONE, _named("punctuation", options.punctuation_model)
    if options.mode != "offline":
        streaming = _named("streaming", options.streaming_model)
    if options.mode != "realtime":
        offline = _named("offline", options.offline_model)
    if offline == AUTO:
        instead = catalogue.OFFLINE_MODEL if streaming == NONE else NONE
        offline = _best("offline", look) or instead
    if streaming == AUTO:
        instead = NONE if _is_here(offline, look) else catalogue.STREAMING_MODEL
        streaming = _best("streaming", look) or instead
    if punctuation == AUTO:
        punctuation = _best("punctuation", look) or NONE
    if streaming == offline == NONE:
        raise EngineNotUsable(_nothing_recognises(options))
    found: dict[Role, str] = {
        "streaming": streaming,
        "offline": offline,
        "punctuation": punctuation,
    }
    return {role: model for role, model in found.items() if model != NONE}


def _synthesis(options: SherpaOptions, look: Look) -> dict[Role, str]:
    voice = _named("voice", options.voice_model)
    if voice == AUTO:
        voice = _best("voice", look) or catalogue.VOICE_MODEL
    if voice == NONE:
        raise EngineNotUsable(
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


def _named(role: Role, model: str) -> str:
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


def _best(role: Role, look: Look) -> str | None:
    """The best model that is whole, else the best that was; None if there is none."""
    states = {entry.name: look(entry.name) for entry in catalogue.of_role(role)}
    for state in ("complete", "damaged"):
        for name, found in states.items():
            if found == state:
                return name
    return None


def _is_here(model: str, look: Look) -> bool:
    """A folder of the owner's counts as here: whether it can be used is told when it is loaded."""
    if model == NONE:
        return False
    return catalogue.find(model) is None or look(model) in ("complete", "damaged")
