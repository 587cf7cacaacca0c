"""FunASR's models by name, and which of them settings need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.core.config import Config
from app.engines.funasr import catalogue
from app.engines.funasr.catalogue import MODELS, find, needed
from app.engines.funasr.hotwords import SYLLABLES_FILE
from app.engines.funasr.splitting import WORDS_FILE
from app.engines.funasr.tokens import SENTENCEPIECE_FILE


def settings(**changed: object) -> dict[str, object]:
    return Config.model_validate(changed).engine_settings("funasr")


def test_the_models_of_the_default_settings_are_in_the_catalogue() -> None:
    fields = ("streaming", "offline", "punctuation", "realtime_punctuation", "vad")
    for field in fields:
        name = str(settings()[f"FUNASR_{field.upper()}_MODEL"])
        assert find("fsmn-vad" if name == "auto" else name) is not None, name


def test_a_model_is_found_by_our_name_and_by_the_hub_s() -> None:
    assert find("SenseVoice-Small") is find("iic/SenseVoiceSmall") is MODELS[1]
    assert find("sensevoice") is None


def test_names_are_unique_and_every_model_has_weights_and_an_architecture() -> None:
    assert len({model.name for model in MODELS}) == len({m.source for m in MODELS}) == len(MODELS)
    for model in MODELS:
        assert {"config.yaml", "model.pt"} <= set(model.files)
        assert model.source.count("/") == 1 and model.size_bytes > 1_000_000


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ct-punc-large", WORDS_FILE),
        ("paraformer-zh", SYLLABLES_FILE),
        ("sensevoice-small", SENTENCEPIECE_FILE),
    ],
)
def test_a_list_of_words_or_pieces_must_be_there(name: str, file: str) -> None:
    """Without it the model would work, but worse than it can."""
    model = find(name)
    assert model is not None
    assert file in model.files


def test_punctuation_is_character_by_character_by_default() -> None:
    """So that FunASR's marks can be had without jieba and its dictionary."""
    model = find("ct-punc")
    assert model is find("iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch")
    assert model is not None
    assert WORDS_FILE not in model.files + model.extra_files


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({}, ["paraformer-zh-streaming", "sensevoice-small", "ct-punc", "fsmn-vad"]),
        ({"asr_model_mode": "offline"}, ["sensevoice-small", "ct-punc", "fsmn-vad"]),
        ({"asr_model_mode": "realtime"}, ["paraformer-zh-streaming", "ct-punc", "fsmn-vad"]),
        (
            {"asr_model_mode": "realtime", "asr_enable_realtime_punc": True},
            ["paraformer-zh-streaming", "ct-punc", "ct-punc-realtime", "fsmn-vad"],
        ),
        (
            # Without interim results there is nothing to punctuate in them.
            {"asr_model_mode": "offline", "asr_enable_realtime_punc": True},
            ["sensevoice-small", "ct-punc", "fsmn-vad"],
        ),
        (
            {"funasr_punctuation_model": "none", "funasr_vad_model": "None"},
            ["paraformer-zh-streaming", "sensevoice-small"],
        ),
        (
            {"asr_model_mode": "offline", "funasr_offline_model": "/models/ours"},
            ["/models/ours", "ct-punc", "fsmn-vad"],
        ),
        (
            {"asr_model_mode": "offline", "funasr_offline_model": "iic/SenseVoiceSmall"},
            ["sensevoice-small", "ct-punc", "fsmn-vad"],
        ),
        (
            {"funasr_offline_model_8k": "paraformer-zh-8k", "funasr_vad_model": "none"},
            ["paraformer-zh-streaming", "sensevoice-small", "paraformer-zh-8k", "ct-punc"],
        ),
        (
            # Without a second pass there is none at 8 kHz either.
            {"funasr_offline_model_8k": "paraformer-zh-8k", "asr_model_mode": "realtime"},
            ["paraformer-zh-streaming", "ct-punc", "fsmn-vad"],
        ),
        (
            # One punctuation model for both purposes is one model.
            {"asr_enable_realtime_punc": True, "funasr_realtime_punctuation_model": "ct-punc"},
            ["paraformer-zh-streaming", "sensevoice-small", "ct-punc", "fsmn-vad"],
        ),
    ],
)
def test_what_settings_need(changed: dict[str, object], names: list[str]) -> None:
    assert list(needed(settings(**changed), on_card=True)) == names


def test_a_cpu_needs_the_vad_only_if_it_is_named() -> None:
    usual = ("paraformer-zh-streaming", "sensevoice-small", "ct-punc")
    assert needed(settings(), on_card=False) == usual
    named = settings(funasr_vad_model="fsmn-vad")
    assert needed(named, on_card=False) == (*usual, "fsmn-vad")


def test_the_catalogue_is_light() -> None:
    """The supervisor and the commands import it."""
    heavy = "numpy", "torch", "modelscope", "modelscope_hub", "sentencepiece", "requests"
    code = (
        "import sys; from app.engines import registry; registry.model_files('funasr');"
        f"sys.exit(' '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    )
    root = Path(catalogue.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
