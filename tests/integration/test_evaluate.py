"""``funspeech eval`` as its users run it: two servers of its own, whose texts are known."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import psutil

from app.audio.wav import make_header
from benchmarks.server import launch
from tests.support.sound import Int16, joined, silence, tone

SPEECH = joined(silence(200), tone(600), silence(200))
TWICE = joined(tone(400), silence(1500), tone(400))


def wav(path: Path, samples: Int16) -> None:
    path.write_bytes(make_header(16_000, samples.size) + samples.tobytes())


def script(path: Path, *sentences: str) -> Path:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in sentences]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def clips(folder: Path) -> Path:
    """Two labelled clips, an unlabelled one, and one that is no sound."""
    entries: list[dict[str, str]] = []
    for name, samples, label in (
        ("once", SPEECH, "今天天气很好"),
        ("twice", TWICE, "今天天气很好,我们 turn it on 二十次"),
        ("bare", SPEECH, None),
    ):
        wav(folder / f"{name}.wav", samples)
        entries.append({"audio": f"{name}.wav", **({"text": label} if label else {})})
    (folder / "broken.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    entries.append({"audio": "broken.wav", "text": "x"})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    return manifest


async def evaluated(folder: Path, *arguments: object) -> tuple[int, str]:
    """Exit code, and what it printed on both outputs."""
    variables = {"ASR_ENGINE": "fake", "LOG_FILE": str(folder / "funspeech.log"), "COLUMNS": "120"}
    process = await launch("app", "eval", *map(str, arguments), folder=folder, variables=variables)
    async with asyncio.timeout(90):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_two_configurations_of_known_errors(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    right = script(tmp_path / "right.json", "今天天气很好。", "我们Turn it on 20次！")
    wrong = script(tmp_path / "wrong.json", "今天天汽好", "我们都turn on 21次")
    code, output = await evaluated(
        *(tmp_path, manifest, "--speed", 0, "--json", "o.json"),
        *("--a", f"FAKE_ASR_SCRIPT={right}", "--b", f"FAKE_ASR_SCRIPT={wrong}"),
    )
    assert code == 1  # broken.wav
    assert "broken.wav" in output.splitlines()[0]
    found = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    a, b = (found["configurations"][name] for name in "AB")
    # 6 units, and 6 + 8: 我 们 turn it on 2 0 次.
    assert found["measure"] == "MER"
    assert (a["units"], a["rate"]) == (20, 0.0)
    # In both clips 气 became 汽 and 很 is missing; then 都 is too much, it is missing, 0 became 1.
    assert (b["units"], b["rate"]) == (20, 0.35)
    assert (b["substitutions"], b["deletions"], b["insertions"]) == (3, 3, 1)
    assert found["disagreement"]["clips"] == 3
    assert found["disagreement"]["rate"] == round(9 / 26, 6)
    assert found["configurations"]["A"]["rtf_cpu"] > 0
    engine = "fake: for tests: tells how long it heard sound, recognises nothing"
    assert f"A: FAKE_ASR_SCRIPT={right}\n   {engine}\nB: " in output
    assert a["engine"] == b["engine"] == engine
    assert re.search(r"│ MER +│ +0\.00 % │ +35\.00 % │ +\+35\.00 │", output)
    # Its servers are gone, and had a log of their own.
    assert (tmp_path / "funspeech-eval.log").is_file()
    assert not (tmp_path / "funspeech.log").exists()
    assert not [
        child for child in psutil.Process().children(recursive=True) if "app" in child.cmdline()
    ]


async def test_a_setting_of_another_engine_is_told_to_change_nothing(tmp_path: Path) -> None:
    _, output = await evaluated(
        *(tmp_path, clips(tmp_path), "--speed", 0),
        *("--a", "FAKE_ASR_ITEM_MS=0", "--b", "FUNASR_DTYPE=int8"),
    )
    told = [line for line in output.splitlines() if "changes nothing" in line]
    assert told == [
        "funspeech: B: FUNASR_DTYPE changes nothing, because the engine is fake; put "
        "ASR_ENGINE=funasr before the command"
    ]


async def test_an_engine_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    code, output = await evaluated(
        tmp_path, clips(tmp_path), "--a", "FAKE_ASR_SCRIPT=/nowhere/script.json"
    )
    assert code == 1
    assert output.startswith("funspeech: A: asr-0: FAKE_ASR_SCRIPT cannot be read")
    assert output.count("\n") == 1
