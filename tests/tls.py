"""Throw-away certificates, and a Redis that speaks TLS, for tests."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet.store.home import write_private
from fleet.store.private.server import NAMES
from fleet.store.private.service import free_port
from tests.redis_server import RedisServer, server_program


def make_certificates(folder: Path) -> None:
    """Make ca.pem, a certificate for 127.0.0.1 signed by it (server.pem, server.key), and other.pem, another CA.

    They have what Python 3.13 and later ask for: what a key may be used for, and whose key signed it.
    """
    for name in ("ca", "other"):
        key = _new_key(folder, name)
        issued = _builder(f"fleet test {name}", key).add_extension(x509.BasicConstraints(True, None), critical=True)
        issued = issued.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        _write(folder, name, issued.sign(key, hashes.SHA256()))
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    _issue(folder, "server", "127.0.0.1", "ca", ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(names))


def make_client_certificate(folder: Path, name: str, *, signed_by: str = "ca") -> None:
    """Make NAME.pem and NAME.key, a client certificate signed by a CA of `make_certificates`."""
    _issue(folder, name, name, signed_by, ExtendedKeyUsageOID.CLIENT_AUTH)


def _issue(
    folder: Path, name: str, common_name: str, signed_by: str, purpose: x509.ObjectIdentifier,
    *more: x509.ExtensionType,
) -> None:  # fmt: skip
    """Make NAME.key, and NAME.pem signed by a CA of this folder."""
    authority = x509.load_pem_x509_certificate((folder / f"{signed_by}.pem").read_bytes())
    signer = load_pem_private_key((folder / f"{signed_by}.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = _new_key(folder, name)
    issued = _builder(common_name, key, authority).add_extension(x509.BasicConstraints(False, None), critical=True)
    issued = issued.add_extension(_usage("digital_signature"), critical=True)
    for one in (x509.ExtendedKeyUsage([purpose]), *more):
        issued = issued.add_extension(one, critical=False)
    _write(folder, name, issued.sign(signer, hashes.SHA256()))


def _new_key(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(folder / f"{name}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return key


def _builder(
    common_name: str, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate | None = None
) -> x509.CertificateBuilder:
    """Begin a certificate of two days, signed by an authority or, without one, by itself."""
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]), datetime.now(UTC)
    signer = key.public_key() if authority is None else authority.public_key()
    assert isinstance(signer, ec.EllipticCurvePublicKey)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if authority is None else authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in allowed for name in names})


def _write(folder: Path, name: str, certificate: x509.Certificate) -> None:
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))


class TlsRedisServer(RedisServer):
    """A Redis that listens with TLS too. Skips the test where no server is built with TLS."""

    def __init__(self, folder: Path) -> None:
        program = _with_tls(folder)
        make_certificates(folder)
        tls_port = free_port()
        files = [("--tls-cert-file", "server.pem"), ("--tls-key-file", "server.key"), ("--tls-ca-cert-file", "ca.pem")]
        options = [word for option, name in files for word in (option, str(folder / name))]
        super().__init__(folder, "--tls-port", str(tls_port), "--tls-auth-clients", "no", *options, program=program)
        self.tls_url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={folder / 'ca.pem'}"


def _with_tls(folder: Path) -> Path:
    """Return the server that these tests run on, or, as the bundled one has no TLS, the one on PATH."""
    known = [server_program(), *(Path(found) for name in NAMES if (found := shutil.which(name)))]
    for program in known:
        if _speaks_tls(program, folder):
            return program
    pytest.skip(f"needs a redis-server built with TLS: {' and '.join(map(str, known))} are not")


def _speaks_tls(program: Path, folder: Path) -> bool:
    """True when the server asks for a certificate: one built without TLS stops earlier, each in its own words."""
    command = [str(program), "--port", "0", "--tls-port", str(free_port()), "--dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return "No tls-cert-file configured" in done.stdout + done.stderr
