"""``funspeech vocab``: files of words, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.access.rows import VocabularyRow
from app.access.store import Store, open_store
from app.cli import cli
from app.cli.vocab import parse_lines
from app.core.config import load
from app.core.errors import InvalidRequest


def vocab(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["vocab", *arguments], input=text)


def done(*arguments: str, text: str | None = None) -> str:
    result = vocab(*arguments, text=text)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refusal(*arguments: str, text: str | None = None) -> str:
    result = vocab(*arguments, text=text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("funspeech: ") and result.stderr.count("\n") == 1
    return result.stderr


def saved() -> list[VocabularyRow]:
    async def work() -> list[VocabularyRow]:
        async with open_store(load()) as store:
            return await Store.vocabularies(store)

    return asyncio.run(work())


def test_lines_and_json_make_the_same_vocabulary() -> None:
    Path("words.txt").write_text("\ufeff# cities\n北京 5\n\n  San Francisco\t-2 \r\n")
    Path("words.json").write_text('{"北京": 5, "San Francisco": -2}')
    for name in ("words.txt", "words.json"):
        printed = done("create", name, name, "--description", "some")
        assert printed.strip() in {row.id for row in saved()}
    from_json, lines = sorted(saved(), key=lambda row: row.name)
    assert dict(lines.words) == dict(from_json.words) == {"北京": 5, "San Francisco": -2}
    assert (lines.name, lines.description) == ("words.txt", "some")


def test_what_show_prints_is_what_create_reads() -> None:
    done("create", "first", "-", text="a b 3\nc 0\n")
    shown = done("show", "first")
    assert shown == "a b 3\nc 0\n"
    done("create", "second", "-", text=shown)
    first, second = saved()
    assert first.words == second.words
    assert json.loads(done("show", second.id, "--json"))["words"] == {"a b": 3, "c": 0}


def test_set_changes_what_is_named_and_nothing_else() -> None:
    made = done("create", "w", "-", "--description", "d", text="a 1\n").strip()
    done("set", "w", "-", text="b 2\n")
    done("set", made, "--name", "v")
    (row,) = saved()
    assert (row.id, row.name, row.description, dict(row.words)) == (made, "v", "d", {"b": 2})
    assert "nothing to change" in refusal("set", "v")


def test_list_tells_which_projects_have_it() -> None:
    made = json.loads(done("create", "w", "-", "--json", text="a 1\nb 1\n"))
    CliRunner().invoke(cli, ["project", "create", "film", "--vocab", "w"])
    assert done("list") == f"{made['id']}\tw\t2\tfilm\t\n"
    (row,) = json.loads(done("list", "--json"))
    assert (row["id"], row["words"], row["projects"]) == (made["id"], 2, ["film"])


def test_delete_takes_it_from_its_projects() -> None:
    done("create", "w", "-", text="a 1\n")
    CliRunner().invoke(cli, ["project", "create", "film", "--vocab", "w"])
    done("delete", "w")
    shown = CliRunner().invoke(cli, ["project", "show", "film", "--json"]).stdout
    assert json.loads(shown)["vocabulary_id"] is None
    assert "There is no vocabulary w;" in refusal("delete", "w")


def test_a_name_is_given_once() -> None:
    done("create", "w", "-", text="a 1\n")
    made = done("create", "v", "-", text="a 1\n").strip()
    assert "There is a vocabulary w already" in refusal("create", "w", "-", text="a 1\n")
    assert "There is a vocabulary w already" in refusal("set", "v", "--name", "w")
    # An id, too: or it would be two vocabularies' way to be called.
    assert "already" in refusal("set", "w", "--name", made)


def test_two_of_a_name_that_came_another_way_are_told_apart_by_id() -> None:
    async def work() -> None:
        async with open_store(load()) as store:
            for vocabulary_id in ("a" * 32, "b" * 32):
                row = VocabularyRow(id=vocabulary_id, name="w", words={"x": 1})
                await store.save_vocabulary(row)

    asyncio.run(work())
    assert "There are 2 vocabularies w: name it by its id" in refusal("show", "w")
    assert done("show", "b" * 32) == "x 1\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "A vocabulary has 1 to 1000 words; this one has 0!"),
        ("a 1\nb\n", "-: line 2 is no word with a weight (-6 to 5) behind it"),
        ("a 1\n5\n", "-: line 2 is no word"),
        ("a 1\na 2\n", "-: line 2: a is there twice"),
        ("Windows 11\n", "Invalid weight 11 of 'Windows'"),
        ("x" * 65 + " 1\n", "Invalid word"),
        ("".join(f"w{n} 1\n" for n in range(1001)), "this one has 1001!"),
        ('{"a": "b"}', "-: Invalid WordWeights"),
        ("x" * (1024 * 1024 + 1), "- is too large"),
    ],
)
def test_a_bad_file_is_one_line(text: str, complaint: str) -> None:
    assert complaint in refusal("create", "w", "-", text=text)
    assert saved() == []


def test_a_file_that_cannot_be_read_is_one_line() -> None:
    assert "x.txt cannot be read: No such file" in refusal("create", "w", "x.txt")
    Path("x.txt").write_bytes(b"\xff\xfe")
    assert "x.txt is not UTF-8 text" in refusal("create", "w", "x.txt")


def test_a_name_is_not_blank() -> None:
    assert "A vocabulary needs a name" in refusal("create", " ", "-", text="a 1\n")


def test_a_line_is_read_from_its_end() -> None:
    assert parse_lines("Route 66 5\nC++ -1\n我 +2") == {"Route 66": 5, "C++": -1, "我": 2}
    with pytest.raises(InvalidRequest):
        parse_lines("a\t")
