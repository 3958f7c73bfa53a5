"""Throw-away certificates, and a Redis that speaks TLS, for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fleet.store.private.server import NAMES
from fleet.store.private.service import free_port
from tests.redis_server import RedisServer, server_program


def make_certificates(folder: Path) -> None:
    """Make ca.pem, a certificate for 127.0.0.1 signed by it (server.pem, server.key), and other.pem, another CA.

    They have what Python 3.13 and later ask for: what a key may be used for, and whose key signed it.
    """
    for name in ("ca", "other"):
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=fleet test {name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem"),
        )  # fmt: skip
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
        "-keyout", str(folder / "server.key"), "-out", str(folder / "server.csr"),
    )  # fmt: skip
    (folder / "extensions.cnf").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
        "basicConstraints=critical,CA:FALSE\n"
        "subjectKeyIdentifier=hash\n"
        "authorityKeyIdentifier=keyid:always\n"
        "keyUsage=critical,digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth\n"
    )
    _openssl(
        "x509", "-req", "-days", "2", "-in", str(folder / "server.csr"), "-CA", str(folder / "ca.pem"),
        "-CAkey", str(folder / "ca.key"), "-CAcreateserial", "-extfile", str(folder / "extensions.cnf"),
        "-out", str(folder / "server.pem"),
    )  # fmt: skip


def make_client_certificate(folder: Path, name: str, *, signed_by: str = "ca") -> None:
    """Make NAME.pem and NAME.key, a client certificate signed by a CA of `make_certificates`."""
    key, request = folder / f"{name}.key", folder / f"{name}.csr"
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
    key.chmod(0o600)
    (folder / "client.cnf").write_text(
        "basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
    )
    _openssl(
        "x509", "-req", "-days", "2", "-in", str(request), "-CA", str(folder / f"{signed_by}.pem"),
        "-CAkey", str(folder / f"{signed_by}.key"), "-CAcreateserial", "-extfile", str(folder / "client.cnf"),
        "-out", str(folder / f"{name}.pem"),
    )  # fmt: skip


class TlsRedisServer(RedisServer):
    """A Redis that listens with TLS too. Skips the test where openssl or a server built with TLS is missing."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs the openssl command line to make certificates")
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


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
