"""FunASR's published models, by the names that the settings use.

The names, and the models at the hub that they stand for, are those of funasr 1.4.16
(funasr/download/name_maps_from_hub.py), but for the final punctuation: what FunASR calls
``ct-punc`` is ``ct-punc-large`` here, and its ``ct-punc-c`` is ``ct-punc``. The large one has whole
words as tokens, into which FunASR cuts a text by jieba's dictionary and here the model's own list
does, not always alike; the other one goes character by character.

Revisions are the ones that FunASR's own documentation and servers pin; where they pin none, it is
``master``. Sizes are those of the published ``model.pt``, rounded (of ``paraformer-zh-8k`` by the
68 million parameters that FunASR's list tells of the same model for 16 kHz); checksums come from
the hub's file list at the time of the download (``manifest.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.engines.funasr.settings import FunasrOptions
from app.engines.models import Model

LICENCE: Final = "FunASR Model Open Source License 1.1"
"""That of all these models, <https://github.com/modelscope/FunASR/blob/main/MODEL_LICENSE>: free to
use, also commercially, if the source and the names of the models are told."""

_MANDARIN: Final = ("zh", "en")
_EXTRA: Final = ("configuration.json", "README.md")
"""The hub's own description of a model, which its other tools want to see, and its licence."""

MODELS: Final = (
    Model(
        name="paraformer-zh-streaming",
        purpose="recognition while one speaks",
        languages=_MANDARIN,
        sample_rate=16_000,
        source="iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online",
        revision="v2.0.4",
        files=("config.yaml", "model.pt", "am.mvn", "tokens.json"),
        extra_files=(*_EXTRA, "seg_dict"),
        size_bytes=890_000_000,
        licence=LICENCE,
    ),
    Model(
        name="sensevoice-small",
        purpose="recognition of whole sentences and files, with emotions and events",
        languages=("zh", "yue", "en", "ja", "ko"),
        sample_rate=16_000,
        source="iic/SenseVoiceSmall",
        revision="master",
        files=("config.yaml", "model.pt", "am.mvn", "chn_jpn_yue_eng_ko_spectok.bpe.model"),
        extra_files=(*_EXTRA, "tokens.json"),
        size_bytes=940_000_000,
        licence=LICENCE,
    ),
    Model(
        name="paraformer-zh",
        purpose="recognition of whole sentences and files, with hotwords",
        languages=_MANDARIN,
        sample_rate=16_000,
        source="iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
        revision="v2.0.4",
        # seg_dict: the tokens of English hotwords.
        files=("config.yaml", "model.pt", "am.mvn", "tokens.json", "seg_dict"),
        extra_files=_EXTRA,
        size_bytes=1_000_000_000,
        licence=LICENCE,
    ),
    Model(
        name="paraformer-zh-8k",
        purpose="recognition of whole sentences and files that came at 8 kHz: telephone",
        languages=("zh",),
        sample_rate=8_000,
        source="iic/speech_paraformer_asr_nat-zh-cn-8k-common-vocab8358-tensorflow1",
        revision="v2.0.4",
        files=("config.yaml", "model.pt", "am.mvn", "tokens.json"),
        extra_files=(*_EXTRA, "seg_dict"),
        size_bytes=270_000_000,
        licence=LICENCE,
    ),
    Model(
        name="ct-punc",
        purpose="punctuation of final results",
        languages=("zh",),
        sample_rate=None,
        source="iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
        revision="v2.0.4",
        files=("config.yaml", "model.pt", "tokens.json"),
        extra_files=_EXTRA,
        size_bytes=290_000_000,
        licence=LICENCE,
    ),
    Model(
        name="ct-punc-large",
        purpose="punctuation of final results, word by word",
        languages=_MANDARIN,
        sample_rate=None,
        source="iic/punc_ct-transformer_cn-en-common-vocab471067-large",
        revision="v2.0.4",
        # jieba_usr_dict: the words that its tokens are.
        files=("config.yaml", "model.pt", "tokens.json", "jieba_usr_dict"),
        extra_files=(*_EXTRA, "jieba.c.dict"),
        size_bytes=1_130_000_000,
        licence=LICENCE,
    ),
    Model(
        name="ct-punc-realtime",
        purpose="punctuation of interim results",
        languages=("zh",),
        sample_rate=None,
        source="iic/punc_ct-transformer_zh-cn-common-vad_realtime-vocab272727",
        revision="v2.0.4",
        files=("config.yaml", "model.pt", "tokens.json"),
        extra_files=_EXTRA,
        size_bytes=295_000_000,
        licence=LICENCE,
    ),
    Model(
        name="fsmn-vad",
        purpose="voice activity detection",
        languages=("zh",),
        sample_rate=16_000,
        source="iic/speech_fsmn_vad_zh-cn-16k-common-pytorch",
        revision="v2.0.4",
        files=("config.yaml", "model.pt", "am.mvn"),
        extra_files=_EXTRA,
        size_bytes=1_800_000,
        licence=LICENCE,
    ),
)


def find(name: str) -> Model | None:
    """The model of this name, or of this name at the hub, in upper or lower case."""
    wanted = name.lower()
    return next((m for m in MODELS if wanted in (m.name, m.source.lower())), None)


def needed(settings: Mapping[str, object], *, on_card: bool) -> tuple[str, ...]:
    """The models that the engine loads with these settings, on a card or a CPU: names, or folders
    of the owner's.

    Final punctuation is for all modes: SenseVoice, too, leaves it out where the client does not ask
    for figures as well.

    Raises:
        EngineNotUsable: a value is none that the setting can have.
    """
    wanted = FunasrOptions.parse(settings).models(on_card=on_card)
    return tuple(dict.fromkeys(map(_our_name, wanted.values())))


def _our_name(name: str) -> str:
    entry = find(name)
    return name if entry is None else entry.name
