"""FunASR itself: what one chunk costs it. Run by FunASR's interpreter, without anything of ours:

    python asr_reference.py MODEL_DIR AUDIO.npy AGE

AUDIO.npy: float32 at 16 kHz, heard again and again. AGE: rows of an old stream. It prints its
versions as one line of JSON, and then answers each line of its input, the name of a kind: ``fp32``,
``int8`` (torch's dynamic quantisation of the Linear layers), or ``old`` (fp32, a stream of AGE
rows). The answer to a kind is the CPU seconds of its next chunk, and the tokens in it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any, TextIO

import numpy as np
import torch

CHUNK = 9600


class Streaming:
    """One endless stream of one model, as FunASR's examples feed it. ``age``: rows that it claims
    to have heard, at each chunk."""

    def __init__(self, auto: Any, audio: np.ndarray[Any, Any], age: int = 0) -> None:
        self._auto = auto
        self._audio = audio
        self._age = age
        self._at = 0
        self._cache: dict[str, Any] = {}

    def chunk(self) -> None:
        """Hear the next chunk."""
        if self._at + CHUNK > len(self._audio):
            self._at = 0
        if self._age and self._cache:
            self._cache["encoder"]["start_idx"] = self._age
        self._auto.generate(
            input=self._audio[self._at : self._at + CHUNK].copy(),
            cache=self._cache,
            is_final=False,
            chunk_size=[0, 10, 5],
            encoder_chunk_look_back=4,
            decoder_chunk_look_back=1,
            ncpu=1,
            disable_pbar=True,
        )
        self._at += CHUNK


def main(model: str, audio: str, age: str) -> None:
    """Serve until the input ends."""
    answers = _own_output()
    torch.set_num_threads(1)
    fp32, int8 = _load(model), _load(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        int8.model = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]  # torch's
            int8.model, {torch.nn.Linear}, dtype=torch.qint8
        )
    tokens = _counted(fp32)
    samples = np.load(audio)
    streams = {
        "fp32": Streaming(fp32, samples),
        "int8": Streaming(int8, samples),
        "old": Streaming(fp32, samples, int(age)),
    }
    print(json.dumps({"funasr": version("funasr"), "torch": torch.__version__}), file=answers)
    for line in sys.stdin:
        tokens.clear()
        began = time.process_time()
        streams[line.strip()].chunk()
        seconds = time.process_time() - began
        print(json.dumps({"seconds": seconds, "tokens": len(tokens)}), file=answers)


def _own_output() -> TextIO:
    """Where the answers go. FunASR prints to the standard output, which becomes that of errors."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _load(model: str) -> Any:
    from funasr import AutoModel  # type: ignore[import-not-found]  # in its own environment only

    return AutoModel(
        model=model,
        disable_update=True,
        device="cpu",
        ncpu=1,
        disable_pbar=True,
        log_level="ERROR",
    )


def _counted(auto: Any) -> list[int]:
    """The tokens that are found from now on, of all models. generate() works on a copy of the
    tokenizer, so its class is what can be listened to."""
    seen: list[int] = []
    tokenizer = type(auto.kwargs["tokenizer"])
    original = tokenizer.ids2tokens

    def recording(self: Any, ids: list[int]) -> Any:
        seen.extend(ids)
        return original(self, ids)

    tokenizer.ids2tokens = recording
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])
