"""The figures of two runs, and how they are shown."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest

from app.cli import evaluate_picture, png
from app.cli.evaluate_chart import chart
from app.cli.evaluate_figures import Figures, figures
from app.cli.evaluate_manifest import Clip
from app.cli.evaluate_picture import picture, step
from app.cli.evaluate_report import listing, summary, table
from app.cli.evaluate_result import as_json
from app.cli.evaluate_stream import Outcome, Run

CLIPS = [
    Clip("one", Path("one.wav"), "今天天气很好"),
    Clip("two", Path("two.wav"), "二十个苹果"),
    Clip("bare", Path("bare.wav"), None),
    Clip("lost", Path("lost.wav"), "没有了"),
]


def heard(text: str, latency_ms: float = 100.0) -> Outcome:
    return Outcome(seconds=2.0, text=text, latency_ms=latency_ms, first_ms=latency_ms + 500)


def run(*texts: str, latency_ms: float = 100.0, **outcomes: Outcome) -> Run:
    found = {
        clip.id: heard(text, latency_ms + 10 * index)
        for index, (clip, text) in enumerate(zip(CLIPS, texts, strict=False))
    }
    return Run({**found, **outcomes}, wall_s=3.0, cpu_s=1.5)


def two(*, numerals: bool = True, paced: bool = True) -> tuple[Figures, dict[str, Run]]:
    runs = {
        "A": run("今天天气很好。", "20个苹果", "喂", "没有了"),
        "B": run(
            *("今天天汽好", "二十个平果了", "喂喂喂"),
            latency_ms=300,
            lost=Outcome(seconds=2.0, failure="too busy (40000005)"),
        ),
    }
    return figures(CLIPS, runs, numerals=numerals, paced=paced, seed=0), runs


def one() -> Figures:
    runs = {"A": run("今天天气好", "20个苹果", "喂", "没有了")}
    return figures(CLIPS, runs, numerals=True, paced=True, seed=0)


def test_only_what_both_recognised_is_compared() -> None:
    found, _ = two()
    a, b = found.columns
    assert [each.clip.id for each in found.judged] == ["one", "two", "bare"]
    assert (found.labelled, found.seconds, found.measure) == (2, 6.0, "CER")
    # 今天天气很好: 6 units; 20个苹果: 5.
    assert (a.errors.units, a.errors.count) == (11, 0)
    assert (b.errors.substitutions, b.errors.deletions, b.errors.insertions) == (2, 1, 1)
    assert (a.failed, b.failed) == (0, 1)


def test_without_numerals_numbers_count_as_written() -> None:
    found, _ = two(numerals=False)
    assert found.columns[0].errors.substitutions == 2


def test_times() -> None:
    found, _ = two()
    a, b = found.columns
    assert a.latency_ms == (100, 110, 120, 130)
    assert b.latency_ms == (300, 310, 320)
    assert b.first_ms == (800, 810, 820)
    # 8 and 6 s of audio were recognised.
    assert (a.cpu_rtf, b.cpu_rtf) == (1.5 / 8, 1.5 / 6)
    assert a.wall_rtf is None
    assert two(paced=False)[0].columns[0].wall_rtf == 3 / 8


def test_disagreement_counts_clips_without_labels() -> None:
    found, _ = two()
    assert found.apart is not None
    # 2 of 6, 2 of 6 and 2 of 3.
    assert (found.apart.count, found.apart.units, found.different) == (6, 15, 3)
    assert found.difference is not None and found.difference[0] > 0


def test_what_to_listen_to() -> None:
    found, _ = two()
    assert [each.clip.id for each in found.to_listen_to(9)] == ["one", "two", "bare"]
    assert len(found.to_listen_to(1)) == 1
    assert [each.clip.id for each in one().to_listen_to(9)] == ["one"]


def test_the_same_mistake_twice_is_nothing_to_listen_to() -> None:
    runs = {name: run("今天", "20个苹果", "喂", "没有了") for name in "AB"}
    found = figures(CLIPS, runs, numerals=True, paced=True, seed=0)
    assert found.columns[0].errors.deletions == 4
    assert found.to_listen_to(9) == []
    assert found.difference == (0, 0)


def test_the_table() -> None:
    found, _ = two(paced=False)
    made = table(found)
    rows = {
        str(label): [str(cell) for cell in cells]
        for label, *cells in zip(*(column.cells for column in made.columns), strict=True)
    }
    assert rows == {
        "CER": ["0.00 %", "36.36 %", "+36.36"],
        "substitutions": ["0", "2", "+2"],
        "deletions": ["0", "1", "+1"],
        "insertions": ["0", "1", "+1"],
        "latency p50, ms": ["115", "310", "+195"],
        "latency p99, ms": ["130", "320", "+190"],
        "first text p50, ms": ["615", "810", "+195"],
        "RTF, clock": ["0.375", "0.500", "+0.125"],
        "RTF, CPU": ["0.188", "0.250", "+0.062"],
        "failed clips": ["0", "1", "+1"],
    }
    assert [str(column.header) for column in table(one()).columns] == ["", "A"]


def test_what_it_means() -> None:
    found, _ = two()
    lines = summary(found)
    assert lines[0].startswith("3 clips with 6.0 s of audio compared, 2 of them with a label")
    assert lines[1].startswith("CER of B less that of A, 95 % confidence interval: +")
    assert lines[1].endswith(" points: B makes more errors (but 2 clips are few to tell)")
    assert lines[2] == "A and B differ in 3 of 3 clips, by 6 units (40.00 %)"
    assert len(summary(one())) == 1


def test_the_listing() -> None:
    found, _ = two()
    assert listing(found, found.to_listen_to(1)) == [
        "",
        "one.wav (errors: 0 and 2)",
        "  label  今天天气很好",
        "  A      今天天气很好。",
        "  B      今天天汽好",
    ]


def test_the_chart() -> None:
    found, _ = two()
    lines = [line.plain for line in chart(found, 44)]
    assert lines[:3] == ["errors, 4 fill the line", " A |", " B |" + "S" * 20 + "D" * 10 + "I" * 10]
    assert lines[4] == "latency, 0 to 320 ms"
    assert lines[5].index("#") < lines[6].index("#")
    assert all(len(line) <= 44 for line in lines[4:7])
    assert all(line.isascii() for line in lines)


def test_a_chart_without_labels_or_errors_has_latencies_only() -> None:
    clips = CLIPS[2:3]
    found = figures(clips, {"A": run(bare=heard("喂"))}, numerals=True, paced=True, seed=0)
    assert chart(found, 80)[0].plain.startswith("latency")
    assert "no label" not in " ".join(summary(found))


def test_json() -> None:
    found, runs = two()
    made = json.loads(json.dumps(as_json(CLIPS, runs, found, {"A": "now", "B": "X=1"})))
    assert made["configurations"]["B"]["description"] == "X=1"
    assert made["configurations"]["B"]["rate"] == pytest.approx(4 / 11, abs=1e-6)
    assert made["configurations"]["B"]["latency_ms"]["p50"] == 310
    assert made["disagreement"]["clips"] == 3
    lost = made["each"][3]
    assert lost["results"]["B"] == {"failure": "too busy (40000005)"}
    assert lost["results"]["A"]["text"] == "没有了"
    assert made["each"][0]["results"]["B"]["errors"]["deletions"] == 1
    assert made["each"][2]["label"] is None


# --- the picture -----------------------------------------------------------------------------


def pixels(data: bytes) -> list[bytes]:
    """The lines of a picture, a palette index for each pixel."""
    at = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    raw = zlib.decompress(data[at + 4 : at + 4 + size])
    width = evaluate_picture.WIDTH + 1
    return [raw[start + 1 : start + width] for start in range(0, len(raw), width)]


def test_the_heights_of_the_bars_are_the_rates() -> None:
    found, _ = two()
    rows = pixels(picture(found))
    counts = {
        colour: sum(colour in row[: evaluate_picture.LEFTS[1] - 80] for row in rows[50:])
        for _, _, colour in evaluate_picture.KINDS
    }
    top = 40  # percent: 36.36 in steps of 10
    for kind, _, colour in evaluate_picture.KINDS:
        share = getattr(found.columns[1].errors, kind) / 11
        expected = 100 * share / top * evaluate_picture.PLOT_HEIGHT
        assert counts[colour] == pytest.approx(expected, abs=1.5)


def test_a_slower_configuration_has_its_curve_at_the_right() -> None:
    found, _ = two()
    rows = pixels(picture(found))
    middle = rows[evaluate_picture.TOP + evaluate_picture.PLOT_HEIGHT // 2]
    a, b = (middle.index(colour) for colour in evaluate_picture.LINES)
    left = evaluate_picture.LEFTS[1]
    # The axis ends at 400 ms.
    assert a - left == pytest.approx(110 / 400 * evaluate_picture.PLOT_WIDTH, abs=2)
    assert b - left == pytest.approx(310 / 400 * evaluate_picture.PLOT_WIDTH, abs=2)


def test_all_that_is_written_is_in_the_font_and_on_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[tuple[int, int, str]] = []

    class Watched(png.Picture):
        def write(self, left: int, top: int, text: str, colour: int) -> None:
            written.append((left, top, text))
            super().write(left, top, text, colour)

    monkeypatch.setattr(evaluate_picture, "Picture", Watched)
    for found in (two()[0], one()):
        written.clear()
        picture(found)
        assert {"A", "0"} <= {text for _, _, text in written}
        boxes: list[tuple[int, int, int, int]] = []
        for left, top, text in written:
            assert set(text.upper()) <= {*png.FONT, " "}, text
            right, bottom = left + png.text_width(text), top + png.GLYPH_HEIGHT
            assert left >= 0 and right <= evaluate_picture.WIDTH, text
            assert top >= 0 and bottom <= evaluate_picture.HEIGHT, text
            assert not any(
                left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
                for other in boxes
            ), text
            boxes.append((left, top, right, bottom))


@pytest.mark.parametrize(
    ("most", "expected"),
    [(36.4, 10), (100, 20), (1, 0.2), (0, 2e-10), (7, 2), (1_000_000, 200_000)],
)
def test_steps_are_round(most: float, expected: float) -> None:
    assert step(most) == pytest.approx(expected)


def test_a_perfect_result_can_be_drawn() -> None:
    runs = {"A": run("今天天气很好", "20个苹果", "", "没有了", latency_ms=0)}
    found = figures(CLIPS, runs, numerals=True, paced=True, seed=0)
    assert picture(found).startswith(png.SIGNATURE)
    assert chart(found, 80)
