"""A client certificate and its key, for TLS handshakes; from files that may be replaced at any time."""

from __future__ import annotations

import ssl
from collections.abc import Hashable
from pathlib import Path

from fleet.config.providers import ProviderSettings
from fleet.errors import ExchangeFailed


class ClientCertificate:
    """What shows a client certificate, as its files are when a connection is opened.

    Args:
        certificate: PEM, with its chain.
        key: PEM, which only its owner can read.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate.expanduser(), key.expanduser()
        self._context: ssl.SSLContext | None = None
        self._mark: Hashable = None

    def context(self) -> ssl.SSLContext:
        """Return it for new connections; costs two system calls where the files are as they were.

        Raises:
            ExchangeFailed: They cannot be read, others can read the key, or they do not belong together.
        """
        try:
            mark = tuple((found.st_ino, found.st_mtime_ns) for found in (self._certificate.stat(), self._key.stat()))
            if self._context is None or mark != self._mark:
                self._context, self._mark = self._loaded(), mark
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            said = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
            raise ExchangeFailed(
                f"expected a client certificate and its key (PEM) in {self._certificate} and {self._key}, got: {said}",
                is_ours=True,
            ) from None
        return self._context

    def _loaded(self) -> ssl.SSLContext:
        if self._key.stat().st_mode & 0o077:
            raise ExchangeFailed(
                f"certificate_key_file: expected {self._key} to be readable by its owner only: run "
                f"`chmod 600 {self._key}`",
                is_ours=True,
            )
        context = ssl.create_default_context() if self._context is None else self._context
        context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        return context


def certificate_of(settings: ProviderSettings) -> ClientCertificate | None:
    """Return what a provider is shown of this client; None: nothing."""
    found = None if settings.exchange is None else settings.exchange.certificate
    return None if found is None else ClientCertificate(*found)
