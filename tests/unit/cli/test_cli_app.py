"""The command line itself: what it imports, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import app
from app import cli as package
from app.cli import cli, main

HEAVY = {
    "asyncio",
    "cryptography",
    "fastapi",
    "httpx",
    "numpy",
    "pydantic",
    "rich",
    "sqlalchemy",
    "websockets",
}
OF_THE_OWNER = ("project", "vocab", "token", "key", "usage", "cert")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(app.__file__).parent.parent
    return subprocess.run(
        [sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False
    )


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import app.cli, json, sys; print(json.dumps(sorted(sys.modules)))"
    modules = set(json.loads(python("-c", code).stdout))
    assert not HEAVY & modules


def test_python_m_app_is_the_command() -> None:
    assert python("-m", "app", "--version").stdout == f"funspeech {app.__version__}\n"


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    for command in ("serve", "transcribe", "say", "levels", "voices", "doctor", *OF_THE_OWNER):
        assert f"  {command} " in result.output


@pytest.mark.parametrize(
    "command",
    [[], ["serve"], ["transcribe"], ["say"], ["levels"], ["voices"], ["doctor"]]
    + [[name] for name in OF_THE_OWNER]
    + [["project", "create"], ["vocab", "set"], ["token", "revoke"], ["key", "list"]],
)
def test_h_is_help(command: list[str]) -> None:
    short, long = (CliRunner().invoke(cli, [*command, option]) for option in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.output == long.output
    assert "Usage: " in short.output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["nonsense"])
    assert result.exit_code == 2
    assert "No such command 'nonsense'" in result.stderr


def broken() -> None:
    raise LookupError("oh")


def test_a_mistake_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = typer.Typer(pretty_exceptions_enable=False)
    faulty.command()(broken)
    monkeypatch.setattr(package, "cli", faulty)
    monkeypatch.setattr(sys, "argv", ["funspeech"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("funspeech: internal error (LookupError: oh)")
    assert error.count("\n") == 1


def interrupted() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_is_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = typer.Typer(pretty_exceptions_enable=False)
    faulty.command()(interrupted)
    monkeypatch.setattr(package, "cli", faulty)
    monkeypatch.setattr(sys, "argv", ["funspeech"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert "Traceback" not in capsys.readouterr().err
