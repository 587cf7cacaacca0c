"""``funspeech project``: what it writes into the database, and what it says."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.access.snapshot import Snapshot
from app.access.store import Store, open_store
from app.cli import cli
from app.core.config import load
from app.core.project import Project


def funspeech(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def project(*arguments: str) -> Result:
    result = funspeech("project", *arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refusal(*arguments: str) -> str:
    """The one line of an error."""
    result = funspeech("project", *arguments)
    assert result.exit_code == 1, result.stdout
    assert result.stdout == ""
    assert result.stderr.startswith("funspeech: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("funspeech: ").rstrip()


def snapshot() -> Snapshot:
    """What a server would hold now."""

    async def work() -> Snapshot:
        async with open_store(load()) as store:
            return await Store.snapshot(store)

    return asyncio.run(work())


def saved(appkey: str) -> Project:
    return snapshot().projects[appkey]


def test_a_project_with_everything() -> None:
    Path("words.txt").write_text("北京 5\n")
    Path("models.toml").write_text('[telephone]\nASR_ENGINE = "fake"\n')
    Path(".env").write_text("MODELS_FILE=models.toml\n")
    vocabulary = funspeech("vocab", "create", "cities", "words.txt").stdout.strip()
    result = project(
        *("create", "film", "--name", "Film 电影", "--model", "telephone", "--rate", "8000"),
        *("--language", "zh", "--vocab", "cities", "--default", "voice=Aixia"),
        *("--default", "enable_words=true", "--voice", "Aixia", "--voice", "aiqi"),
        *("--max-tasks", "3", "--daily-audio", "1h30m", "--daily-characters", "1000"),
    )
    assert result.stdout == "film\n"
    assert result.stderr == (
        "funspeech: a running server has it within a second (database data/funspeech.db)\n"
    )
    assert saved("film") == Project(
        appkey="film",
        name="Film 电影",
        model="telephone",
        max_rate=8000,
        language="zh",
        hotwords=(("北京", 5.0),),
        defaults={"voice": "Aixia", "enable_words": "true"},
        voices=frozenset({"aixia", "aiqi"}),
        max_tasks=3,
        daily_audio_s=5400,
        daily_characters=1000,
        vocabularies={vocabulary: (("北京", 5.0),)},
    )
    assert project("list").stdout == (
        "*\t\tenabled\t\n"
        "film\tFilm 电影\tenabled\tmodel telephone, 8000 Hz, zh, words cities, voice=Aixia, "
        "enable_words=true, voices Aixia aiqi, tasks 3, 1h30m of audio a day, "
        "1000 characters a day\n"
    )
    shown = json.loads(project("show", "film", "--json").stdout)
    assert shown == json.loads(project("list", "--json").stdout)[1]
    assert (shown["vocabulary_id"], shown["vocabulary"]) == (vocabulary, "cities")
    assert (shown["voices"], shown["daily_audio_s"]) == (["Aixia", "aiqi"], 5400)
    assert shown["created_at"].endswith("Z")
    lines = [line.split(maxsplit=1) for line in project("show", "film").stdout.splitlines()]
    fields = dict(line for line in lines)
    assert fields["daily_audio"] == "1h30m"
    assert fields["defaults"] == "voice=Aixia enable_words=true"


def test_set_changes_what_is_named_and_nothing_else() -> None:
    project("create", "a", "--name", "A", "--rate", "8000", "--default", "volume=70")
    project("set", "a", "--language", "en", "--disabled", "--default", "speech_rate=10")
    assert saved("a") == Project(
        appkey="a",
        name="A",
        enabled=False,
        max_rate=8000,
        language="en",
        defaults={"volume": "70", "speech_rate": "10"},
    )


def test_set_takes_away() -> None:
    Path("words.txt").write_text("a 1\n")
    funspeech("vocab", "create", "w", "words.txt")
    project(
        *("create", "a", "--name", "A", "--rate", "8000", "--language", "en", "--vocab", "w"),
        *("--default", "volume=70", "--voice", "xiaoyun", "--max-tasks", "0"),
        *("--daily-audio", "1h", "--daily-characters", "5", "--disabled"),
    )
    assert saved("a").max_tasks == 0
    project(
        *("set", "a", "--name", "", "--rate", "0", "--language", "", "--vocab", ""),
        *("--default", "volume=", "--voice", "", "--max-tasks", "default"),
        *("--daily-audio", "0", "--daily-characters", "0", "--enabled", "--model", ""),
    )
    assert saved("a") == Project(appkey="a", vocabularies=snapshot().vocabularies)


def test_a_new_appkey_is_made_where_none_is_given() -> None:
    first, second = (project("create").stdout.strip() for _ in range(2))
    assert first != second
    assert len(first) == 16 and first.isalnum()
    assert saved(first) == Project(appkey=first)


def test_create_tells_all_of_it_in_json() -> None:
    made = json.loads(project("create", "a", "--name", "A", "--json").stdout)
    assert made == json.loads(project("show", "a", "--json").stdout)
    assert (made["appkey"], made["name"], made["vocabulary"]) == ("a", "A", None)


def test_the_default_project_can_be_switched_off_and_not_deleted() -> None:
    told = project("set", "*", "--disabled").stderr
    assert "clients whose appkey has no project of its own are refused now" in told
    assert not saved("*").enabled
    assert refusal("delete", "*").startswith("The default project * stays")
    assert "names no client" in refusal("create", "*")


def test_delete() -> None:
    project("create", "a")
    project("delete", "a")
    assert set(snapshot().projects) == {"*"}
    assert refusal("delete", "a").startswith("There is no project a;")


def test_a_project_that_lacks_the_usual_voice_is_worth_a_word() -> None:
    told = project("create", "a", "--voice", "aixia").stderr
    assert "requests that name no voice are refused now" in told
    assert "refused now" not in project("set", "a", "--default", "voice=aixia").stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--default", "enable_nlp=true"], "These defaults would be refused: enable_nlp cannot"),
        (["--default", "format=midi"], "These defaults would be refused: Invalid format 'midi'!"),
        (["--default", "volume"], "--default volume: expected NAME=VALUE"),
        (["--default", "volume="], "--default volume=: there is no default volume to take away"),
        (["--voice", "a", "--default", "voice=b"], "The default voice is not among"),
        (["--rate", "7000"], "Invalid rate 7000: expected 8000 to 48000"),
        (["--language", "chinese"], "Invalid language"),
        (["--vocab", "none"], "There is no vocabulary none;"),
        (["--model", "x"], "There is no model x in MODELS_FILE: it has none, or is not set"),
        (["--max-tasks", "-1"], "--max-tasks -1: expected a number, 0 for no limit, or default"),
        (["--daily-audio", "2"], "'2' is no length of time such as 90s, 45m, 2h or 1h30m"),
        (["--daily-audio", "1h 5x"], "is no length of time"),
        (["--daily-characters", "-1"], "Invalid daily characters -1"),
        ([], "nothing to change; 'funspeech project set --help' has the options"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments: list[str], complaint: str) -> None:
    project("create", "a")
    before = saved("a")
    assert complaint in refusal("set", "a", *arguments)
    assert saved("a") == before


def test_an_appkey_is_created_once_and_changed_where_it_is() -> None:
    project("create", "a")
    assert refusal("create", "a") == "There is a project a already."
    for command in (["set", "b", "--name", "B"], ["show", "b"]):
        assert refusal(*command) == "There is no project b; 'funspeech project list' has all"


def test_an_unknown_model_is_told_those_there_are() -> None:
    Path("models.toml").write_text('[telephone]\nASR_ENGINE = "fake"\n')
    Path(".env").write_text("MODELS_FILE=models.toml\n")
    assert "MODELS_FILE: it has telephone" in refusal("create", "a", "--model", "phone")


def test_bad_settings_and_a_bad_database_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://me:hidden@host/name")
    assert "DATABASE_URL must be sqlite:///path" in refusal("list")
    assert "hidden" not in refusal("list")
    Path("notes").write_text("not a database, but as long as the header of one " * 20)
    monkeypatch.setenv("DATABASE_URL", "sqlite:///notes")
    assert refusal("list").startswith("The database notes cannot be used: ")
    monkeypatch.setenv("PORT", "many")
    assert refusal("list").startswith("PORT: must be")


def test_the_password_of_the_database_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hidden@127.0.0.1:1/name")
    told = refusal("list")
    assert "postgresql://127.0.0.1:1/name cannot be used" in told
    assert "hidden" not in told


def test_the_database_is_its_owners_alone() -> None:
    project("list")
    assert stat.S_IMODE(Path("data/funspeech.db").stat().st_mode) == 0o600
