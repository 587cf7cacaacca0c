"""Print .env.example, made from the settings in app/core/config.py.

Usage: python scripts/env_example.py > .env.example
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.core.config import Config

HEADER: Final = """\
# FunSpeech's settings with their defaults. Copy this file to .env and change what you need;
# variables of the environment win over .env. An empty value is the same as none.
# Made by scripts/env_example.py.
"""

# The first field of each section.
SECTIONS: Final = {
    "host": "Server",
    "log_level": "Logs",
    "apptoken": "Access",
    "asr_engine": "Engines",
    "modelscope_cache": "Model files",
    "funasr_streaming_model": "The FunASR engine",
    "sherpa_streaming_model": "The sherpa-onnx engine",
    "asr_enable_nearfield_filter": "Near-field filter",
    "max_streams": "Limits",
    "fake_asr_delay_ms": "The fake engine, for tests and measurements",
}


def default_text(field: FieldInfo) -> str:
    """A field's default as it is written in an env file."""
    value = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def render() -> str:
    """The whole file."""
    lines = [HEADER.rstrip("\n")]
    for name, field in Config.model_fields.items():
        if name in SECTIONS:
            lines += ["", "", f"# === {SECTIONS[name]} ==="]
        comment = " ".join((field.description or "").split())
        lines += ["", *textwrap.wrap(comment, 96, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"{name.upper()}={default_text(field)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
