"""FunASR's own streaming, one stream after the other. Run by FunASR's interpreter:

    python reference_streaming.py MODEL_DIR AUDIO.npz OUT.json

AUDIO.npz: streams by name, float32 at 16 kHz. A name is ``ROWS_RIGHT_AGE_NUMBER``: FunASR's
chunk_size [0, ROWS, RIGHT]; before its sixth chunk the stream is made AGE rows old. OUT.json: the
token ids of each stream, by name, and the shapes of FunASR's parameters, by theirs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROW = 960
AGED_AT = 5


def main(model: str, audio: str, out: str) -> None:
    from funasr import AutoModel  # type: ignore[import-not-found]  # in its own environment only

    torch.set_num_threads(1)
    auto = AutoModel(
        model=model,
        disable_update=True,
        device="cpu",
        ncpu=1,
        disable_pbar=True,
        log_level="ERROR",
    )
    seen: list[int] = []
    # generate() works on a copy of the tokenizer, so its class is what can be listened to.
    tokenizer = type(auto.kwargs["tokenizer"])
    original = tokenizer.ids2tokens

    def recording(self: Any, ids: list[int]) -> Any:
        seen.extend(ids)
        return original(self, ids)

    tokenizer.ids2tokens = recording
    found: dict[str, list[int]] = {}
    with np.load(audio) as streams:
        for name in streams.files:
            seen.clear()
            run(auto, name, streams[name])
            found[name] = [int(token) for token in seen]
    parameters = {name: list(tensor.shape) for name, tensor in auto.model.state_dict().items()}
    Path(out).write_text(json.dumps({"tokens": found, "parameters": parameters}), "utf-8")


def run(auto: Any, name: str, samples: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """One stream in whole chunks and a rest, as FunASR's examples feed it."""
    rows, right, age, _ = (int(part) for part in name.split("_"))
    cache: dict[str, Any] = {}
    size = rows * ROW
    for start in range(0, max(len(samples), 1), size):
        if start == AGED_AT * size and age:
            cache["encoder"]["start_idx"] = age
        auto.generate(
            input=samples[start : start + size].copy(),
            cache=cache,
            is_final=start + size >= len(samples),
            chunk_size=[0, rows, right],
            encoder_chunk_look_back=4,
            decoder_chunk_look_back=1,
            ncpu=1,
            disable_pbar=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
