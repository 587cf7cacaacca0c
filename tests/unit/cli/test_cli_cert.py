"""``funspeech cert``: what clients that trust the authority then accept, and what they do not."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner, Result

from app.cli import cli
from app.cli.address import own_tls
from app.core.config import load

LAN = ["speech.lan", "192.168.1.20", "fd00::20", "*.speech.lan"]


def cert(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["cert", *arguments])


def made(*arguments: str) -> str:
    result = cert(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refusal(*arguments: str) -> str:
    result = cert(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("funspeech: ") and result.stderr.count("\n") == 1
    return result.stderr


def shake_hands(name: str, folder: str = "certs", authority: str | None = None) -> None:
    """A TLS handshake in memory, checked as strictly as OpenSSL can.

    Raises:
        ssl.SSLCertVerificationError: the client does not take the server for ``name``.
    """
    client = ssl.create_default_context(cafile=authority or f"{folder}/ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting


def loaded(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path("certs", name).read_bytes())


@pytest.mark.parametrize("name", ["speech.lan", "192.168.1.20", "fd00::20", "a.speech.lan"])
def test_clients_that_trust_the_authority_accept_each_name(name: str) -> None:
    made(*LAN)
    shake_hands(name)


@pytest.mark.parametrize("name", ["other.lan", "192.168.1.21", "localhost"])
def test_other_names_are_refused(name: str) -> None:
    made(*LAN)
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        shake_hands(name)


def test_clients_that_trust_another_authority_refuse_it() -> None:
    made("speech.lan")
    made("speech.lan", "--output", "elsewhere")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake_hands("speech.lan", authority="elsewhere/ca.pem")


def test_without_names_it_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Speech-1")
    monkeypatch.setattr("app.cli.cert._own_addresses", lambda: ["10.0.0.7"])
    told = made()
    for name in ("localhost", "127.0.0.1", "::1", "10.0.0.7", "speech-1", "speech-1.local"):
        shake_hands(name)
    assert "https://10.0.0.7:8000/health" in told


def test_a_machine_without_a_network_has_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("app.cli.cert.socket.socket", unreachable)
    made()
    shake_hands("localhost")


def test_keys_are_their_owners_alone() -> None:
    made("speech.lan")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path("certs").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "cert.pem": 0o644, "key.pem": 0o600}


def test_what_it_is_valid_for() -> None:
    made("speech.lan", "--days", "30")
    now = datetime.now(UTC)
    certificate, authority = loaded("cert.pem"), loaded("ca.pem")
    end = certificate.not_valid_after_utc
    assert now + timedelta(29) < end <= now + timedelta(30)
    assert authority.not_valid_after_utc > now + timedelta(3600)
    limits = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    own = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not own.ca


def test_nothing_is_overwritten() -> None:
    made("speech.lan")
    before = {path: path.read_bytes() for path in Path("certs").iterdir()}
    told = refusal("speech.lan")
    assert "certs/cert.pem is there already: move it away, or choose another --output" in told
    assert {path: path.read_bytes() for path in Path("certs").iterdir()} == before


def test_a_renewed_certificate_is_trusted_by_the_same_clients() -> None:
    made("speech.lan")
    authority = Path("certs/ca.pem").read_bytes()
    for name in ("cert.pem", "key.pem"):
        Path("certs", name).unlink()
    result = cert("new.lan")
    assert result.exit_code == 0
    assert "clients that trust it need nothing new" in result.stderr
    assert Path("certs/ca.pem").read_bytes() == authority
    shake_hands("new.lan")


def test_a_renewed_certificate_does_not_outlive_its_authority() -> None:
    made("speech.lan", "--days", "3650")
    for name in ("cert.pem", "key.pem"):
        Path("certs", name).unlink()
    made("speech.lan", "--days", "3650")
    assert loaded("cert.pem").not_valid_after_utc <= loaded("ca.pem").not_valid_after_utc


@pytest.mark.parametrize("missing", ["ca.pem", "ca-key.pem"])
def test_half_an_authority_is_not_replaced(missing: str) -> None:
    made("speech.lan")
    for name in ("cert.pem", "key.pem", missing):
        Path("certs", name).unlink()
    assert "is there without its other half" in refusal("speech.lan")


def test_an_authority_of_something_else_is_not_used() -> None:
    made("speech.lan")
    made("speech.lan", "-o", "other")
    for name in ("cert.pem", "key.pem"):
        Path("certs", name).unlink()
    Path("certs/ca-key.pem").write_bytes(Path("other/ca-key.pem").read_bytes())
    assert "do not belong together" in refusal("speech.lan")
    Path("certs/ca-key.pem").write_text("nonsense")
    assert "are not what this command has made" in refusal("speech.lan")


@pytest.mark.parametrize("name", ["two words", "a..b", "", "http://speech.lan", "*", "a.*.lan"])
def test_what_is_no_name(name: str) -> None:
    assert "is neither an address such as 192.168.1.20 nor a host's name" in refusal(name)
    assert not Path("certs").exists()


def test_a_folder_that_cannot_be_is_one_line() -> None:
    Path("file").touch()
    assert "file/certs cannot be written: Not a directory" in refusal("a.lan", "-o", "file/certs")


def test_what_is_printed_serves_our_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8443")
    told = made(*LAN)
    settings = [line.strip() for line in told.splitlines() if line.startswith("  SSL_")]
    assert settings == ["SSL_CERTFILE=certs/cert.pem", "SSL_KEYFILE=certs/key.pem"]
    assert "curl --cacert certs/ca.pem https://speech.lan:8443/health" in told
    assert "host: speech.lan:8443" in told
    Path(".env").write_text("\n".join(settings))
    assert own_tls(load()) is not None


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert "https://[fd00::20]:8000/health" in made("fd00::20")
    shake_hands("fd00::20")
