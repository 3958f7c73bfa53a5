"""Throw-away certificates, and a Redis that speaks TLS, for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fleet.store.embedded import redis_server
from fleet.store.service import free_port
from tests.redis_server import RedisServer


def make_certificates(folder: Path) -> None:
    """Make ca.pem, a certificate for 127.0.0.1 signed by it (server.pem, server.key), and other.pem, another CA."""
    for name in ("ca", "other"):
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=fleet test {name}",
            "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem"),
        )  # fmt: skip
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
        "-keyout", str(folder / "server.key"), "-out", str(folder / "server.csr"),
    )  # fmt: skip
    (folder / "names.cnf").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    _openssl(
        "x509", "-req", "-days", "2", "-in", str(folder / "server.csr"), "-CA", str(folder / "ca.pem"),
        "-CAkey", str(folder / "ca.key"), "-CAcreateserial", "-extfile", str(folder / "names.cnf"),
        "-out", str(folder / "server.pem"),
    )  # fmt: skip


class TlsRedisServer(RedisServer):
    """A Redis that listens with TLS too. Skips the test where redis-server or openssl cannot."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs the openssl command line to make certificates")
        if not _speaks_tls(folder):
            pytest.skip(f"needs a redis-server built with TLS: {redis_server()} is not")
        make_certificates(folder)
        tls_port = free_port()
        files = [("--tls-cert-file", "server.pem"), ("--tls-key-file", "server.key"), ("--tls-ca-cert-file", "ca.pem")]
        options = [word for option, name in files for word in (option, str(folder / name))]
        super().__init__(folder, "--tls-port", str(tls_port), "--tls-auth-clients", "no", *options)
        self.tls_url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={folder / 'ca.pem'}"


def _speaks_tls(folder: Path) -> bool:
    """True when the server knows the option at all; it then stops at the certificate that is not there."""
    command = [str(redis_server()), "--port", "0", "--tls-port", str(free_port()), "--dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return "Bad directive" not in done.stdout + done.stderr


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
