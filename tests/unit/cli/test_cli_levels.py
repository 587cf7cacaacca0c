"""``funspeech levels``: the plot, the JSON and the picture say the same."""

from __future__ import annotations

import json
import struct
import wave
import zlib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.audio.levels import Levels, measure
from app.audio.threshold import exactly
from app.cli import cli, levels_picture, png, time_axis
from app.cli.levels_chart import chart
from tests.support.encoded import encoded
from tests.support.sound import Int16, joined, silence, tone

QUIET = 0.002
SOUND = joined(tone(1_000, level=QUIET), tone(1_500), tone(1_500, level=QUIET))


def write_wav(path: Path, samples: Int16, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def run(*arguments: object, columns: int = 100) -> Result:
    return CliRunner().invoke(
        cli, ["levels", *map(str, arguments)], env={"COLUMNS": str(columns), "NO_COLOR": "1"}
    )


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """1 s of quiet sound, 1.5 s of loud, 1.5 s of quiet."""
    return write_wav(tmp_path / "a.wav", SOUND)


def as_json(*arguments: object) -> dict[str, object]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def verdicts(found: dict[str, object]) -> str:
    blocks = found["blocks"]
    assert isinstance(blocks, list)
    assert [block["ms"] for block in blocks] == [100 * index for index in range(len(blocks))]
    return "".join(block["verdict"][0] for block in blocks)


def test_json(recording: Path) -> None:
    found = as_json(recording)
    assert verdicts(found) == "g" * 10 + "o" * 15 + "g" * 15
    assert found["threshold"] == 0.01
    assert found["max_sentence_silence"] == 800
    assert found["seconds"] == 4.0
    assert found["passed_share"] == 0.375
    assert found["openings"] == 1
    assert found["median_passed"] == pytest.approx(0.3 / 2**0.5, rel=0.01)
    assert found["median_gated"] == pytest.approx(QUIET / 2**0.5, rel=0.05)
    assert found["suggested_threshold"] == 0.01


def test_threshold_of_the_command_line_and_of_the_settings(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASR_NEARFIELD_RMS_THRESHOLD", "0.0005")
    found = as_json(recording)
    assert found["threshold"] == 0.0005
    assert found["passed_share"] == 1
    assert found["suggested_threshold"] == pytest.approx(0.0024, abs=0.0001)
    # 0.0014 is above 60 % of 0.002, so the quiet end passes while the sentence is held open.
    assert verdicts(as_json(recording, "--threshold", "0.002")) == "g" * 10 + "o" * 15 + "h" * 15


def test_hold_time(tmp_path: Path) -> None:
    sound = joined(tone(500), silence(600), tone(500, level=0.012))  # 0.0085, below the threshold
    path = write_wav(tmp_path / "b.wav", sound)
    assert verdicts(as_json(path)).endswith("h")
    assert verdicts(as_json(path, "--max-sentence-silence", "500")).endswith("g")


def test_the_plot(recording: Path) -> None:
    result = run(recording)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "a.wav: 4 s in blocks of 100 ms"
    at_threshold = next(line for line in lines if " 0.01 >|" in line)
    assert at_threshold.endswith("|" + "-" * 10 + "#" * 15 + "-" * 15)
    # 0.001 is the last row: all three parts reach it.
    lowest = next(line for line in lines if line.startswith("  0.001  |"))
    assert lowest.endswith("|" + "." * 10 + "#" * 15 + "." * 15)
    assert "passed 38 % (15 of 40 blocks: 15 open, 0 held)" in result.stdout
    assert "the gate opened once" in result.stdout
    assert "median RMS: passed 0.21, gated 0.0014" in result.stdout
    assert "threshold 0.01: fits; " in result.stdout
    assert result.stdout.isascii()


@pytest.mark.parametrize("columns", [40, 100, 250])
def test_long_recordings_fit_the_terminal(tmp_path: Path, columns: int) -> None:
    path = write_wav(tmp_path / "long.wav", joined(*[SOUND] * 40))
    plot = run(path, columns=columns).stdout.partition("\npassed ")[0]
    rows = [line for line in plot.splitlines() if "|" in line]
    assert rows and all(len(line) <= columns for line in rows)
    assert "a column is the loudest block in" in plot
    assert "2:00" in plot


def test_colour_only_adds_to_the_marks() -> None:
    found = measure([SOUND], 0.01, 800)
    for line in chart(found, 80):
        for span in line.spans:
            assert len(set(line.plain[span.start : span.end])) == 1


@pytest.mark.parametrize(
    ("format", "suffix"),
    [
        ("flac", "flac"),
        ("m4a", "m4a"),
        ("mp3-lame", "mp3"),
        ("webm-opus", "webm"),
        ("ogg-opus", "ogg"),
        ("ogg-opus", "bin"),
        ("opu", "opu"),
    ],
)
def test_other_formats(format: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(format, SOUND, 16_000))
    found = verdicts(as_json(path))
    assert found.strip("g") in ("o" * 15, "o" * 15 + "h", "o" * 16)
    assert found.index("o") in (9, 10)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates(rate: int, tmp_path: Path) -> None:
    sound = joined(
        tone(1_000, rate, level=QUIET), tone(1_500, rate), tone(1_500, rate, level=QUIET)
    )
    wav, raw = write_wav(tmp_path / "a.wav", sound, rate), tmp_path / "a.pcm"
    raw.write_bytes(sound.tobytes())
    found = verdicts(as_json(wav))
    assert found.strip("g") in ("o" * 15, "o" * 15 + "h")
    assert len(found) == 40
    assert verdicts(as_json(raw, "--sample-rate", rate)) == found


@pytest.mark.parametrize(
    ("name", "content", "arguments", "reason"),
    [
        ("none.wav", None, [], "No such file"),
        ("a.pcm", SOUND.tobytes(), [], "--sample-rate"),
        ("a.txt", b"hello", [], "--sample-rate"),
        ("a.wav", b"not a wav file at all", [], "--sample-rate"),
        ("a.pcm", SOUND.tobytes(), ["--sample-rate", "100"], "8000 to 192000 Hz"),
        ("a.wav", b"RIFF\x24\0\0\0WAVEfmt ", [], "ends inside the header"),
        ("a.flac", b"fLaC" + bytes(100), [], "cannot be decoded"),
        ("a.opu", b"\x05abc", [], "no audio of the given format"),
        ("a.opus", b"\x03abc", [], "a file that ends with .opu"),
        ("a.pcm", b"", ["--sample-rate", "16000"], "has no audio"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    name: str, content: bytes | None, arguments: list[str], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = run(path, *arguments)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert result.stderr.startswith("funspeech: ") and result.stderr.count("\n") == 1


def test_a_filter_that_is_off_is_said(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_ENABLE_NEARFIELD_FILTER", "false")
    assert "the filter is off" in run(recording).stderr


# --- the picture -----------------------------------------------------------------------------


def chunks(data: bytes) -> dict[bytes, bytes]:
    assert data.startswith(png.SIGNATURE)
    found, at = {}, len(png.SIGNATURE)
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (check,) = struct.unpack_from(">I", data, at + 8 + size)
        assert check == zlib.crc32(name + body)
        found[name] = body
        at += 12 + size
    return found


def pixels(data: bytes) -> list[bytes]:
    """The lines of a picture, a palette index for each pixel."""
    found = chunks(data)
    assert list(found) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, *kind = struct.unpack(">IIBBBBB", found[b"IHDR"])
    assert kind == [8, 3, 0, 0, 0]
    lines = zlib.decompress(found[b"IDAT"])
    assert len(lines) == height * (width + 1)
    rows = [lines[at : at + width + 1] for at in range(0, len(lines), width + 1)]
    assert {row[0] for row in rows} == {0}
    assert max(max(row) for row in rows) < len(found[b"PLTE"]) // 3
    return [row[1:] for row in rows]


def bars(rows: list[bytes], levels: Levels) -> str:
    """The colours right above the time axis, from left to right, one letter for each block."""
    bottom = rows[levels_picture.TOP + levels_picture.PLOT_HEIGHT - 1]
    wide = levels_picture.PLOT_WIDTH // len(levels.verdicts)
    names = {colour: verdict.value[0] for verdict, colour in levels_picture.BARS.items()}
    return "".join(
        names[bottom[levels_picture.LEFT + index * wide + wide // 2]]
        for index in range(len(levels.verdicts))
    )


def test_the_picture_shows_the_verdicts_and_the_threshold(recording: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    result = run(recording, "--threshold", "0.002", "--png", file)
    assert result.exit_code == 0
    rows = pixels(file.read_bytes())
    found = measure([SOUND], 0.002, 800)
    assert bars(rows, found) == "g" * 10 + "o" * 15 + "h" * 15
    line = [
        index
        for index, row in enumerate(rows)
        if row.count(levels_picture.THRESHOLD) == levels_picture.PLOT_WIDTH
    ]
    # 0.002 is 2.7 of the 4 decades down.
    expected = levels_picture.TOP + round(2.699 / 4 * levels_picture.PLOT_HEIGHT)
    assert line == [expected]


def test_a_picture_of_an_hour_has_the_same_size() -> None:
    hour = measure([joined(*[SOUND] * 900)], 0.01, 800)
    rows = pixels(levels_picture.picture(hour))
    assert (len(rows[0]), len(rows)) == (levels_picture.WIDTH, levels_picture.HEIGHT)


@pytest.mark.parametrize("threshold", [0.0, 1e-9, 0.00001, 0.0125, 1.0])
def test_what_is_written_can_be_read_at_the_ends_of_the_scale(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int, str]] = []

    class Watched(png.Picture):
        def write(self, left: int, top: int, text: str, colour: int) -> None:
            written.append((left, top, text))
            super().write(left, top, text, colour)

    monkeypatch.setattr(levels_picture, "Picture", Watched)
    found = measure([SOUND], threshold, 800)
    rows = pixels(levels_picture.picture(found))
    assert len(rows) == levels_picture.HEIGHT
    texts = [text for _, _, text in written]
    assert f"threshold {exactly(threshold)}" in texts
    assert {"1", "0.1", "0.0001", "0:00"} <= set(texts)
    assert set("".join(texts).upper()) <= {*png.FONT, " "}
    boxes: list[tuple[int, int, int, int]] = []
    for left, top, text in written:
        right, bottom = left + png.text_width(text), top + png.GLYPH_HEIGHT
        assert left >= 0 and right <= levels_picture.WIDTH, text
        assert top >= 0 and bottom <= levels_picture.HEIGHT, text
        # Every character has left dots of ink.
        for index, character in enumerate(text):
            at = left + index * (png.text_width("00") - png.text_width("0"))
            cell = b"".join(row[at : at + png.GLYPH_WIDTH] for row in rows[top:bottom])
            assert character == " " or levels_picture.COLOURS.index((64, 64, 64)) in cell
        assert not any(
            left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
            for other in boxes
        ), text
        boxes.append((left, top, right, bottom))


def test_thresholds_are_never_written_in_powers_of_ten(recording: Path) -> None:
    printed = run(recording, "--threshold", "0.00001").stdout
    # All rows begin at the same column, however long their labels are.
    assert len({line.index("|") for line in printed.splitlines() if "|" in line}) == 1
    assert "0.00001 >|" in printed and "threshold 0.00001: " in printed
    assert "e-05" not in printed


def test_a_picture_that_cannot_be_written_is_one_line(recording: Path, tmp_path: Path) -> None:
    result = run(recording, "--png", tmp_path / "none" / "a.png")
    assert result.exit_code == 1
    assert "No such file" in result.stderr


def test_the_font_has_what_is_written() -> None:
    assert set(png.FONT) >= set("0123456789.:RMSOPENHELDGATEDTHRESHOLD")
    assert all(
        len(rows) == 5 and all(len(row) == 3 and set(row) <= {"#", "."} for row in rows)
        for rows in png.FONT.values()
    )
    # No two look the same, but a zero and an O.
    assert len(set(png.FONT.values())) == len(png.FONT) - 1


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        (3.2, 4, ["0:00", "0:01", "0:02", "0:03"]),
        (3.2, 2, ["0:00", "0:02"]),
        (0.4, 5, ["0:00"]),
        (3_700, 3, ["0:00", "30:00", "1:00:00"]),
    ],
)
def test_ticks(seconds: float, most: int, expected: list[str]) -> None:
    assert [label for _, label in time_axis.ticks(seconds, most)] == expected
