"""The recogniser, put together from the models that the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from app.core.cpus import usable_cores
from app.core.errors import EngineNotUsable
from app.engines.base import (
    OfflineRecognizer,
    Progress,
    RecognizerParts,
)
from app.engines.composed import capabilities_of
from app.engines.funasr.catalogue import find
from app.engines.funasr.files import ensure
from app.engines.funasr.graphs import check_card
from app.engines.funasr.narrowband import NARROW_RATE, NarrowbandRouter
from app.engines.funasr.offline import check_rate, load_offline
from app.engines.funasr.punctuation import load_punctuator
from app.engines.funasr.recognizer import load_streaming
from app.engines.funasr.settings import NONE, FunasrOptions, ModelRole
from app.engines.funasr.vad import load_detector

_RECOGNIZERS: Final[tuple[ModelRole, ...]] = ("streaming", "offline")

_RATES: Final[dict[ModelRole, int]] = {"offline": 16_000, "offline 8 kHz": NARROW_RATE}

_MOST_THREADS: Final = 8


def load_parts(wanted: str, options: FunasrOptions, progress: Progress) -> RecognizerParts:
    """All models on one device: ``auto`` (a card if there is one), ``cpu`` or ``cuda:0``.

    Models that are missing are downloaded first, so that a name that is none shows at once.

    Raises:
        EngineNotUsable: no such card, or files or settings are not usable.
    """
    device = _device(wanted)
    options.check_device(device)
    if not options.threads:
        options = replace(options, threads=_threads(usable_cores(), options.replicas))
    models = options.models(on_card=device != "cpu")
    _check_recognizers(models, options)
    _check_rates(models)
    folders = {
        role: ensure(model, cache=options.cache, offline=options.offline, progress=progress)
        for role, model in models.items()
    }
    common = (device, options, progress)
    offline: OfflineRecognizer | None = None
    streaming = punctuator = partial_punctuator = detector = None
    if folder := folders.get("streaming"):
        streaming = load_streaming(folder, *common)
    if folder := folders.get("offline"):
        offline = load_offline(folder, *common)
    if offline and (folder := folders.get("offline 8 kHz")):
        narrow = load_offline(folder, *common, sample_rate=NARROW_RATE)
        offline = NarrowbandRouter(offline, narrow)
    if folder := folders.get("punctuation"):
        punctuator = load_punctuator(folder, *common, realtime=False)
    if folder := folders.get("interim punctuation"):
        partial_punctuator = load_punctuator(folder, *common, realtime=True)
    if folder := folders.get("vad"):
        detector = load_detector(folder, *common)
    names = [Path(models[role]).name for role in _RECOGNIZERS if role in models]
    notice = ", then ".join(names)
    if isinstance(offline, NarrowbandRouter):
        notice += f" ({Path(models['offline 8 kHz']).name} for 8 kHz)"
    notice += f"; {options.dtype} on {device}"
    capabilities = capabilities_of(
        streaming, offline, punctuates=punctuator is not None, device=device, notice=notice
    )
    return RecognizerParts(
        capabilities, streaming, offline, punctuator, partial_punctuator, detector
    )


def _check_recognizers(models: Mapping[ModelRole, str], options: FunasrOptions) -> None:
    if any(role in models for role in _RECOGNIZERS):
        return
    names = {"realtime": "FUNASR_STREAMING_MODEL is", "offline": "FUNASR_OFFLINE_MODEL is"}
    both = "FUNASR_STREAMING_MODEL and FUNASR_OFFLINE_MODEL are"
    raise EngineNotUsable(
        f"nothing would recognise speech: {names.get(options.mode, both)} {NONE}, and "
        f"ASR_MODEL_MODE is {options.mode}"
    )


def _check_rates(models: Mapping[ModelRole, str]) -> None:
    """Of models in the catalogue: before they are downloaded. Of folders: ``load_offline``."""
    if "offline 8 kHz" in models and "offline" not in models:
        raise EngineNotUsable(
            "FUNASR_OFFLINE_MODEL_8K is set without FUNASR_OFFLINE_MODEL, and other audio needs a "
            "model too"
        )
    for role, rate in _RATES.items():
        entry = find(models[role]) if role in models else None
        if entry is not None and entry.sample_rate is not None:
            check_rate(f"model {entry.name}", entry.sample_rate, rate)


def _threads(cores: int, replicas: int) -> int:
    """Of a step, on a CPU: all but one of a replica's share of the cores, because threads that wait
    for one whose core the rest of the server has are slower than fewer threads (two on two busy
    cores took twice the time of one: docs/benchmarks.md); at most 8, for want of work for more."""
    return max(1, min(_MOST_THREADS, cores // max(1, replicas) - 1))


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    check_card(wanted)
    return wanted
