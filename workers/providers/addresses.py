"""Addresses of APIs: what a `base_url` must be, and the proxy that leads there."""

from __future__ import annotations

import urllib.request

from yarl import URL

from fleet.errors import ConfigurationError
from fleet.quoting import quote

#: Hosts of this machine, to which no proxy leads.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def parse_base_url(text: str, *, default_path: str = "", strip_path: str = "") -> URL:
    """Check a `base_url` and bring it into one form.

    Args:
        text: As configured.
        default_path: Path that an address without any path gets.
        strip_path: Path at the end that is taken off, because the adapter adds it itself.

    Raises:
        ConfigurationError: When it is not an http(s) address, or carries a password, a query or a fragment.
    """
    wanted = "base_url: expected http(s)://HOST[:PORT][/PATH]"
    try:
        url = URL(text.strip().rstrip("/"))
    except ValueError as error:
        raise ConfigurationError(f"{wanted}, got no address: correct it in fleet.toml") from error
    if url.user or url.password or url.query_string or url.fragment:
        raise ConfigurationError(f"{wanted}, got one with a user, query or fragment: keys belong in `api_key_env`")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{wanted}, got {quote(text)}: correct it in fleet.toml")
    path = url.path.rstrip("/").removesuffix(strip_path) or default_path
    return url.origin().with_path(path) if path else url.origin()


def proxy_for(url: URL) -> str | None:
    """Return the proxy of HTTPS_PROXY and friends, looked up once: asking per request costs more than the request."""
    host = url.host or ""
    if host in LOOPBACK or host.startswith("127.") or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return None
    scheme, found, _ = proxy.partition("://")
    if found and scheme not in ("http", "https"):
        raise ConfigurationError(f"{url.scheme}_proxy: expected an http proxy, got one for {quote(scheme)}: unset it")
    return proxy if found else f"http://{proxy}"
