"""docs/nearfield_filter.md and its translation say the same, and what the command prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("nearfield_filter.md", "nearfield_filter.zh.md")


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def outline(text: str) -> list[str]:
    """Heading levels, and the number of cells of each table row, in order."""
    lines = [line for line in text.splitlines() if line.startswith(("#", "| ", "- "))]
    return [line.split()[0] + str(line.count(" | ")) for line in lines]


def figures(text: str) -> list[str]:
    """The rows of the table of scenes, without their names."""
    rows = [line for line in text.splitlines() if line.startswith("| ") and "%" in line]
    return [line.split("|", 2)[2] for line in rows]


def test_both_languages_say_the_same() -> None:
    english, chinese = map(read, PAGES)
    assert outline(english) == outline(chinese)
    assert code_blocks(english) == code_blocks(chinese)
    assert figures(english) == figures(chinese)
    assert len(figures(english)) == 5


def test_the_plot_is_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    command, printed = next(
        pair
        for pair in zip(code_blocks(read(PAGES[0])), code_blocks(read(PAGES[0]))[1:], strict=False)
        if "funspeech levels" in pair[0]
    )
    arguments = command.split()[1:]
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(cli, arguments, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert result.stdout == printed


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", read(name))
    assert targets
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize(("readme", "page"), [("README.md", PAGES[0]), ("README.zh.md", PAGES[1])])
def test_each_readme_leads_to_its_page(readme: str, page: str) -> None:
    assert f"(docs/{page})" in (ROOT / readme).read_text(encoding="utf-8")
