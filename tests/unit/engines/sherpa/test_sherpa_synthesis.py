"""Synthesis on the real runtime: what is spoken, when it comes, and how it is stopped."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sherpa_onnx
import soxr  # type: ignore[import-untyped]  # the package has no py.typed marker

from app.audio.pcm import Float32, Int16, to_float
from app.core.errors import EngineNotUsable, InvalidText, UnknownVoice
from app.core.speech import Utterance, Voice
from app.engines.base import Piece
from app.engines.sherpa import synthesis
from app.engines.sherpa.lexicon import Lexicon
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.synthesis import Callback, SherpaSynthesizer, load_synthesizer
from app.engines.sherpa.voice_kinds import VoiceModel, find_voice_model
from tests.support.sherpa import kokoro, matcha, vits, zipformer2, zipvoice
from tests.support.sherpa.hearing import alone, padded
from tests.support.sherpa.metadata import set_metadata
from tests.support.sherpa.recordings import write_recording
from tests.support.sherpa.tones import LETTERS, RATE

KINDS: dict[str, Callable[[Path], Path]] = {
    "Kokoro": kokoro.kokoro,
    "Matcha": matcha.matcha,
    "Melo": vits.melo,
    "VITS": vits.vits,
    "ZipVoice": zipvoice.zipvoice,
}
Synthesizers = Callable[[str], SherpaSynthesizer]


def loaded(folder: Path, voices: Path) -> SherpaSynthesizer:
    options = SherpaOptions(voice_threads=1, voices_dir=voices)
    return load_synthesizer(find_voice_model(folder), options, lambda doing: None)


@pytest.fixture(scope="module")
def synthesizers(tmp_path_factory: pytest.TempPathFactory) -> Synthesizers:
    """The synthesiser of a kind, loaded when first asked for."""
    found: dict[str, SherpaSynthesizer] = {}
    voices = tmp_path_factory.mktemp("voices")
    write_recording(voices, "anna", "你好世界天气")

    def synthesizer(kind: str) -> SherpaSynthesizer:
        if kind not in found:
            found[kind] = loaded(KINDS[kind](tmp_path_factory.mktemp("model")), voices)
        return found[kind]

    return synthesizer


@pytest.fixture(scope="module")
def hearer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return zipformer2.load_ctc(zipformer2.ctc(tmp_path_factory.mktemp("model")))


def spoken_by(synthesizer: SherpaSynthesizer, text: str, voice: str = "") -> list[Int16]:
    name = voice or synthesizer.capabilities.voices[0].name
    return [piece.samples for piece in synthesizer.synthesize(Utterance(text=text, voice=name))]


def heard_in(hearer: Any, synthesizer: SherpaSynthesizer, pieces: list[Int16]) -> str:
    rate = synthesizer.capabilities.sample_rate
    samples: Float32 = soxr.resample(to_float(np.concatenate(pieces)), rate, RATE)
    text: str = alone(hearer, padded(samples)).text
    return text


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "sherpa-speech"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_spoken_is_the_text(kind: str, synthesizers: Synthesizers, hearer: Any) -> None:
    synthesizer = synthesizers(kind)
    pieces = spoken_by(synthesizer, "Hello你好，世界。天气, WORLD今明！")
    assert all(piece.dtype == np.int16 and piece.size for piece in pieces)
    assert heard_in(hearer, synthesizer, pieces) == "你好你好世界天气世界今明"


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_comes_in_pieces(kind: str, synthesizers: Synthesizers, hearer: Any) -> None:
    synthesizer = synthesizers(kind)
    pieces = spoken_by(synthesizer, f"{LETTERS}，" * 30)
    assert len(pieces) >= 15
    seconds = max(piece.size for piece in pieces) / synthesizer.capabilities.sample_rate
    assert seconds < 6
    assert heard_in(hearer, synthesizer, pieces) == LETTERS * 30


@pytest.mark.parametrize("kind", ["Melo", "VITS"])
def test_a_text_without_commas_is_cut(kind: str, synthesizers: Synthesizers) -> None:
    assert len(spoken_by(synthesizers(kind), "你好" * 150)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_with_nothing_to_say_has_no_piece(kind: str, synthesizers: Synthesizers) -> None:
    for text in ("", " \n", "...！？。", "😀", "\0\x1b"):
        assert spoken_by(synthesizers(kind), text) == []
    assert not threads()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["xyzzy...", "嗯。", "Привет", "12", "half \ud83d a pair"])
def test_a_text_without_known_words_is_refused(
    kind: str, text: str, synthesizers: Synthesizers, capfd: pytest.CaptureFixture[str]
) -> None:
    synthesizer = synthesizers(kind)
    capfd.readouterr()
    with pytest.raises(InvalidText, match="does not know"):
        spoken_by(synthesizer, text)
    assert capfd.readouterr() == ("", "")  # the runtime has not written about it
    assert not threads()


def test_what_the_model_is_silent_about_is_refused(model: VoiceModel) -> None:
    def speak(text: str, callback: Callback) -> None:
        callback(np.zeros(0, np.float32), 1.0)

    with pytest.raises(InvalidText):
        list(stub(model, speak))


@pytest.mark.parametrize("kind", KINDS)
def test_letters_of_acronyms_are_spoken(
    kind: str, tmp_path: Path, hearer: Any, synthesizers: Synthesizers
) -> None:
    folder = KINDS[kind](tmp_path / "model")
    tone = " 1" if kind == "Melo" else ""
    with (folder / "lexicon.txt").open("a", encoding="utf-8") as lexicon:
        lexicon.write(f"a e{tone}\np f{tone}\ni g{tone}\n")
    write_recording(tmp_path / "voices", "anna", "你好")
    synthesizer = loaded(folder, tmp_path / "voices")
    for text in ("API你好", "A.P.I.你好", "a p i 你好", "ApI-你好"):
        assert heard_in(hearer, synthesizer, spoken_by(synthesizer, text)) == "天气今你好"


@pytest.mark.parametrize("kind", ["Kokoro", "VITS"])
def test_voices_are_the_models_speakers(kind: str, synthesizers: Synthesizers) -> None:
    synthesizer = synthesizers(kind)
    names = [voice.name for voice in synthesizer.capabilities.voices]
    peaks = [max(map(int, spoken_by(synthesizer, "你好", name)[0])) for name in names]
    levels = [1, 1 / 2] if kind == "Kokoro" else [1, 1 / 2, 1 / 3]
    assert [peak / peaks[0] for peak in peaks] == pytest.approx(levels, rel=0.01)


def test_presets_are_speakers(tmp_path: Path) -> None:
    folder = kokoro.kokoro(tmp_path)
    set_metadata(folder / "model.onnx", speaker_names="zf_001,zm_010")
    synthesizer = loaded(folder, tmp_path)

    def peak(name: str) -> int:
        return max(map(int, spoken_by(synthesizer, "你好", name)[0]))

    assert peak("中文女") == peak("英文女") == peak("zf_001")
    assert (
        peak("中文男")
        == peak("英文男")
        == peak("zm_010")
        == pytest.approx(peak("中文女") / 2, 0.01)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_voice_is_told_at_once(kind: str, synthesizers: Synthesizers) -> None:
    with pytest.raises(UnknownVoice):
        synthesizers(kind).synthesize(Utterance(text="你好", voice="nobody"))


@pytest.mark.parametrize("kind", KINDS)
def test_speed_is_left_to_the_caller(kind: str, synthesizers: Synthesizers) -> None:
    synthesizer = synthesizers(kind)
    voice = synthesizer.capabilities.voices[0].name
    utterance = Utterance(text="你好世界", voice=voice, speed=2.0, pitch=1.5, volume=0.1)
    (fast,) = [piece.samples for piece in synthesizer.synthesize(utterance)]
    (usual,) = spoken_by(synthesizer, "你好世界")
    assert fast.size == usual.size
    assert not synthesizer.capabilities.exact_speed


@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_closing_stops_the_runtime(
    kind: str, taken: int, synthesizers: Synthesizers, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer = synthesizers(kind)
    voice = synthesizer.capabilities.voices[0].name
    generate = sherpa_onnx.OfflineTts.generate
    calls: list[int] = []

    def counted(*args: Any, callback: Callback, **options: Any) -> Any:
        def answer(samples: Float32, progress: float) -> int:
            calls.append(callback(samples, progress))
            return calls[-1]

        return generate(*args, callback=answer, **options)

    monkeypatch.setattr(sherpa_onnx.OfflineTts, "generate", counted)
    # The sentences of one call of the runtime.
    utterance = Utterance(text=f"{LETTERS}，" * 11, voice=voice)
    speaking = cast(Generator[Piece], synthesizer.synthesize(utterance))
    for _ in range(taken):
        assert next(speaking).samples.size
    speaking.close()
    assert not threads()
    assert len(calls) <= (taken + 3 if taken else 0)
    assert calls[-1:] == ([0] if taken else [])
    assert spoken_by(synthesizer, "你好")


# The thread, with a runtime of the test's own


@pytest.fixture
def model() -> VoiceModel:
    lexicon = Lexicon((Path("lexicon.txt"),), ("zh",), frozenset(), frozenset("你好"))
    return VoiceModel("Kokoro", Path("m"), {}, 24_000, 1, lexicon)


def stub(model: VoiceModel, speak: synthesis.Speak, text: str = "你好") -> Iterator[Piece]:
    voice = Voice(name="v", language="zh-CN", gender="unknown")
    synthesizer = SherpaSynthesizer(model, [(voice, speak)], ["zh-CN"], "")
    return synthesizer.synthesize(Utterance(text=text, voice="v"))


ONE = np.full(10, 0.5, np.float32)


def test_the_first_piece_comes_before_the_runtime_goes_on(model: VoiceModel) -> None:
    taken = threading.Event()

    def speak(text: str, callback: Callback) -> None:
        callback(ONE, 0.5)
        assert taken.wait(10)
        callback(ONE, 1.0)

    speaking = stub(model, speak)
    next(speaking)
    taken.set()
    assert len(list(speaking)) == 1


def test_the_runtime_waits_for_a_slow_reader(model: VoiceModel) -> None:
    calls: list[int] = []
    finished = threading.Event()

    def speak(text: str, callback: Callback) -> None:
        for number in range(20):
            calls.append(number)
            callback(ONE, 0.0)
        finished.set()

    speaking = stub(model, speak)
    next(speaking)
    # It cannot finish however long this waits: one is taken, two wait, one waits for room.
    assert not finished.wait(0.2)
    assert len(calls) <= 4
    assert len(list(speaking)) == 19


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_the_runtime_is_told_to_stop(taken: int, model: VoiceModel) -> None:
    answers: list[int] = []

    def speak(text: str, callback: Callback) -> None:
        answers.append(1)
        while answers[-1]:
            answers.append(callback(ONE, 0.0))

    speaking = cast(Generator[Piece], stub(model, speak))
    for _ in range(taken):
        next(speaking)
    speaking.close()
    assert answers[-1] == 0
    assert 0 not in answers[:-1]
    assert not threads()


def test_no_part_follows_a_cancelled_one(model: VoiceModel) -> None:
    spoken: list[str] = []

    def speak(text: str, callback: Callback) -> None:
        spoken.append(text)
        callback(ONE, 1.0)

    speaking = cast(Generator[Piece], stub(model, speak, "你好。" * 50))
    next(speaking)
    speaking.close()
    assert len(spoken) <= 5
    assert not threads()


@pytest.mark.parametrize("before", [0, 1, 5])
def test_what_the_runtime_raises_comes_out(before: int, model: VoiceModel) -> None:
    def speak(text: str, callback: Callback) -> None:
        for _ in range(before):
            callback(ONE, 0.0)
        raise RuntimeError("onnxruntime says no")

    speaking = stub(model, speak)
    for _ in range(before):
        next(speaking)
    with pytest.raises(RuntimeError, match="says no"):
        next(speaking)
    assert not threads()


def test_a_failure_after_closing_is_forgotten(model: VoiceModel) -> None:
    def speak(text: str, callback: Callback) -> None:
        while callback(ONE, 0.0):
            pass
        raise RuntimeError("onnxruntime says no")

    speaking = cast(Generator[Piece], stub(model, speak))
    next(speaking)
    speaking.close()
    assert not threads()


def test_samples_are_clipped_and_numbers(model: VoiceModel) -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 3.0, -3.0, 0.5, 0.0], np.float32)

    def speak(text: str, callback: Callback) -> None:
        callback(wild, 1.0)

    (piece,) = stub(model, speak)
    assert piece.samples.tolist() == [0, 32767, -32768, 32767, -32768, 16384, 0]


# Loading


def test_progress_and_notice(tmp_path: Path) -> None:
    folder = vits.melo(tmp_path / "melo")
    doing: list[str] = []
    synthesizer = load_synthesizer(find_voice_model(folder), SherpaOptions(), doing.append)
    assert doing == ["loading melo"]
    assert synthesizer.capabilities.notice == "melo; on the CPU"


def test_a_zipvoice_without_recordings_says_what_to_do(tmp_path: Path) -> None:
    synthesizer = loaded(zipvoice.zipvoice(tmp_path / "model"), tmp_path / "none")
    assert synthesizer.capabilities.voices == ()
    assert synthesizer.capabilities.languages == ("zh-CN", "en-US")
    assert "VOICES_DIR" in synthesizer.capabilities.notice
    with pytest.raises(UnknownVoice):
        synthesizer.synthesize(Utterance(text="你好", voice="中文女"))


def test_a_zipvoice_speaks_like_each_recording(tmp_path: Path, monkeypatch: Any) -> None:
    write_recording(tmp_path / "voices", "anna", "你好")
    write_recording(tmp_path / "voices", "Ben", "今明天气你 hello")
    folder = zipvoice.zipvoice(tmp_path / "model")
    seen: list[tuple[str, int, int]] = []
    generate = sherpa_onnx.OfflineTts.generate

    def watched(runtime: Any, text: str, config: Any, callback: Callback) -> Any:
        audio = len(config.reference_audio)
        seen.append((config.reference_text, audio, config.reference_sample_rate))
        return generate(runtime, text, config, callback=callback)

    monkeypatch.setattr(sherpa_onnx.OfflineTts, "generate", watched)
    synthesizer = loaded(folder, tmp_path / "voices")
    assert [voice.name for voice in synthesizer.capabilities.voices] == ["Ben", "anna"]
    assert synthesizer.capabilities.max_parallel == 1
    for name in ("anna", "Ben"):
        assert spoken_by(synthesizer, "天气", name)
    assert [text for text, _, _ in seen] == ["你好", "今明天气你 hello"]
    assert seen[0][1] < seen[1][1]
    assert {rate for _, _, rate in seen} == {zipvoice.RATE}


def test_several_lexicons_are_read_by_the_runtime(tmp_path: Path, hearer: Any) -> None:
    folder = kokoro.kokoro(tmp_path)
    lexicon = folder / "lexicon.txt"
    lines = lexicon.read_text("utf-8").splitlines(keepends=True)
    (folder / "lexicon-zh.txt").write_text("".join(lines[:8]), "utf-8")
    (folder / "lexicon-us-en.txt").write_text("".join(lines[8:]), "utf-8")
    lexicon.unlink()
    synthesizer = loaded(folder, tmp_path)
    assert heard_in(hearer, synthesizer, spoken_by(synthesizer, "天气hello")) == "天气你好"


def test_what_the_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    folder = vits.vits(tmp_path / "model")
    other = zipformer2.ctc(tmp_path / "other")
    model = find_voice_model(folder)
    shutil.copy(folder / "tokens.txt", tmp_path / "tokens.txt")
    (folder / "model.onnx").write_bytes((other / "model.onnx").read_bytes()[:1000])
    with pytest.raises(EngineNotUsable) as caught:
        load_synthesizer(model, SherpaOptions(), lambda doing: None)
    assert "\n" not in str(caught.value)
    (folder / "model.onnx").unlink()
    with pytest.raises(EngineNotUsable, match="refuses"):
        load_synthesizer(model, SherpaOptions(), lambda doing: None)
