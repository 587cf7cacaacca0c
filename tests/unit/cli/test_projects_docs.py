"""docs/projects.md and its translation say the same, and what the commands and the server have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.cli.durations import seconds
from app.cli.vocab import parse_lines
from app.core.config import load
from app.nls.defaults import DEFAULTABLE
from app.nls.vocabulary import check_words
from app.serving.models_file import recognition_models

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("projects.md", "projects.zh.md")


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_blocks(text: str, language: str = r"\w+") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def outline(text: str) -> list[str]:
    """Heading levels, list items, and the number of cells of each table row, in order."""
    lines = [line for line in text.splitlines() if line.startswith(("#", "| ", "- "))]
    return [line.split()[0] + str(line.count(" | ")) for line in lines]


def options(*command: str) -> set[str]:
    help = CliRunner().invoke(cli, [*command, "--help"], env={"COLUMNS": "200"}).output
    return set(re.findall(r"--[a-z][a-z-]*", help)) - {"--help", "--json"}


def test_both_languages_say_the_same() -> None:
    english, chinese = map(read, PAGES)
    assert outline(english) == outline(chinese)
    assert code_blocks(english) == code_blocks(chinese)


@pytest.mark.parametrize("name", PAGES)
def test_its_table_has_every_option_of_a_project(name: str) -> None:
    rows = re.findall(r"^\| (`--.+?) \|", read(name), re.MULTILINE)
    told = {option for row in rows for option in re.findall(r"--[a-z][a-z-]*", row)}
    assert told == options("project", "set") == options("project", "create")


@pytest.mark.parametrize("name", PAGES)
def test_it_lists_what_may_have_a_default(name: str) -> None:
    (listed,) = re.findall(r"^(- .+?`format`.+?)^## ", read(name), re.MULTILINE | re.DOTALL)
    told = re.findall(r"`(\w+)`", listed)
    assert sorted(told) == sorted(DEFAULTABLE)


@pytest.mark.parametrize("name", PAGES)
def test_its_anchors_and_files_are_there(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", read(name)):
        text = read(target or name)
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
        assert not anchor or anchor in anchors, (target, anchor)


def test_its_commands_are_understood() -> None:
    """Each with its options: what it would do is tested elsewhere."""
    commands = re.findall(
        r"^\.venv/bin/funspeech (\w+(?: [a-z]+(?= |$))?)(.*)$",
        "\n".join(code_blocks(read(PAGES[0]), "bash")),
        re.MULTILINE,
    )
    assert len(commands) > 15
    for command, rest in commands:
        known = options(*command.split()) | {"--json"}
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= known, command


def test_its_words_and_models_are_good() -> None:
    (words,) = code_blocks(read(PAGES[0]), "text")
    found = parse_lines(words)
    check_words(found)
    assert found == {"北京": 5, "Zaigie": 3, "San Francisco": 2}
    (models,) = code_blocks(read(PAGES[0]), "toml")
    Path("models.toml").write_text(models)
    config = load(None, {"MODELS_FILE": "models.toml"})
    assert list(recognition_models(config)) == ["", "telephone", "english"]


@pytest.mark.parametrize("name", PAGES)
def test_its_lengths_of_time_are_good(name: str) -> None:
    (row,) = re.findall(r"^\| `--daily-audio` \| .*$", read(name), re.MULTILINE)
    assert [seconds(each) for each in re.findall(r"`(\d\w+)`", row)] == [5400, 7200, 5400]
