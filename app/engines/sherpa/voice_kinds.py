"""Which kind of synthesis model a folder has, and whether the runtime can be trusted with it.

Keys of the metadata: sherpa-onnx 1.13.4, offline-tts-vits-model.cc, offline-tts-matcha-model.cc,
offline-tts-kokoro-model.cc, offline-tts-zipvoice-model.cc, vocoder.cc, hifigan-vocoder.cc and
vocos-vocoder.cc. What is refused here was seen to end the process of 2.0.1 without an exception
(exit status 255, a bad memory access, or a division by zero), to make it take all memory, or to
make no sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from app.core.errors import EngineNotUsable
from app.engines.sherpa.folder import onnx_paths, the_file, unusable
from app.engines.sherpa.kinds import RATES, TOKENS, read_all_symbols
from app.engines.sherpa.lexicon import Language, Lexicon, read_lexicon
from app.engines.sherpa.onnx_file import OnnxFile, read_onnx

VoiceKind = Literal["Kokoro", "Matcha", "Melo", "VITS", "ZipVoice"]

STYLES: Final = "voices.bin"
_VOCODERS: Final = ("vocoder", "vocos", "hifigan")
"""How the names of their files begin."""
_VOCODER_FILES: Final = " or ".join(f"{name}*.onnx" for name in _VOCODERS)
_MOST_VOICES: Final = 2_000
_MOST: Final = 16_384
"""Of anything that is a number of samples or channels."""
_FLOAT_BYTES: Final = 4
_OF_VITS: Final = (
    *("add_blank", "speaker_id", "version", "blank_id", "bos_id", "eos_id", "pad_id"),
    *("use_eos_bos", "jieba"),
)
_NEWEST_MELO: Final = 2
_TRANSFORM: Final = 1024
"""The runtime's length of a Fourier transform and of its window, where metadata tell none."""
_ZIPVOICE_CHANNELS: Final = 100
_ZIPVOICE_RATE: Final = 24_000
"""Likewise."""
_WINDOWS: Final = ("hann", "hanning", "hamming", "povey", "rectangular", "blackman")


@dataclass(frozen=True, slots=True)
class VoiceModel:
    """A folder's model, fit for the runtime.

    ``files``: by what the runtime calls them. ``sample_rate``: of its audio, in Hz. ``speakers``:
    how many it has, none of them a ZipVoice, which speaks like recordings. ``names``: what its
    metadata call them, which may be anything; empty where they do not. ``told_language``: what
    they say of the language, likewise.
    """

    kind: VoiceKind
    folder: Path
    files: dict[str, Path]
    sample_rate: int
    speakers: int
    lexicon: Lexicon = field(repr=False)
    names: tuple[str, ...] = ()
    told_language: str = ""

    @property
    def tokens(self) -> Path:
        """tokens.txt."""
        return self.folder / TOKENS

    @property
    def languages(self) -> tuple[Language, ...]:
        """What it can read: in the order in which to name them."""
        return self.lexicon.languages


def find_voice_model(folder: Path) -> VoiceModel:
    """The synthesis model in ``folder``; int8 files are taken before others.

    Raises:
        EngineNotUsable: there is none, or the runtime could not work with it.
    """
    paths = onnx_paths(folder)
    vocoders = [path for path in paths if path.name.startswith(_VOCODERS)]
    models = [path for path in paths if path not in vocoders]
    if any("encoder" in path.name for path in models):
        if not vocoders:
            raise EngineNotUsable(f"{folder} has no model of a voice, or no vocoder (vocos*.onnx)")
        return _zipvoice(folder, models, vocoders)
    file = read_onnx(the_file(folder, models, "*.onnx"))
    known = file.metadata
    if "style_dim" in known:
        return _kokoro(folder, file)
    if vocoders or "matcha" in known.get("model_type", ""):
        return _matcha(folder, file, vocoders)
    if "n_speakers" in known:
        return _vits(folder, file)
    raise unusable(file.path, "by its metadata it is no model of a voice that is known here")


# Kinds


def _kokoro(folder: Path, file: OnnxFile) -> VoiceModel:
    speakers = _number(file, "n_speakers", 1, _MOST_VOICES)
    _optional(file, "version", "has_espeak")
    shape = file.numbers("style_dim")
    if len(shape) != 3 or not all(1 <= size <= _MOST for size in shape):
        raise unusable(file.path, "style_dim in its metadata is not the three sizes of a style")
    styles = folder / STYLES
    expected = speakers * shape[0] * shape[1] * shape[2] * _FLOAT_BYTES
    found = styles.stat().st_size if styles.is_file() else None
    if found != expected:
        reason = "it is not there" if found is None else f"it has {found} of {expected} bytes"
        raise unusable(styles, reason)
    names = file.metadata.get("speaker_names", "").split(",")
    return _model(
        "Kokoro",
        folder,
        {"model": file.path, "voices": styles},
        rate=_rate(file),
        speakers=speakers,
        names=tuple(name.strip() for name in names) if len(names) == speakers else (),
    )


