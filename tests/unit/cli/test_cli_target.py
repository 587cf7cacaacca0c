"""Which server, with which credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from app.cli.address import own_tls
from app.cli.target import Target, advice, is_local, resolve, served_at
from app.client.errors import (
    AccessRefused,
    AnswerTimeout,
    CertificateRefused,
    NlsTaskFailed,
    ServerUnreachable,
)
from app.core.config import Config, ConfigError

CERTIFICATE = Path(__file__).parents[2] / "support" / "self_signed.pem"


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


def tls_settings(certificate: Path, **more: object) -> Config:
    return Config.model_validate(
        {"ssl_certfile": certificate, "ssl_keyfile": certificate, "host": "127.0.0.1", **more}
    )


def test_address_with_tls() -> None:
    assert served_at(tls_settings(CERTIFICATE)) == "https://127.0.0.1:8000"
    # The certificate is known, so the way through a proxy is not needed.
    public = tls_settings(CERTIFICATE, public_url="https://speech.example")
    assert served_at(public) == "https://127.0.0.1:8000"


def test_without_tls_nothing_is_trusted_specially() -> None:
    assert own_tls(Config()) is None


def test_only_the_first_certificate_is_trusted(tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    text = CERTIFICATE.read_text()
    broken = "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n"
    chain.write_text(text + broken)
    context = own_tls(tls_settings(chain))
    assert context is not None
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nx"])
def test_a_file_without_a_certificate(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.pem"
    file.write_text(content)
    with pytest.raises(ConfigError, match="SSL_CERTFILE: must be a file with a PEM certificate"):
        own_tls(tls_settings(file))


def test_our_certificate_is_for_our_server_only() -> None:
    Path(".env").write_text(f"SSL_CERTFILE={CERTIFICATE}\nSSL_KEYFILE={CERTIFICATE}\n")
    assert resolve(None, None).tls is not None
    assert resolve("https://localhost:8000", None).tls is not None
    assert resolve("https://speech.example", None).tls is None


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
    assert "SSL_CERTFILE" in advice(CertificateRefused("no"))
    assert "funspeech serve" in advice(ServerUnreachable("nobody"))
    assert "--token" in advice(AccessRefused("no"))
    assert "--token" in advice(NlsTaskFailed(40_000_001, "no"))
    assert advice(NlsTaskFailed(40_000_005, "full")) == "full (40000005)"
    assert advice(AnswerTimeout("late")) == "late"
