"""Recordings in VOICES_DIR: which are voices, and what becomes of the others."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from app.audio.pcm import Float32, to_int16
from app.engines.sherpa import clones
from app.engines.sherpa.clones import Clone, read_clones
from app.engines.sherpa.lexicon import Lexicon
from app.engines.sherpa.pronounceable import Reader
from tests.support.sherpa.tones import spoken

RATE = 24_000
READER = Reader(
    Lexicon((Path("lexicon.txt"),), ("zh", "en"), frozenset({"hello"}), frozenset("你好"))
)
TEXT = "你好 hello"


def wav(
    data: bytes, *, rate: int = 16_000, channels: int = 1, bits: int = 16, codec: int = 1
) -> bytes:
    frame = channels * bits // 8
    layout = struct.pack("<HHIIHH", codec, channels, rate, rate * frame, frame, bits)
    head = b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data


def pcm(seconds: float = 2.0, rate: int = 16_000) -> bytes:
    return to_int16(tone(seconds, rate)).tobytes()


def tone(seconds: float, rate: int) -> Float32:
    times = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def put(
    folder: Path, name: str = "anna", sound: bytes | None = None, text: str | None = TEXT
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.wav").write_bytes(wav(pcm()) if sound is None else sound)
    if text is not None:
        (folder / f"{name}.txt").write_text(text, "utf-8")


def read(folder: Path) -> tuple[Clone, ...]:
    return read_clones(folder, RATE, READER)


def left_out(folder: Path) -> str:
    """The reason of the only warning, where nothing was found."""
    with capture_logs() as logs:
        assert read(folder) == ()
    (warning,) = logs
    assert warning["log_level"] == "warning"
    assert warning["file"] == "anna.wav"
    assert "\n" not in warning["reason"]
    return str(warning["reason"])


def test_recordings_are_voices_by_their_names(tmp_path: Path) -> None:
    put(tmp_path, "小明")
    put(tmp_path, "Anna B.", text="\ufeffHello,\r\n  hello\n")
    (tmp_path / "aliases.toml").write_text("")
    (tmp_path / "notes.txt").write_text("nothing")
    with capture_logs() as logs:
        anna, ming = read(tmp_path)
    assert not logs
    assert (anna.voice.name, anna.voice.language, anna.text) == ("Anna B.", "en-US", "hello, hello")
    assert (ming.voice.name, ming.voice.language, ming.text) == ("小明", "zh-CN", TEXT)
    assert {each.voice.kind for each in (anna, ming)} == {"clone"}
    assert {each.voice.gender for each in (anna, ming)} == {"unknown"}


def test_no_folder_and_an_empty_one_have_none(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert read(tmp_path) == read(tmp_path / "none") == ()
    assert not logs


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "voices").write_text("")
    with capture_logs() as logs:
        assert read(tmp_path / "voices") == ()
    assert [entry["setting"] for entry in logs] == ["VOICES_DIR"]


def test_names_are_composed(tmp_path: Path) -> None:
    put(tmp_path, unicodedata.normalize("NFD", "Zoë"))
    assert [clone.voice.name for clone in read(tmp_path)] == [unicodedata.normalize("NFC", "Zoë")]


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_any_rate_becomes_the_models(rate: int, tmp_path: Path) -> None:
    put(tmp_path, sound=wav(pcm(2.0, rate), rate=rate))
    (clone,) = read(tmp_path)
    assert clone.samples.dtype == np.float32
    assert clone.samples.shape == (2 * RATE,)
    inside = slice(RATE // 10, -RATE // 10)
    np.testing.assert_allclose(clone.samples[inside], tone(2.0, RATE)[inside], atol=0.01)


Encoded = Callable[[Float32], bytes]
FORMATS: dict[str, tuple[int, int, Encoded]] = {
    "16": (1, 16, lambda sound: to_int16(sound).tobytes()),
    "24": (1, 24, lambda sound: b"\0" + b"\0".join(s.tobytes() for s in to_int16(sound))),
    "float": (3, 32, lambda sound: sound.tobytes()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_kinds_of_samples(name: str, tmp_path: Path) -> None:
    codec, bits, encoded = FORMATS[name]
    sound = tone(1.5, RATE)
    put(tmp_path, sound=wav(encoded(sound), rate=RATE, codec=codec, bits=bits))
    (clone,) = read(tmp_path)
    np.testing.assert_allclose(clone.samples, sound, atol=1e-4)


def test_channels_are_mixed(tmp_path: Path) -> None:
    left = to_int16(tone(2.0, RATE))
    both = np.stack([left, np.zeros_like(left)], axis=1)
    put(tmp_path, sound=wav(both.tobytes(), rate=RATE, channels=2))
    (clone,) = read(tmp_path)
    np.testing.assert_allclose(clone.samples, tone(2.0, RATE) / 2, atol=1e-4)


BAD_SOUNDS = {
    "empty": (b"", "no WAV"),
    "html": (b"<html>404</html>", "no WAV"),
    "mp3": (b"ID3\x04" + bytes(1000), "no WAV"),
    "head only": (wav(pcm())[:30], "cut short"),
    "nothing behind the head": (wav(b""), "1 to 30 s"),
    "too short": (wav(pcm(0.99)), "1 to 30 s"),
    "too long": (wav(pcm(30.01)), "1 to 30 s"),
    "shorter than it says": (wav(pcm(2.0))[: 44 + 16_000], "1 to 30 s"),
    "silent": (wav(bytes(64_000)), "silent"),
    "adpcm": (wav(pcm(), codec=2, bits=4), "16-bit PCM"),
    "no channels": (wav(pcm(), channels=0), ""),
    "99 channels": (wav(pcm(), channels=99), "16-bit PCM"),
    "slow": (wav(pcm(), rate=4_000), "4000 Hz"),
    "fast": (wav(pcm(), rate=400_000), "400000 Hz"),
}


@pytest.mark.parametrize("case", BAD_SOUNDS)
def test_bad_sounds_are_left_out(case: str, tmp_path: Path) -> None:
    sound, reason = BAD_SOUNDS[case]
    put(tmp_path, sound=sound)
    assert reason in left_out(tmp_path)


def test_the_longest_and_the_shortest_are_voices(tmp_path: Path) -> None:
    put(tmp_path, "a", sound=wav(pcm(1.0)))
    put(tmp_path, "b", sound=wav(pcm(30.0)))
    assert [clone.samples.size / RATE for clone in read(tmp_path)] == [1, 30]


def test_floats_that_are_no_numbers_become_silence(tmp_path: Path) -> None:
    sound = tone(2.0, RATE)
    sound[1000:2000] = np.nan
    sound[3000] = np.inf
    put(tmp_path, sound=wav(sound.tobytes(), rate=RATE, codec=3, bits=32))
    (clone,) = read(tmp_path)
    assert np.isfinite(clone.samples).all()
    assert np.abs(clone.samples).max() <= 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no .txt"),
        ("", "characters at most"),
        (" \n。", "characters at most"),
        ("你" * 601, "characters at most"),
        ("你" * 20_000, "bytes"),
        ("世界", "no word"),
    ],
)
def test_bad_texts_are_left_out(text: str | None, reason: str, tmp_path: Path) -> None:
    put(tmp_path, text=text)
    assert reason in left_out(tmp_path)


def test_a_text_in_another_encoding_is_left_out(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "anna.txt").write_bytes("你好".encode("gbk"))
    assert "UTF-8" in left_out(tmp_path)


def test_folders_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "anna.wav").mkdir()
    (tmp_path / "anna.txt").write_text(TEXT, "utf-8")
    assert "no plain file" in left_out(tmp_path)
    (tmp_path / "anna.wav").rmdir()
    put(tmp_path, text=None)
    (tmp_path / "anna.txt").unlink()
    (tmp_path / "anna.txt").mkdir()
    assert "no plain file" in left_out(tmp_path)


def test_a_file_that_is_too_large_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clones, "_MOST_BYTES", 1000)
    put(tmp_path)
    assert "more than 1,000 bytes" in left_out(tmp_path)


@pytest.mark.parametrize("name", [".hidden", "a..b", "a\nb", "a\x1b[31m", "x" * 65, "a:b", "-"])
def test_hostile_names_are_left_out(name: str, tmp_path: Path) -> None:
    put(tmp_path, name)
    put(tmp_path, "good")
    with capture_logs() as logs:
        assert [clone.voice.name for clone in read(tmp_path)] == ["good"]
    (warning,) = logs
    assert warning["file"].isprintable()
    assert warning["file"].isascii()


def test_names_that_differ_in_their_case_are_one(tmp_path: Path) -> None:
    put(tmp_path, "Anna")
    put(tmp_path, "anna")
    with capture_logs() as logs:
        assert [clone.voice.name for clone in read(tmp_path)] == ["Anna"]
    assert [entry["file"] for entry in logs] == ["anna.wav"]


def test_there_are_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clones, "MOST_CLONES", 2)
    for name in "abc":
        put(tmp_path, name)
    with capture_logs() as logs:
        assert [clone.voice.name for clone in read(tmp_path)] == ["a", "b"]
    assert [entry["file"] for entry in logs] == ["c.wav"]


def test_nothing_of_a_recording_is_shown(tmp_path: Path) -> None:
    put(tmp_path, sound=wav(to_int16(spoken("你好世界天气今明")).tobytes()))
    (clone,) = read(tmp_path)
    assert TEXT not in repr(clone)
