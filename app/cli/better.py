"""Which engine the server takes for a role, and what to do for a better one."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final

from app.core.config import Config
from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import registry

ROLES: Final[tuple[Role, ...]] = ("asr", "tts")


def wanted(config: Config, role: Role) -> tuple[str, list[str]]:
    """The engine that the settings name for a role, or ``auto``, and the devices for it."""
    if role == "asr":
        return config.asr_engine, config.asr_devices()
    return config.tts_engine, config.tts_devices()


def choose_engine(config: Config, role: Role) -> str:
    """The engine that a start would take.

    Raises:
        EngineNotUsable: see :func:`app.engines.registry.choose`.
    """
    engine, devices = wanted(config, role)
    return registry.choose(engine, role, config.engine_settings, devices)


def better_engine(config: Config, role: Role, chosen: str) -> str:
    """The commands, for where this one was called, or what is wrong with the settings of the better
    engine; empty where the settings name the engine, or ``chosen`` is the best."""
    engine, devices = wanted(config, role)
    if engine != "auto":
        return ""
    try:
        return registry.advice(chosen, role, config.engine_settings, devices, program=program())
    except EngineNotUsable as error:
        return str(error)


def program() -> str:
    """What this program is called by in the shell that called it: by its name where the shell
    finds it, else by the path that was typed (``make run`` calls ``.venv/bin/funspeech``)."""
    called = sys.argv[0]
    found = shutil.which("funspeech")
    if os.path.basename(called) != "funspeech" or (found and os.path.samefile(found, called)):
        return "funspeech"
    return called
