"""Which kind of model a folder has, and whether the runtime can be trusted with it.

Keys of the metadata: sherpa-onnx 1.13.4, online-zipformer-transducer-model.cc,
online-zipformer2-transducer-model.cc, online-zipformer2-ctc-model.cc, online-paraformer-model.cc,
offline-paraformer-model.cc, offline-sense-voice-model.cc, offline-ct-transformer-model.cc. What is
refused here would end the process there (sherpa-onnx 2.0.1), or read past the end of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from app.core.errors import EngineNotUsable
from app.engines.sherpa.folder import lines_of, onnx_paths, the_file, unusable
from app.engines.sherpa.onnx_file import OnnxFile, read_onnx

Kind = Literal[
    "transducer", "ctc", "streaming Paraformer", "SenseVoice", "Paraformer", "ct-transformer"
]
ModelRole = Literal["streaming", "offline", "punctuation", "voice"]
"""What a model is for; those for "voice" are in ``voice_kinds.py``."""

KINDS: Final[dict[ModelRole, tuple[Kind, ...]]] = {
    "streaming": ("transducer", "ctc", "streaming Paraformer"),
    "offline": ("SenseVoice", "Paraformer"),
    "punctuation": ("ct-transformer",),
}

TOKENS: Final = "tokens.txt"
BPE_VOCABULARY: Final = "bpe.vocab"
SAMPLE_RATE: Final = 16_000
"""Of the audio that all models of recognition take, in Hz."""
RATES: Final = (8_000, 48_000)
"""Those in Hz that other models of sound may have."""
FRAME_MS: Final = 10
_MELS: Final = 80
_PARTS: Final = ("encoder", "decoder", "joiner")
_CHUNK_OF_PARAFORMER_MS: Final = 600
"""Audio in a chunk: the runtime has no other (online-recognizer-paraformer-impl.h)."""
_TAIL_OF_PARAFORMER_MS: Final = 100
"""Silence after which a tone at the very end was heard wherever it began (2.0.1, seen)."""
_LAYERS: Final = ("num_encoder_layers", "encoder_dims", "cnn_module_kernels", "left_context_len")
_LISTS: Final[dict[str, tuple[str, ...]]] = {
    "zipformer": (*_LAYERS, "attention_dims"),
    "zipformer2": (*_LAYERS, "query_head_dims", "value_head_dims", "num_heads"),
}
"""By ``model_type``: what a zipformer's metadata have for each of its stacks."""
_CTC_BLANKS: Final = ("<blk>", "<eps>", "<blank>")
_SENSE_VOICE_KEYS: Final = (
    *("normalize_samples", "with_itn", "without_itn"),
    *(f"lang_{name}" for name in ("auto", "zh", "en", "ja", "ko", "yue")),
)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A folder's model, fit for the runtime.

    ``files``: by what the runtime calls them (encoder, model …). ``symbols``: of ``tokens``, by
    their ids. ``chunk_ms``: audio by which a streaming model moves on; ``tail_ms``: silence that
    brings its last frames out. ``batches``: what a stream gives does not depend on those it shares
    a call with. ``word_times``: its results have them.
    """

    kind: Kind
    folder: Path
    files: dict[str, Path]
    batches: bool
    symbols: tuple[str, ...] = field(default=(), repr=False)
    chunk_ms: int = 0
    tail_ms: int = 0
    word_times: bool = True

    @property
    def tokens(self) -> Path:
        """tokens.txt."""
        return self.folder / TOKENS

    @property
    def bpe_vocabulary(self) -> Path | None:
        """How Latin words are cut into tokens; not every model comes with it."""
        path = self.folder / BPE_VOCABULARY
        return path if path.is_file() else None


def find_model(folder: Path, role: ModelRole) -> FoundModel:
    """The model in ``folder``; int8 files are taken before others.

    Raises:
        EngineNotUsable: there is none for this role, or the runtime could not work with it.
    """
    paths = onnx_paths(folder)
    whole = [path for path in paths if not path.name.startswith(_PARTS)]
    if any(path.name.startswith("encoder") for path in paths) or (paths and not whole):
        model = _of_parts(folder, paths)
    else:
        model = _of_one_file(folder, read_onnx(the_file(folder, whole, "*.onnx")))
    if model.kind not in KINDS[role]:
        raise EngineNotUsable(
            f"{folder} has a {model.kind} model, which is not for {role}; for {role} are "
            f"{', '.join(KINDS[role])}"
        )
    return model


def _of_parts(folder: Path, paths: Sequence[Path]) -> FoundModel:
    found = {part: [path for path in paths if path.name.startswith(part)] for part in _PARTS}
    names = _PARTS if found["joiner"] else _PARTS[:2]
    files = {name: read_onnx(the_file(folder, found[name], f"{name}*.onnx")) for name in names}
    if "joiner" in files:
        return _transducer(folder, files)
    return _streaming_paraformer(folder, files)


def _of_one_file(folder: Path, file: OnnxFile) -> FoundModel:
    known = file.metadata
    if "punctuations" in known:
        return _ct_transformer(folder, file)
    if "lang_auto" in known:
        return _sense_voice(folder, file)
    if "lfr_window_size" in known:
        return _paraformer(folder, file)
    if "decode_chunk_len" in known:
        return _ctc(folder, file)
    raise unusable(file.path, "by its metadata it is no model of a kind that is known here")


# Kinds


def _transducer(folder: Path, files: dict[str, OnnxFile]) -> FoundModel:
    encoder, decoder = files["encoder"], files["decoder"]
    model_type = encoder.text("model_type")
    if model_type not in _LISTS:
        raise unusable(
            encoder.path, f"model_type is {model_type[:40]!r}, not {' or '.join(_LISTS)}"
        )
    chunk_ms, tail_ms = _chunk(encoder, model_type)
    decoder.number("context_size", least=1)
    symbols = read_symbols(folder, decoder.number("vocab_size", least=1))
    return _model("transducer", folder, files, symbols, chunk_ms, tail_ms)


def _ctc(folder: Path, file: OnnxFile) -> FoundModel:
    chunk_ms, tail_ms = _chunk(file, "zipformer2")
    size = file.outputs[0][-1] if file.outputs[0] else None
    if not size:
        raise unusable(file.path, "the size of its vocabulary is not in its output's shape")
    symbols = read_symbols(folder, size)
    if not any(blank in symbols for blank in _CTC_BLANKS):
        raise unusable(folder / TOKENS, f"it has none of {', '.join(_CTC_BLANKS)}")
    return _model("ctc", folder, {"model": file}, symbols, chunk_ms, tail_ms)


def _chunk(file: OnnxFile, model_type: str) -> tuple[int, int]:
    """Milliseconds of a chunk, and of what the model must have before the last frames come out."""
    stacks = {key: file.numbers(key) for key in _LISTS[model_type]}
    if len({len(values) for values in stacks.values()}) > 1:
        raise unusable(file.path, f"{', '.join(stacks)} differ in their lengths")
    step = file.number("decode_chunk_len", least=1)
    return step * FRAME_MS, (file.number("T", least=step) + 1) * FRAME_MS


def _streaming_paraformer(folder: Path, files: dict[str, OnnxFile]) -> FoundModel:
    encoder = files["encoder"]
    _check_stacking(encoder)
    for key in ("encoder_output_size", "decoder_num_blocks", "decoder_kernel_size"):
        encoder.number(key, least=1)
    symbols = read_symbols(folder, encoder.number("vocab_size", least=1))
    model = _model(
        "streaming Paraformer",
        folder,
        files,
        symbols,
        _CHUNK_OF_PARAFORMER_MS,
        _TAIL_OF_PARAFORMER_MS,
    )
    # In a call the runtime decodes one after the other, so a scale for a call is one for a stream.
    return replace(model, word_times=False, batches=True)


def _sense_voice(folder: Path, file: OnnxFile) -> FoundModel:
    _check_stacking(file)
    for key in _SENSE_VOICE_KEYS:
        file.number(key)
    if "Nano" in file.metadata.get("comment", ""):
        raise unusable(file.path, "it is a FunASR-Nano, which is not known here")
    symbols = read_symbols(folder, file.number("vocab_size", least=1))
    return _model("SenseVoice", folder, {"model": file}, symbols)


def _paraformer(folder: Path, file: OnnxFile) -> FoundModel:
    _check_stacking(file)
    symbols = read_symbols(folder, file.number("vocab_size", least=1))
    if "</s>" not in symbols:
        raise unusable(folder / TOKENS, "it has no </s>")
    model = _model("Paraformer", folder, {"model": file}, symbols)
    # Beyond logits and their number: where each token is. Not every export has them.
    return replace(model, word_times=len(file.outputs) > 2)


def _ct_transformer(folder: Path, file: OnnxFile) -> FoundModel:
    words, marks = file.text("tokens").split("|"), file.text("punctuations").split("|")
    size = file.number("vocab_size", least=1)
    if len(words) != size:
        raise unusable(file.path, f"its metadata have {len(words)} tokens in place of {size}")
    if file.text("unk_symbol") not in words:
        raise unusable(file.path, "its unk_symbol is none of its tokens")
    lacking = [mark for mark in ("_", "，", "。", "？", "、") if mark not in marks]
    if lacking:
        raise unusable(file.path, f"its punctuations lack {' '.join(lacking)}")
    return _model("ct-transformer", folder, {"model": file}, ())


def _check_stacking(file: OnnxFile) -> None:
    stacked = file.number("lfr_window_size", least=1)
    file.number("lfr_window_shift", least=1)
    for key in ("neg_mean", "inv_stddev"):
        file.check_floats(key, stacked * _MELS)


def _model(
    kind: Kind,
    folder: Path,
    files: dict[str, OnnxFile],
    symbols: tuple[str, ...],
    chunk_ms: int = 0,
    tail_ms: int = 0,
) -> FoundModel:
    return FoundModel(
        kind,
        folder,
        {name: file.path for name, file in files.items()},
        batches=not any(file.scaled_by_call for file in files.values()),
        symbols=symbols,
        chunk_ms=chunk_ms,
        tail_ms=tail_ms,
    )


# Tokens


def read_symbols(folder: Path, size: int) -> tuple[str, ...]:
    """The ``size`` symbols of a model, by their ids, of the "symbol id" lines in tokens.txt; a line
    of an id alone is that of the space. Further ones (icefall's #0, #1 …) do no harm.

    Raises:
        EngineNotUsable: the file cannot be read, or does not have them all.
    """
    found = read_all_symbols(folder)
    lacking = next((token for token in range(size) if token not in found), None)
    if lacking is not None:
        path = folder / TOKENS
        raise unusable(path, f"it has no token {lacking}, and its model {size} tokens")
    return tuple(found[token] for token in range(size))


def read_all_symbols(folder: Path) -> dict[int, str]:
    """All symbols in tokens.txt by their ids, where the model does not tell how many it has.

    Raises:
        EngineNotUsable: the file cannot be read, or has none.
    """
    path = folder / TOKENS
    found: dict[int, str] = {}
    for number, line in enumerate(lines_of(path), 1):
        *symbol, token = line.split() or [b""]
        if len(symbol) > 1 or not token.isdigit():
            raise unusable(path, f"line {number} is not a symbol and its number")
        found[int(token)] = symbol[0].decode("utf-8", "replace") if symbol else " "
    return found
