"""The commands against a server with a certificate that signs itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from app.cli import checks, cli
from app.core.config import load

VOICES = {"voices": {"aixia": {"type": "preset", "language": "zh-CN", "gender": "female"}}}


def settings(server: Any, certificate: Path) -> None:
    Path(".env").write_text(
        f"HOST=127.0.0.1\nPORT={server.port}\n"
        f"SSL_CERTFILE={certificate}\nSSL_KEYFILE={certificate}\n"
    )


def test_our_own_server_is_trusted_by_its_certificate(tls_server: Any, certificate: Path) -> None:
    settings(tls_server, certificate)
    tls_server.pages["/stream/v1/tts/voices/info"] = VOICES
    for where in ([], ["--url", f"https://localhost:{tls_server.port}"]):
        result = CliRunner().invoke(cli, ["voices", *where])
        assert result.exit_code == 0, result.stderr
        assert result.stdout == "aixia\tzh-CN\tfemale\tpreset\t\n"


def test_another_certificate_is_refused_with_advice(tls_server: Any) -> None:
    tls_server.pages["/stream/v1/tts/voices/info"] = VOICES
    for command in (["voices"], ["say", "hello"]):
        result = CliRunner().invoke(cli, [*command, "--url", tls_server.url])
        assert result.exit_code == 1
        assert "is not trusted: self-signed certificate" in result.stderr
        assert "SSL_CERTFILE" in result.stderr
        assert "funspeech serve" not in result.stderr


def test_doctor_recognises_our_server(tls_server: Any, certificate: Path) -> None:
    settings(tls_server, certificate)
    tls_server.pages["/health"] = {"status": "healthy", "version": "9.9", "engines": {}}
    finding = checks.check_port(load())
    assert finding.level == "OK"
    assert "FunSpeech 9.9 runs" in finding.text


def test_doctor_on_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "x.pem"
    file.touch()
    config = load(None, {"SSL_CERTFILE": str(file), "SSL_KEYFILE": str(file)})
    first = next(checks.check_settings(config))
    assert (first.level, first.text.startswith("SSL_CERTFILE: must be")) == ("FAIL", True)
