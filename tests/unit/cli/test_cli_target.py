"""Which server, with which credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from app.cli.target import Target, advice, is_local, resolve, served_at
from app.client.errors import AccessRefused, AnswerTimeout, NlsTaskFailed, ServerUnreachable
from app.core.config import Config


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::", "http://[::1]:9000"),
        ("10.0.0.7", "http://10.0.0.7:9000"),
        ("fe80::1", "http://[fe80::1]:9000"),
        ("speech.example", "http://speech.example:9000"),
    ],
)
def test_address_of_the_settings(host: str, url: str) -> None:
    assert served_at(Config(host=host, port=9000)) == url


def test_address_with_tls(tmp_path: Path) -> None:
    file = tmp_path / "x.pem"
    file.touch()
    tls = {"ssl_certfile": file, "ssl_keyfile": file, "host": "127.0.0.1"}
    assert served_at(Config.model_validate(tls)) == "https://127.0.0.1:8000"
    public = Config.model_validate({**tls, "public_url": "https://speech.example"})
    assert served_at(public) == "https://speech.example"


def test_defaults_come_from_the_settings() -> None:
    Path(".env").write_text("HOST=127.0.0.1\nPORT=9001\nAPPTOKEN=secret\nAPPKEY=key\n")
    assert resolve(None, None) == Target("http://127.0.0.1:9001", "secret", "key")
    assert resolve("http://localhost:1", None) == Target("http://localhost:1", "secret", "key")
    assert resolve(None, "other").token == "other"


def test_our_credentials_do_not_go_elsewhere() -> None:
    Path(".env").write_text("APPTOKEN=secret\nAPPKEY=key\n")
    url = "http://speech.example"
    assert resolve(url, None) == Target(url, None, "default")
    assert resolve(url, "given") == Target(url, "given", "default")


@pytest.mark.parametrize("url", ["http://127.0.0.9:1", "ws://localhost/ws/v1", "http://[::1]:8"])
def test_this_machine(url: str) -> None:
    assert is_local(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1.example", "http://10.0.0.1", "x", "http://[::1"])
def test_another_machine(url: str) -> None:
    assert not is_local(url)


def test_malformed_settings_end_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text("PORT=many\n")
    with pytest.raises(typer.Exit) as caught:
        resolve(None, None)
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err.startswith("funspeech: PORT: must be a whole number")


def test_advice() -> None:
    assert "funspeech serve" in advice(ServerUnreachable("nobody"))
    assert "--token" in advice(AccessRefused("no"))
    assert "--token" in advice(NlsTaskFailed(40_000_001, "no"))
    assert advice(NlsTaskFailed(40_000_005, "full")) == "full (40000005)"
    assert advice(AnswerTimeout("late")) == "late"
