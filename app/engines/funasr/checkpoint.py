"""A model's folder as the hub has it: what is read of it, and what is checked.

    config.yaml   the architecture        model.pt      weights
    tokens.json   names of the tokens     am.mvn        normalisation of the features

A model that differs from what is computed here by a single key would load and be wrong in silence;
so every key that matters is declared, and any other value is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import numpy as np
import torch
import yaml
from torch import Tensor, nn

from app.core.errors import EngineNotUsable

Known = TypeVar("Known", bound=msgspec.Struct)

_VERIFY: Final = "see `funspeech models verify`"
_NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Where the weights may be inside of a checkpoint: funasr 1.4.16, load_pretrained_model.py."""

Ignored = Any
"""Of a key that only training knows."""


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a part of config.yaml in which every key must be known."""


class Frontend(Strict, frozen=True, kw_only=True):
    """``frontend_conf``. ``fs``: the audio's rate (Hz). ``lfr_m``, ``lfr_n``: frames in a row, and
    from one row to the next."""

    fs: Literal[16000, 8000] = 16000
    window: Literal["hamming"] = "hamming"
    n_mels: Literal[80] = 80
    frame_length: Literal[25] = 25
    frame_shift: Literal[10] = 10
    lfr_m: int
    lfr_n: int
    dither: Ignored = None
    cmvn_file: Ignored = None
    upsacle_samples: Ignored = None


class AnyRowFrontend(Frontend, frozen=True, kw_only=True):
    """The frontend of the recognisers: rows of seven frames, every six."""

    lfr_m: Literal[7]
    lfr_n: Literal[6]


class RowFrontend(AnyRowFrontend, frozen=True, kw_only=True):
    """The same, of those that are for 16 kHz only."""

    fs: Literal[16000] = 16000


class Predictor(Strict, frozen=True, kw_only=True):
    """``predictor_conf`` of ``CifPredictorV2``."""

    idim: int
    l_order: int
    r_order: int
    threshold: Annotated[float, msgspec.Meta(ge=1.0, le=1.0)] = 1.0
    smooth_factor: Annotated[float, msgspec.Meta(ge=1.0, le=1.0)] = 1.0
    noise_threshold: Annotated[float, msgspec.Meta(ge=0.0, le=0.0)] = 0.0
    tail_threshold: float = 0.0
    dropout: Ignored = None
    tf2torch_tensor_name_prefix_torch: Ignored = None
    tf2torch_tensor_name_prefix_tf: Ignored = None


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml as it is.

    Raises:
        EngineNotUsable: it is not there, or not YAML.
    """
    path = folder / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise unusable(path, error) from None
    if not isinstance(found, dict):
        raise unusable(path, "it is not a table of settings")
    return found


def architecture(folder: Path, config: object, kind: type[Known]) -> Known:
    """config.yaml's content as ``kind``, which declares what is known.

    Raises:
        EngineNotUsable: a key or value is not among that.
    """
    try:
        return msgspec.convert(config, kind)
    except msgspec.ValidationError as error:
        where = folder / "config.yaml"
        raise EngineNotUsable(f"{where} is not a model that FunSpeech knows: {error}") from None


def read_tokens(folder: Path) -> list[str]:
    """tokens.json: the name of each token, by its id.

    Raises:
        EngineNotUsable: it is not there, or not a list of texts.
    """
    path = folder / "tokens.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unusable(path, error) from None


def read_normalisation(folder: Path, width: int) -> tuple[Tensor, Tensor] | None:
    """am.mvn, a network of Kaldi as text: what is added to each of ``width`` features, and what
    the sum is multiplied by; None where there is no such file.

    Raises:
        EngineNotUsable: it is not readable as that.
    """
    path = folder / "am.mvn"
    if not path.exists():
        return None
    try:
        words = path.read_text("utf-8").split()
        return _vector(words, "<AddShift>", width), _vector(words, "<Rescale>", width)
    except (OSError, ValueError) as error:
        raise unusable(path, error) from None


def load_weights(module: nn.Module, folder: Path) -> None:
    """model.pt into ``module``, on the CPU; every parameter must be there, and no other.

    Raises:
        EngineNotUsable: it is not there, damaged, or of another architecture.
    """
    path = folder / "model.pt"
    try:
        # Checkpoints from before torch 1.6 are no archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise unusable(path, error) from None
    try:
        missing, unexpected = module.load_state_dict(_unwrapped(weights), strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:  # shapes; not a table at all
        raise unusable(path, error) from None
    if missing or unexpected:
        raise EngineNotUsable(
            f"{path} is not a model that FunSpeech knows: "
            f"it lacks {_some(missing)}, and has {_some(unexpected)} beyond what is known"
        )


def unusable(path: Path, reason: object) -> EngineNotUsable:
    """A file is missing or damaged, in one line."""
    if isinstance(reason, FileNotFoundError):
        return EngineNotUsable(f"{path} is missing; {_VERIFY}")
    text = " ".join(str(reason).split())
    return EngineNotUsable(f"{path} cannot be used ({text[:200]}); {_VERIFY}")


def _vector(words: list[str], name: str, width: int) -> Tensor:
    """``<AddShift> 560 560 <LearnRateCoef> 0 [ numbers ]``"""
    if name not in words:
        raise ValueError(f"it has no {name}")
    begin = words.index("[", words.index(name)) + 1
    numbers = np.array(words[begin : words.index("]", begin)], dtype=np.float32)
    if numbers.shape != (width,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} has {numbers.size} numbers in place of {width}")
    return torch.from_numpy(numbers)


def _unwrapped(weights: Any) -> Any:
    for key in _NESTED:
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            return weights[key]
    return weights


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
