"""docs/evaluation.md and its translation say the same, and name what the command has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("evaluation.md", "evaluation.zh.md")


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def outline(text: str) -> list[str]:
    """Heading levels, list items, and the number of cells of each table row, in order."""
    lines = [line for line in text.splitlines() if line.startswith(("#", "| ", "- "))]
    return [line.split()[0] + str(line.count(" | ")) for line in lines]


def test_both_languages_say_the_same() -> None:
    english, chinese = map(read, PAGES)
    assert outline(english) == outline(chinese)
    assert code_blocks(english) == code_blocks(chinese)


@pytest.mark.parametrize("name", PAGES)
def test_its_options_are_those_of_the_command(name: str) -> None:
    help = CliRunner().invoke(cli, ["eval", "--help"], env={"COLUMNS": "200"}).output
    options = set(re.findall(r"--[a-z][a-z-]*", help)) - {"--help", "--sample-rate"}
    assert set(re.findall(r"--[a-z][a-z-]*", read(name))) == options


@pytest.mark.parametrize(("readme", "page"), [("README.md", PAGES[0]), ("README.zh.md", PAGES[1])])
def test_each_readme_leads_to_its_page(readme: str, page: str) -> None:
    assert f"(docs/{page})" in (ROOT / readme).read_text(encoding="utf-8")
