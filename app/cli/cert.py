"""``funspeech cert``: a certificate for a server on a local network, where no public authority
knows its name.

An authority of one's own signs it. Clients trust the authority once; the server's certificate can
then be renewed, or made for other names, without touching them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.cli.database import note, settings
from app.cli.target import fail

AUTHORITY: Final = "ca.pem"
AUTHORITY_KEY: Final = "ca-key.pem"
CERTIFICATE: Final = "cert.pem"
KEY: Final = "key.pem"

_AUTHORITY_DAYS: Final = 3650
_SKEW: Final = timedelta(days=1)
"""A client's clock may be behind ours."""

_MAX_COMMON_NAME: Final = 64
_NOWHERE: Final = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses for documentation (RFC 5737, RFC 3849): the way to them is that to any network."""


@dataclass(frozen=True, slots=True)
class _Signer:
    """An authority: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def cert(names: Sequence[str], folder: Path, days: int) -> None:
    """Make a key and a certificate for these names and addresses, or for those of this machine, and
    say what server and clients need."""
    wanted = [_name(text) for text in names] if names else _own_names()
    taken = [name for name in (CERTIFICATE, KEY) if (folder / name).exists()]
    if taken:
        fail(f"{folder / taken[0]} is there already: move it away, or choose another --output")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = _authority(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _server_certificate(signer, key, wanted, days)
        _write(folder / KEY, _pem(key), 0o600)
        # With the authority behind it: some clients want the whole chain.
        chain = certificate.public_bytes(Encoding.PEM) + signer.certificate.public_bytes(
            Encoding.PEM
        )
        _write(folder / CERTIFICATE, chain, 0o644)
    except OSError as error:
        fail(f"{error.filename or folder} cannot be written: {error.strerror}")
    typer.echo(_instructions(folder, wanted, certificate.not_valid_after_utc))


# Names


def _name(text: str) -> x509.GeneralName:
    """An address, or a name of a host; ``*.example.lan`` is one, too."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    try:
        # A name with letters of other scripts is in a certificate as it is on the wire.
        name = text.strip().rstrip(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    labels = name.removeprefix("*.").split(".")
    if not all(part and part.replace("-", "").replace("_", "").isalnum() for part in labels):
        fail(f"{text[:80]} is neither an address such as 192.168.1.20 nor a host's name")
    return x509.DNSName(name)


def _own_names() -> list[x509.GeneralName]:
    """What clients on the local network, and on this machine, call it by."""
    host = socket.gethostname()
    texts = ["localhost", "127.0.0.1", "::1", *_own_addresses(), host]
    if "." not in host:
        texts.append(f"{host}.local")  # as it is found without a name server (RFC 6762)
    return [_name(text) for text in dict.fromkeys(texts)]


def _own_addresses() -> list[str]:
    """The addresses that this machine would send from; nothing is sent."""
    found = []
    for address, family in _NOWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            pass  # it has no network of this kind
    return found


def _shown(name: x509.GeneralName) -> str:
    return str(name.value)


# Certificates


def _authority(folder: Path) -> _Signer:
    """The authority that is there, else a new one."""
    files = (folder / AUTHORITY, folder / AUTHORITY_KEY)
    there = [file for file in files if file.exists()]
    if len(there) == 1:
        fail(f"{there[0]} is there without its other half: move it away, or bring that back")
    if there:
        return _read_authority(*files)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"FunSpeech on {socket.gethostname()}"[:64])]
    )
    builder = (
        _valid(_AUTHORITY_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    signer = _Signer(builder.sign(key, hashes.SHA256()), key)
    _write(folder / AUTHORITY_KEY, _pem(key), 0o600)
    _write(folder / AUTHORITY, signer.certificate.public_bytes(Encoding.PEM), 0o644)
    return signer


def _read_authority(file: Path, key_file: Path) -> _Signer:
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (ValueError, TypeError):
        fail(f"{file} and {key_file.name} are not what this command has made")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or _differ(certificate, key):
        fail(f"{file} and {key_file.name} do not belong together")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        fail(f"{file} has expired: move it and {key_file.name} away; clients need the new one")
    note(f"signed by the authority that is in {file}: clients that trust it need nothing new")
    return _Signer(certificate, key)


def _differ(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    return certificate.public_key() != key.public_key()


def _server_certificate(
    signer: _Signer, key: ec.EllipticCurvePrivateKey, names: Sequence[x509.GeneralName], days: int
) -> x509.Certificate:
    common = _shown(names[0])[:_MAX_COMMON_NAME]
    issuer_key = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return (
        _valid(days, signer.certificate.not_valid_after_utc)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]))
        .issuer_name(signer.certificate.subject)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key.value),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def _valid(days: int, latest: datetime | None = None) -> x509.CertificateBuilder:
    """A certificate from now on, for so many days, or until ``latest``."""
    now = datetime.now(UTC)
    end = now + timedelta(days)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(end, latest) if latest else end)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    """A new file, which nobody can read before its mode is set.

    Raises:
        OSError: it is there already, or cannot be written.
    """
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as stream:
        stream.write(data)


# What people see


def _instructions(folder: Path, names: Sequence[x509.GeneralName], until: datetime) -> str:
    config = settings()
    host = next(
        (_shown(name) for name in names if _shown(name) not in ("localhost", "127.0.0.1", "::1")),
        _shown(names[0]),
    )
    if ":" in host:
        host = f"[{host}]"
    authority = folder / AUTHORITY
    address = f"{host}:{config.port}"
    return f"""\
{folder / CERTIFICATE} is for {", ".join(map(_shown, names))}, until {until:%Y-%m-%d}.

Server, in .env, then restart it (after a renewal SIGHUP is enough):
  SSL_CERTFILE={folder / CERTIFICATE}
  SSL_KEYFILE={folder / KEY}

Clients trust {authority}, and nothing else of {folder} leaves this machine:
  curl --cacert {authority} https://{address}/health
  SDKs: url = wss://{address}/ws/v1
  Debian, Ubuntu and images made from them, as root:
    cp {AUTHORITY} /usr/local/share/ca-certificates/funspeech.crt && update-ca-certificates
  xiaozhi: that in its container, and in its environment, for its HTTP requests,
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
  and in its config.yaml: host: {address}"""
