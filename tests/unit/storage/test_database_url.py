"""What DATABASE_URL may say, and what of it is shown."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from app.core.config import Config
from app.storage import engine as engine_module
from app.storage.engine import database_file, database_name, database_url, open_database
from app.storage.errors import StorageError
from tests.support.databases import url_of


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("sqlite:///a/b.db", "sqlite+aiosqlite:///a/b.db"),
        ("sqlite:////a/b.db", "sqlite+aiosqlite:////a/b.db"),
        ("sqlite+aiosqlite:///b.db", "sqlite+aiosqlite:///b.db"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p%40@h:5433/d", "postgresql+asyncpg://u:p%40@h:5433/d"),
        ("postgresql://u@/d?host=/run", "postgresql+asyncpg://u@/d?host=/run"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
    ],
)
def test_settings_become_urls(setting: str, url: str) -> None:
    assert url_of(setting).replace("%2F", "/") == url


def test_the_default_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    for config in (Config(data_dir=tmp_path), Config.model_validate({"data_dir": str(tmp_path)})):
        url = database_url(config)
        assert database_name(url) == str(tmp_path / "funspeech.db")
        assert database_file(open_database(url)) == tmp_path / "funspeech.db"


@pytest.mark.parametrize("name", ["with space.db", "50%.db", "what?.db", "数据#.db"])
def test_any_folder_will_do(name: str, tmp_path: Path) -> None:
    url = database_url(Config(data_dir=tmp_path / name))
    assert database_file(open_database(url)) == tmp_path / name / "funspeech.db"


def test_home_directories_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database_name(url_of("sqlite:///~/x.db")) == str(tmp_path / "x.db")


@pytest.mark.parametrize(
    "setting",
    [
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///~nobody-of-this-name/x",
        "mysql://u:secret@h/d",
        "postgresql://h",
        "postgresql://u:secret@h:port/d",
    ],
)
def test_others_are_refused_in_one_line_without_the_password(setting: str) -> None:
    with pytest.raises(StorageError, match="DATABASE_URL") as refusal:
        url_of(setting)
    assert "\n" not in str(refusal.value) and "secret" not in str(refusal.value)


def test_the_name_shows_no_credentials() -> None:
    url = url_of("postgresql://user:secret@h:5433/d?password=secret2")
    assert database_name(url) == "postgresql://h:5433/d"


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        engine_module, "find_spec", lambda name: None if name == "asyncpg" else find_spec(name)
    )
    with pytest.raises(StorageError, match=r"-e '\.\[postgres\]'"):
        open_database(url_of("postgresql://h/d"))
