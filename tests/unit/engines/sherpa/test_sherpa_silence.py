"""Nothing that the runtime writes about people's words gets out of a worker that serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.sherpa import zipformer2

PROGRAM = """
import sys
import structlog
from app.core import logs, native_output

close = logs.setup_child("asr-0", fd=native_output.own_stderr())
import sherpa_onnx

files = {name: f"{sys.argv[1]}/{name}.onnx" for name in ("encoder", "decoder", "joiner")}
recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    **files,
    tokens=f"{sys.argv[1]}/tokens.txt",
    num_threads=1,
    decoding_method="modified_beam_search",
    modeling_unit="cjkchar",
)
recognizer.create_stream("雪人 :2.0/你好 :2.0")
structlog.get_logger("tests").info("ready")
native_output.drop()
recognizer.create_stream("秘密 :2.0/你好 :2.0")
recognizer.create_stream("你好").accept_waveform(8000, [0.0] * 800)
structlog.get_logger("tests").info("served")
close()
"""


def test_hotwords_that_a_model_does_not_know_are_not_told(tmp_path: Path) -> None:
    folder = zipformer2.transducer(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
    )
    # Else the runtime has become silent by itself, and this test tells nothing.
    assert "雪" in done.stdout
    assert '"event":"ready"' in done.stdout
    assert "密" not in done.stdout
    assert "resampler" not in done.stdout
    assert done.stdout.splitlines()[-1].find('"event":"served"') > 0
