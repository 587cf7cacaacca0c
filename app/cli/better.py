"""What to do for a better engine than the one that the server has chosen."""

from __future__ import annotations

import os
import shutil
import sys

from app.core.config import Config
from app.core.speech import Role
from app.engines import registry


def better_engine(config: Config, role: Role, chosen: str) -> str:
    """The commands, for where this one was called; empty where the settings name the engine, or
    ``chosen`` is the best."""
    if role == "asr":
        wanted, devices = config.asr_engine, config.asr_devices()
    else:
        wanted, devices = config.tts_engine, config.tts_devices()
    if wanted != "auto":
        return ""
    return registry.advice(chosen, role, config.engine_settings, devices, program=program())


def program() -> str:
    """What this program is called by in the shell that called it: by its name where the shell
    finds it, else by the path that was typed (``make run`` calls ``.venv/bin/funspeech``)."""
    called = sys.argv[0]
    found = shutil.which("funspeech")
    if os.path.basename(called) != "funspeech" or (found and os.path.samefile(found, called)):
        return "funspeech"
    return called
