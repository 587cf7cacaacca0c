"""Synthesis models that would end the process, or stay silent, are refused before the runtime sees
them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.errors import EngineNotUsable
from app.engines.sherpa.onnx_file import read_onnx
from app.engines.sherpa.voice_kinds import VoiceModel, find_voice_model
from tests.support.sherpa import kokoro, matcha, vits, zipformer2, zipvoice
from tests.support.sherpa.metadata import set_metadata

Build = Callable[[Path], Path]
KINDS: dict[str, Build] = {
    "Kokoro": kokoro.kokoro,
    "Matcha": matcha.matcha,
    "Melo": vits.melo,
    "VITS": vits.vits,
    "ZipVoice": zipvoice.zipvoice,
}
MAIN = {"Matcha": "model-steps-3.onnx", "ZipVoice": "decoder.onnx"}
ANYTHING = {"speaker_names", "voice", "language", "comment", "punctuation", "pad_mode"}
"""Keys whose values are texts that do no harm; some of them must be there."""
NEEDED = {
    "Kokoro": {"sample_rate", "n_speakers"},
    "Matcha": {"sample_rate", "n_speakers", "use_eos_bos", "pad_id"},
    "Melo": {"sample_rate", "comment", "version", "language"},
    "VITS": {"sample_rate", "comment", "language"},
    "ZipVoice": set[str](),
}
"""Keys of the main file that cannot be left out; others tell the kind."""


def refused(folder: Path) -> str:
    with pytest.raises(EngineNotUsable) as caught:
        find_voice_model(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def accepted(folder: Path) -> VoiceModel | None:
    try:
        return find_voice_model(folder)
    except EngineNotUsable:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_folders_kind_is_found(kind: str, tmp_path: Path) -> None:
    model = find_voice_model(KINDS[kind](tmp_path))
    assert model.kind == kind
    assert model.languages == ("zh", "en")
    assert model.lexicon.latin == {"hello", "world"}
    assert model.lexicon.characters == set("你好世界天气今明")
    assert all(path.is_file() for path in model.files.values())


def test_rates_speakers_and_names(tmp_path: Path) -> None:
    found = {kind: find_voice_model(build(tmp_path / kind)) for kind, build in KINDS.items()}
    told = {kind: (model.sample_rate, model.speakers) for kind, model in found.items()}
    assert told == {
        "Kokoro": (kokoro.RATE, 2),
        "Matcha": (matcha.RATE, 1),
        "Melo": (vits.MELO_RATE, 1),
        "VITS": (vits.VITS_RATE, vits.VITS_VOICES),
        "ZipVoice": (zipvoice.RATE, 0),
    }
    assert found["Kokoro"].names == ("one", "two")
    assert found["VITS"].told_language == "Chinese"


def test_int8_files_come_first(tmp_path: Path) -> None:
    folder = kokoro.kokoro(tmp_path)
    shutil.copy(folder / "model.onnx", folder / "model.int8.onnx")
    assert find_voice_model(folder).files["model"].name == "model.int8.onnx"


def test_names_of_zipvoices_older_files_are_known(tmp_path: Path) -> None:
    folder = zipvoice.zipvoice(tmp_path)
    renamed = {
        "encoder": "text_encoder.onnx",
        "decoder": "fm_decoder.onnx",
        "vocoder": "vocos_24khz.onnx",
    }
    for old, new in renamed.items():
        (folder / f"{old}.onnx").rename(folder / new)
    files = find_voice_model(folder).files
    assert {part: path.name for part, path in files.items()} == renamed


@pytest.mark.parametrize("kind", KINDS)
def test_every_missing_file_is_told(kind: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        refused(folder)
        path.write_bytes(content)
    find_voice_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_damaged_model_is_told(kind: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path)
    for path in sorted(folder.glob("*.onnx")):
        content = path.read_bytes()
        others = (b"", content[: len(content) // 2], content[:-1], b"<html>404</html>", b"\0" * 99)
        for other in others:
            path.write_bytes(other)
            refused(folder)
        path.write_bytes(content)


@pytest.mark.parametrize("value", ["nonsense", "-1", "999999999999"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_checked(kind: str, value: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path)
    for path in sorted(folder.glob("*.onnx")):
        original = path.read_bytes()
        for key in read_onnx(path).metadata.keys() - ANYTHING:
            set_metadata(path, **{key: value})
            assert path.name in refused(folder)
            path.write_bytes(original)
    find_voice_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_needed_cannot_be_left_out(kind: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path)
    path = folder / MAIN.get(kind, "model.onnx")
    original = path.read_bytes()
    for key in read_onnx(path).metadata.keys() - {"style_dim"}:
        set_metadata(path, **{key: None})
        found = accepted(folder)
        assert (found is None or found.kind != kind) == (key in NEEDED[kind] | {"n_speakers"}), key
        path.write_bytes(original)


@pytest.mark.parametrize("rate", ["0", "7999", "48001"])
@pytest.mark.parametrize("kind", KINDS)
def test_rates_have_limits(kind: str, rate: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path)
    set_metadata(folder / MAIN.get(kind, "model.onnx"), sample_rate=rate)
    assert "sample_rate" in refused(folder)


@pytest.mark.parametrize("kind", ["Matcha", "ZipVoice"])
@pytest.mark.parametrize(
    ("key", "value"), [("sample_rate", "22050"), ("model_type", "other"), ("model_type", None)]
)
def test_a_vocoder_for_another_model_is_refused(
    kind: str, key: str, value: str | None, tmp_path: Path
) -> None:
    folder = KINDS[kind](tmp_path)
    set_metadata(folder / "vocoder.onnx", **{key: value})
    assert "vocoder.onnx" in refused(folder)


def test_zipvoice_takes_no_hifigan(tmp_path: Path) -> None:
    folder = zipvoice.zipvoice(tmp_path)
    set_metadata(folder / "vocoder.onnx", model_type="hifigan")
    assert "vocos" in refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_fft": "1023"},
        {"n_fft": "512"},
        {"n_fft": "2048"},
        {"win_length": "2048"},
        {"hop_length": "0"},
        {"window_type": "hann_window"},
    ],
)
def test_the_transform_of_vocos_is_checked(changes: dict[str, str], tmp_path: Path) -> None:
    folder = zipvoice.zipvoice(tmp_path)
    set_metadata(folder / "vocoder.onnx", **changes)
    assert "vocoder.onnx" in refused(folder)


def test_the_transform_of_zipvoice_is_checked(tmp_path: Path) -> None:
    folder = zipvoice.zipvoice(tmp_path)
    original = (folder / "decoder.onnx").read_bytes()
    for changes in ({"n_fft": "512"}, {"n_fft": None, "window_length": "2048"}, {"feat_dim": "80"}):
        set_metadata(folder / "decoder.onnx", **changes)
        assert "decoder.onnx" in refused(folder)
        (folder / "decoder.onnx").write_bytes(original)


@pytest.mark.parametrize("style", ["510,1", "510,1,0", "510,1,256,1", "510,1,99999"])
def test_sizes_of_styles_are_checked(style: str, tmp_path: Path) -> None:
    folder = kokoro.kokoro(tmp_path)
    set_metadata(folder / "model.onnx", style_dim=style)
    assert "style_dim" in refused(folder)


def test_styles_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = kokoro.kokoro(tmp_path)
    path = folder / "voices.bin"
    content = path.read_bytes()
    for other in (content[:-4], content + bytes(4), b""):
        path.write_bytes(other)
        assert f"{len(other)} of {len(content)}" in refused(folder)


def test_an_old_melo_is_refused(tmp_path: Path) -> None:
    folder = vits.melo(tmp_path)
    set_metadata(folder / "model.onnx", version="1")
    assert "old" in refused(folder)


def test_more_voices_than_a_list_can_have_are_refused(tmp_path: Path) -> None:
    folder = vits.vits(tmp_path)
    set_metadata(folder / "model.onnx", n_speakers="2001")
    assert "n_speakers" in refused(folder)


def test_no_folder_and_models_for_something_else(tmp_path: Path) -> None:
    assert "no folder" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "has no *.onnx" in refused(tmp_path / "empty")
    assert "no model of a voice" in refused(zipformer2.transducer(tmp_path / "transducer"))
    assert "no model of a voice" in refused(zipformer2.ctc(tmp_path / "ctc"))


# Tokens and lexicons


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["", "<html>\n<p>404 not found</p>\n", "0 _\n1 a\n", "a\nb\n"])
def test_tokens_are_checked(kind: str, content: str, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path)
    (folder / "tokens.txt").write_text(content, "utf-8")
    assert "tokens.txt" in refused(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"<html>\n<p>not found</p>\n", b"\xff\xfe\0\1\n" * 9])
def test_lexicons_are_checked(kind: str, content: bytes, tmp_path: Path) -> None:
    folder = KINDS[kind](tmp_path)
    (folder / "lexicon.txt").write_bytes(content)
    assert "lexicon.txt" in refused(folder)


@pytest.mark.parametrize("line", ["天 a", "天 a x", "天 a -1", "天 a b 1", "天 a 99999999999"])
def test_melos_tones_are_checked(line: str, tmp_path: Path) -> None:
    folder = vits.melo(tmp_path)
    path = folder / "lexicon.txt"
    path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
    assert "line 11" in refused(folder)


def test_lexicons_of_windows_are_read(tmp_path: Path) -> None:
    folder = vits.melo(tmp_path)
    path = folder / "lexicon.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert find_voice_model(folder).lexicon.latin == {"hello", "world"}


def test_several_lexicons_are_one(tmp_path: Path) -> None:
    folder = kokoro.kokoro(tmp_path)
    (folder / "lexicon.txt").unlink()
    (folder / "lexicon-zh.txt").write_text("你好 a b\n", "utf-8")
    (folder / "lexicon-gb-en.txt").write_text("colour a\n", "utf-8")
    british = find_voice_model(folder).lexicon
    assert british.latin == {"colour"}
    assert british.languages == ("zh", "en")
    (folder / "lexicon-us-en.txt").write_text("Color a\nunknown zz\n", "utf-8")
    lexicon = find_voice_model(folder).lexicon
    assert lexicon.latin == {"color"}
    assert lexicon.option == f"{folder / 'lexicon-us-en.txt'},{folder / 'lexicon-zh.txt'}"


def test_several_lexicons_need_a_path_without_a_comma(tmp_path: Path) -> None:
    folder = kokoro.kokoro(tmp_path / "a,b")
    find_voice_model(folder)
    shutil.copy(folder / "lexicon.txt", folder / "lexicon-zh.txt")
    assert "comma" in refused(folder)


def test_a_few_latin_words_make_no_english_lexicon(tmp_path: Path) -> None:
    folder = vits.vits(tmp_path)
    chinese = "".join(f"{chr(0x4E00 + number)} a\n" for number in range(200))
    (folder / "lexicon.txt").write_text(f"{chinese}ok a\n", "utf-8")
    assert find_voice_model(folder).languages == ("zh",)
