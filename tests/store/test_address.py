"""`Address`: what Redis and Sentinel URLs say, and how Celery spells them."""

from __future__ import annotations

import pytest

from fleet import config
from fleet.errors import ConfigurationError
from fleet.store.address import Address, masked
from fleet.store.embedded import broker_url

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