def _matcha(folder: Path, file: OnnxFile, vocoders: Sequence[Path]) -> VoiceModel:
    speakers = _number(file, "n_speakers", 1, _MOST_VOICES)
    file.number("use_eos_bos")
    file.number("pad_id")
    _optional(file, "jieba", "has_espeak")
    rate = _rate(file)
    vocoder = _vocoder(folder, vocoders, rate, ("hifigan", "vocos"))
    files = {"acoustic_model": file.path, "vocoder": vocoder}
    return _model("Matcha", folder, files, rate=rate, speakers=speakers)


def _vits(folder: Path, file: OnnxFile) -> VoiceModel:
    speakers = _number(file, "n_speakers", 1, _MOST_VOICES)
    _optional(file, *_OF_VITS)
    melo = "melo" in file.text("comment")
    if melo and file.number("version") < _NEWEST_MELO:
        raise unusable(file.path, "it is an old export of Melo: download the model again")
    return _model(
        "Melo" if melo else "VITS",
        folder,
        {"model": file.path},
        rate=_rate(file),
        speakers=speakers,
        told_language=file.text("language"),
    )


def _zipvoice(folder: Path, models: Sequence[Path], vocoders: Sequence[Path]) -> VoiceModel:
    encoder, decoder = (
        read_onnx(the_file(folder, [p for p in models if part in p.name], f"*{part}*.onnx"))
        for part in ("encoder", "decoder")
    )
    _optional(encoder, "use_espeak")
    _optional(decoder, "version")
    for key in ("feat_dim", "num_mels", "n_fft", "hop_length", "window_length"):
        _optional(decoder, key, least=1, most=_MOST)
    channels = decoder.outputs[0][-1] if decoder.outputs[0] else None
    for key in ("feat_dim", "num_mels"):
        if _or(decoder, key, _ZIPVOICE_CHANNELS) != (channels or _ZIPVOICE_CHANNELS):
            raise unusable(decoder.path, f"{key} in its metadata is not the size of its output")
    _check_window(decoder, "window_length")
    rate = _rate(decoder) if decoder.metadata.get("sample_rate") else _ZIPVOICE_RATE
    vocoder = _vocoder(folder, vocoders, rate, ("vocos",))
    files = {"encoder": encoder.path, "decoder": decoder.path, "vocoder": vocoder}
    return _model("ZipVoice", folder, files, rate=rate, speakers=0)


def _vocoder(folder: Path, paths: Sequence[Path], rate: int, types: Sequence[str]) -> Path:
    file = read_onnx(the_file(folder, paths, _VOCODER_FILES))
    if file.text("model_type") not in types:
        raise unusable(file.path, f"model_type in its metadata is not {' or '.join(types)}")
    if _rate(file) != rate:
        raise unusable(file.path, f"it is a vocoder of {_rate(file)} Hz, and its model has {rate}")
    if file.text("model_type") == "vocos":
        for key in ("n_fft", "hop_length", "win_length"):
            _optional(file, key, least=1, most=_MOST)
        _optional(file, "center", "normalized")
        _check_window(file, "win_length")
        if (file.metadata.get("window_type") or "hann") not in _WINDOWS:
            raise unusable(file.path, "window_type in its metadata is none that is known here")
        bins = file.outputs[0][1] if len(file.outputs[0]) == 3 else None
        if bins not in (None, _or(file, "n_fft", _TRANSFORM) // 2 + 1):
            raise unusable(file.path, "n_fft in its metadata does not fit its output")
    return file.path


def _model(
    kind: VoiceKind,
    folder: Path,
    files: dict[str, Path],
    *,
    rate: int,
    speakers: int,
    names: tuple[str, ...] = (),
    told_language: str = "",
) -> VoiceModel:
    symbols = frozenset(read_all_symbols(folder).values())
    lexicon = read_lexicon(folder, symbols, with_tones=kind == "Melo")
    return VoiceModel(kind, folder, files, rate, speakers, lexicon, names, told_language)


# Numbers


def _rate(file: OnnxFile) -> int:
    return _number(file, "sample_rate", *RATES)


def _number(file: OnnxFile, key: str, least: int, most: int) -> int:
    number = file.number(key, least=least)
    if number > most:
        raise unusable(file.path, f"{key} is {number} in its metadata")
    return number


def _optional(file: OnnxFile, *keys: str, least: int = 0, most: int = 10**9) -> None:
    """Keys that may be absent or empty; but the runtime ends the process over a negative one."""
    for key in keys:
        if file.metadata.get(key):
            _number(file, key, least, most)


def _or(file: OnnxFile, key: str, default: int) -> int:
    """A number that may be absent or empty: then the runtime has a default."""
    return int(file.metadata.get(key) or default)


def _check_window(file: OnnxFile, window: str) -> None:
    """A Fourier transform of an even length that the window fits into."""
    size = _or(file, "n_fft", _TRANSFORM)
    if size % 2 or _or(file, window, _TRANSFORM) > size:
        raise unusable(file.path, f"n_fft and {window} in its metadata do not fit")
