"""`Address`: what Redis and Sentinel URLs say, and how Celery spells them."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from fleet import config
from fleet.errors import ConfigurationError
from fleet.store.address import Address, masked
from fleet.store.client import Store, connect
from fleet.store.private.embedded import broker_url
from tests.tls import TlsRedisServer

SENTINELS = "sentinel://ann:s3cret@a:1;sentinel://b/3"


def test_what_one_sentinel_url_says_holds_for_all() -> None:
    where = Address.parse(f"{SENTINELS}?master_name=m&sentinel_password=pw")
    assert where.sentinels == (("a", 1), ("b", 26379))
    assert (where.username, where.password, where.db) == ("ann", "s3cret", 3)
    assert (where.master_name, where.sentinel_password) == ("m", "pw")
    assert where.celery_url == "sentinel://ann:s3cret@a:1/3;sentinel://b:26379/3"
    assert (where.at("c", 7).host, where.at("c", 7).port, where.at("c", 7).password) == ("c", 7, "s3cret")


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("redis://h/3", "redis://h:6379/3"),
        ("redis://:p%2Fw@[::1]:7/0", "redis://:p%2Fw@[::1]:7/0"),
        ("unix:///run/r.sock?db=3&password=pw", "redis+socket://:pw@/run/r.sock?virtual_host=3"),
        ("redis+socket:///run/r.sock?virtual_host=3", "redis+socket:///run/r.sock?virtual_host=3"),
        ("rediss://h/1?ssl_ca_certs=/ca.pem", "rediss://h:6379/1"),
    ],
)
def test_celery_gets_every_url_in_its_own_spelling(url: str, spelled: str) -> None:
    assert Address.parse(url).celery_url == spelled


@pytest.mark.parametrize(
    "url", ["sentinel://a;b", "sentinel://a;redis://b", "sentinel://a/x", "sentinel://;sentinel://b"]
)
def test_what_is_no_list_of_sentinels_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sentinel://host:port;sentinel://host:port"):
        Address.parse(url)


def test_no_password_of_a_list_of_sentinels_survives_masking() -> None:
    shown = masked("sentinel://:one@a:1;sentinel://ann:two@b:2/0?master_name=m&sentinel_password=three")
    assert shown == "sentinel://:***@a:1;sentinel://ann:***@b:2/0?master_name=m&sentinel_password=***"


def test_sentinels_without_a_masters_name_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.master_name: expected the name") as caught:
        broker_url(config.load(redis={"url": SENTINELS}))
    assert "s3cret" not in str(caught.value)


def test_blocking_clients_get_the_checks_of_a_url_as_values_not_as_words() -> None:
    lax = Address.parse(
        "rediss://h?ssl_check_hostname=false&ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/ca.pem"
    ).tls_options()
    assert lax == {"ssl_check_hostname": False, "ssl_cert_reqs": ssl.CERT_NONE, "ssl_ca_certs": "/ca.pem"}
    assert Address.parse("rediss://h").tls_options() == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert Address.parse("redis://h").tls_options() is None


def test_a_tls_url_without_checks_lets_blocking_clients_in_as_it_does_workers(tmp_path: Path) -> None:
    async def as_worker(url: str) -> object:
        store = Store(url)
        try:
            return await store.command("PING")
        finally:
            await store.close()

    server = TlsRedisServer(tmp_path)
    try:
        url = f"{server.tls_url.partition('?')[0]}?ssl_cert_reqs=CERT_NONE"
        with connect(url) as client:
            assert client.ping()
        assert asyncio.run(as_worker(url)) == b"PONG"
    finally:
        server.stop()


def test_a_cluster_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigurationError, match="Redis Cluster holds no queues or state of a fleet"):
        Address.parse("redis+cluster://127.0.0.1:7000,127.0.0.1:7001")
