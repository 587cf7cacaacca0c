"""What FunASR itself makes of inputs, one at a time. Runs in the interpreter that has funasr.

    python reference_offline.py MODEL_DIR INPUT OUT.json

``INPUT`` of a recogniser or a VAD is an npz of float32 audio; the name of an array may go on with
``|name=value`` for what ``generate()`` is to be told. Of a punctuation model it is a JSON list of
texts. ``OUT`` gets a JSON list: token ids (of SeACo Paraformer with the times of the tokens),
texts, or the probability of silence in each row. An array that is named ``features`` gives its
features.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from funasr import AutoModel  # type: ignore[import-not-found] # in its own interpreter only

QUIET = {"ncpu": 1, "disable_pbar": True}


def main(folder: Path, given: Path, out: Path) -> None:
    torch.set_num_threads(1)
    auto = AutoModel(
        model=str(folder), disable_update=True, device="cpu", log_level="ERROR", **QUIET
    )
    check_weights(auto.model, folder)
    kind = type(auto.model).__name__
    if kind.startswith("CTTransformer"):
        texts = json.loads(given.read_text("utf-8"))
        found: list[Any] = [auto.generate(input=text, **QUIET)[0]["text"] for text in texts]
    else:
        audio = np.load(given)
        hear = silence if kind == "FsmnVADStreaming" else token_ids
        found = [hear(auto, audio[name], name) for name in audio.files]
    out.write_text(json.dumps(found, ensure_ascii=False), "utf-8")


def check_weights(model: torch.nn.Module, folder: Path) -> None:
    """FunASR loads what it finds, and only warns of what is missing."""
    weights = torch.load(folder / "model.pt", weights_only=True)
    own = model.state_dict()
    if own.keys() != weights.keys():
        raise SystemExit(f"other parameters: {sorted(own.keys() ^ weights.keys())}")
    if not all(torch.equal(own[name], weights[name]) for name in weights):
        raise SystemExit("the weights were not loaded")


def token_ids(auto: AutoModel, audio: Any, name: str) -> Any:
    if name == "features":
        whole = torch.from_numpy(audio)[None]
        features, _ = auto.kwargs["frontend"](whole, torch.tensor([len(audio)]))
        return features[0].tolist()
    seen: list[int] = []
    kind = type(auto.kwargs["tokenizer"])  # generate() works on a copy of the tokenizer
    original = kind.ids2tokens

    def recording(tokenizer: Any, ids: Any) -> Any:
        seen.extend(int(token) for token in ids)
        return original(tokenizer, ids)

    kind.ids2tokens = recording
    try:
        told: dict[str, Any] = dict(part.split("=", 1) for part in name.split("|")[1:])
        if "use_itn" in told:
            told["use_itn"] = told["use_itn"] == "True"
        rate = auto.kwargs["frontend"].fs  # of arrays FunASR believes that they are at 16 kHz
        found = auto.generate(input=audio, fs=rate, **told, **QUIET)
    finally:
        kind.ids2tokens = original
    if type(auto.model).__name__ == "SeacoParaformer":
        return [seen, found[0]["timestamp"] if found and found[0] else []]
    return seen


def silence(auto: AutoModel, audio: Any, name: str) -> list[float]:
    frontend, encoder = auto.kwargs["frontend"], auto.model.encoder.eval()
    frontend_cache: dict[str, Any] = {}
    encoder_cache: dict[str, Any] = {}
    rows: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(audio), 960):
            piece = torch.from_numpy(audio[start : start + 960])[None]
            features, _ = frontend(piece, [piece.shape[1]], cache=frontend_cache)
            if features.shape[1]:
                rows += encoder(features, encoder_cache)[0, :, 0].tolist()
    return rows


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
