"""``funspeech usage``."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.access.rows import UsageSum
from app.access.store import open_store
from app.cli import cli
from app.core.config import load

TODAY = "2026-03-31"


def usage(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["usage", *arguments])


def in_terminal(*arguments: str) -> str:
    """What the command shows people."""
    ours, its = pty.openpty()
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "COLUMNS": "100"}
    command = [sys.executable, "-m", "app", *arguments]
    with subprocess.Popen(command, stdout=its, env=environment) as process:
        os.close(its)
        shown = b""
        with suppress(OSError):  # it has closed its end
            while read := os.read(ours, 4096):
                shown += read
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def done(*arguments: str) -> str:
    result = usage(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def recorded(clean_settings: None) -> None:
    async def work() -> None:
        async with open_store(load()) as store:
            await store.add_usage(
                TODAY,
                {
                    ("film", "asr"): UsageSum(tasks=3, failed=1, audio_ms=61_001),
                    ("film", "tts"): UsageSum(tasks=2, audio_ms=2_500, characters=12),
                    ("a,b", "asr"): UsageSum(tasks=1, audio_ms=7),
                },
            )
            await store.add_usage("2026-03-01", {("film", "asr"): UsageSum(tasks=1)})
            await store.add_usage("2026-02-28", {("film", "asr"): UsageSum(tasks=1)})

    asyncio.run(work())


@pytest.mark.usefixtures("recorded")
def test_lines_for_other_programs() -> None:
    assert done("--from", TODAY, "--to", TODAY).splitlines() == [
        f"{TODAY}\ta,b\tasr\t1\t0\t0.007 s\t0",
        f"{TODAY}\tfilm\tasr\t3\t1\t61.001 s\t0",
        f"{TODAY}\tfilm\ttts\t2\t0\t2.500 s\t12",
    ]


@pytest.mark.usefixtures("recorded")
def test_csv_and_json_have_the_same_whole_numbers() -> None:
    shown = done("--from", "2026-02-28", "--to", TODAY, "--csv")
    rows = list(csv.DictReader(shown.splitlines()))
    assert [row["appkey"] for row in rows] == ["film", "film", "a,b", "film", "film"]
    assert rows[-1] == {
        "day": TODAY,
        "appkey": "film",
        "kind": "tts",
        "tasks": "2",
        "failed": "0",
        "audio_ms": "2500",
        "characters": "12",
    }
    from_json = json.loads(done("--from", "2026-02-28", "--to", TODAY, "--json"))
    assert [{name: str(value) for name, value in row.items()} for row in from_json] == rows


@pytest.mark.usefixtures("recorded")
def test_one_project_and_the_thirty_days_before_the_last() -> None:
    rows = json.loads(done("--to", TODAY, "--appkey", "film", "--json"))
    # 31 March is the thirtieth day from 2 March on.
    assert [(row["day"], row["kind"]) for row in rows] == [(TODAY, "asr"), (TODAY, "tts")]
    rows = json.loads(done("--to", "2026-03-30", "--json"))
    assert [row["day"] for row in rows] == ["2026-03-01"]


def test_by_default_it_ends_today() -> None:
    now = datetime.now(UTC)
    days = [(now - timedelta(back)).strftime("%Y-%m-%d") for back in (0, 31)]

    async def work() -> None:
        async with open_store(load()) as store:
            for day in days:
                await store.add_usage(day, {("a", "asr"): UsageSum(tasks=1)})

    asyncio.run(work())
    assert done().split("\t")[0] == days[0]


def test_nothing_used_is_an_empty_list() -> None:
    assert done() == ""
    assert done("--json") == "[]\n"
    assert done("--csv") == "day,appkey,kind,tasks,failed,audio_ms,characters\n"


@pytest.mark.usefixtures("recorded")
def test_a_terminal_has_a_table_with_the_sums() -> None:
    shown = in_terminal("usage", "--from", TODAY, "--to", TODAY)
    (total,) = [line for line in shown.splitlines() if " all " in line]
    cells = [cell.strip() for cell in total.strip("│ ").split("│")]
    assert cells == ["all", "", "", "6", "1", "63.508 s", "12"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "yesterday"], "--from yesterday: expected a day such as 2026-03-31"),
        (["--to", "2026-02-30"], "--to 2026-02-30: expected a day"),
        (["--from", "2026-02-02", "--to", "2026-02-01"], "--from 2026-02-02 is after --to"),
    ],
)
def test_what_is_no_day_is_said_in_one_line(arguments: list[str], complaint: str) -> None:
    result = usage(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert complaint in result.stderr and result.stderr.count("\n") == 1


def test_one_format_at_a_time() -> None:
    result = usage("--csv", "--json")
    assert result.exit_code == 2
    assert "--csv and --json exclude each other" in result.stderr
