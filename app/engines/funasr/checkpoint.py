"""A model's folder as the hub has it: what is read of it, and what is checked.

    config.yaml   the architecture        model.pt      weights
    tokens.json   names of the tokens     am.mvn        normalisation of the features

A model that differs from what is computed here by a single key would load and be wrong in silence;
so every key that matters is declared, and any other value is refused.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import numpy as np
import torch
import yaml
from torch import Tensor, nn

from app.core.errors import EngineNotUsable
from app.engines.reading import check_file, read_bytes

Known = TypeVar("Known", bound=msgspec.Struct)

_VERIFY: Final = "see `funspeech models verify`"
_NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Where the weights may be inside of a checkpoint: funasr 1.4.16, load_pretrained_model.py."""

_MOST_OF_CONFIG: Final = 1_000_000
_MOST_OF_NORMALISATION: Final = 16_000_000
_MOST_OF_A_LIST: Final = 64_000_000
"""Bytes of a file; the longest published list, of 471,067 tokens, has some 10 million."""
_REASON_CHARS: Final = 200
_NAME_CHARS: Final = 80
_DAMAGED: Final = "it is damaged, or no checkpoint of PyTorch with nothing but weights in it"

Ignored = Any
"""Of a key that only training knows."""

# Sizes, several times those of the published models: what is beyond is a damaged file.
Width = Annotated[int, msgspec.Meta(ge=1, le=4096)]
"""Channels between layers."""
Hidden = Annotated[int, msgspec.Meta(ge=1, le=16_384)]
"""Channels inside of a layer."""
Heads = Annotated[int, msgspec.Meta(ge=1, le=256)]
Blocks = Annotated[int, msgspec.Meta(ge=1, le=128)]
Kernel = Annotated[int, msgspec.Meta(ge=1, le=255)]
"""Places that a convolution sees."""
Places = Annotated[int, msgspec.Meta(ge=0, le=255)]
"""Of them, those on one side."""


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

    idim: Width
    l_order: Places
    r_order: Places
    threshold: Annotated[float, msgspec.Meta(ge=1.0, le=1.0)] = 1.0
    smooth_factor: Annotated[float, msgspec.Meta(ge=1.0, le=1.0)] = 1.0
    noise_threshold: Annotated[float, msgspec.Meta(ge=0.0, le=0.0)] = 0.0
    tail_threshold: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.0
    dropout: Ignored = None
    tf2torch_tensor_name_prefix_torch: Ignored = None
    tf2torch_tensor_name_prefix_tf: Ignored = None


class _Loader(yaml.SafeLoader):
    """Plain values only. Aliases stay shared; but ``<<`` copies what it names, and a few lines of
    it would fill the memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("it has '<<', which no model's configuration needs")


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml as it is.

    Raises:
        EngineNotUsable: it is not there, or not YAML.
    """
    path = folder / "config.yaml"
    text = read_text(path, _MOST_OF_CONFIG)
    try:
        found = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise unusable(path, error) from None
    except Exception:
        # Of values that are none (a date with a 99th month, a number of thousands of digits, lists
        # a thousand levels deep) PyYAML lets all kinds through.
        raise unusable(path, "it is YAML with a value that cannot be read") from None
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
        raise unknown(folder, str(error)) from None


def unknown(folder: Path, reason: str) -> EngineNotUsable:
    """config.yaml is readable, but of a model that is not computed here."""
    where = folder / "config.yaml"
    text = reason[:_REASON_CHARS]
    return EngineNotUsable(f"{where} is not a model that FunSpeech knows: {text}")


def read_text(path: Path, most_bytes: int = _MOST_OF_A_LIST) -> str:
    """A text file of a model.

    Raises:
        EngineNotUsable: it is not there, no plain file, larger than ``most_bytes``, or not UTF-8.
    """
    try:
        return read_bytes(path, most_bytes).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise unusable(path, error) from None


def read_tokens(folder: Path) -> list[str]:
    """tokens.json: the name of each token, by its id.

    Raises:
        EngineNotUsable: it is not there, or not a list of texts.
    """
    path = folder / "tokens.json"
    try:
        return msgspec.json.decode(read_bytes(path, _MOST_OF_A_LIST), type=list[str])
    except (OSError, ValueError) as error:
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
    words = read_text(path, _MOST_OF_NORMALISATION).split()
    try:
        return _vector(words, "<AddShift>", width), _vector(words, "<Rescale>", width)
    except ValueError as error:
        raise unusable(path, error) from None


def load_weights(module: nn.Module, folder: Path) -> None:
    """model.pt into ``module``, on the CPU; every parameter must be there, and no other.

    Raises:
        EngineNotUsable: it is not there, damaged, or of another architecture.
    """
    path = folder / "model.pt"
    weights = _read_weights(path)
    try:
        missing, unexpected = module.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # shapes
        raise unusable(path, error) from None
    if missing or unexpected:
        raise EngineNotUsable(
            f"{path} is not a model that FunSpeech knows: "
            f"it lacks {_some(missing)}, and has {_some(unexpected)} beyond what is known"
        )


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        check_file(path)
        # Checkpoints from before torch 1.6 are no archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
    except (OSError, ValueError) as error:
        raise unusable(path, error) from None
    try:
        weights = _unwrapped(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except Exception:
        # A damaged pickle may lead to anything; and torch's own text tells how to run its code.
        raise unusable(path, _DAMAGED) from None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise unusable(path, _DAMAGED)
    return weights


def unusable(path: Path, reason: object) -> EngineNotUsable:
    """A file is missing or damaged, in one line."""
    if isinstance(reason, FileNotFoundError):
        return EngineNotUsable(f"{path} is missing; {_VERIFY}")
    known = isinstance(reason, OSError) and reason.strerror
    text = " ".join(str(known or reason)[:1000].split())
    return EngineNotUsable(f"{path} cannot be used ({text[:_REASON_CHARS]}); {_VERIFY}")


def _vector(words: list[str], name: str, width: int) -> Tensor:
    """``<AddShift> 560 560 <LearnRateCoef> 0 [ numbers ]``"""
    if name not in words:
        raise ValueError(f"it has no {name}")
    try:
        begin = words.index("[", words.index(name)) + 1
        numbers = np.array(words[begin : words.index("]", begin)], dtype=np.float64)
    except ValueError:
        raise ValueError(f"{name} has no list of numbers") from None
    if numbers.shape != (width,):
        raise ValueError(f"{name} has {numbers.size} numbers in place of {width}")
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise ValueError(f"{name} has numbers that are none, or too large")
    return torch.from_numpy(numbers.astype(np.float32))


def _unwrapped(weights: Any) -> Any:
    for key in _NESTED:
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            return weights[key]
    return weights


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name[:_NAME_CHARS] for name in names[:3]) + more
