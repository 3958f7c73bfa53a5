"""What Celery is told about Redis: safe to show, and complete."""

from __future__ import annotations

import ssl

import pytest
from celery import Celery

from fleet.engine.celery_options import celery_command
from fleet.engine.settings import redis_settings

SENTINELS = "sentinel://:s3cret@a:1/0;sentinel://:s3cret@b:2/0?master_name=m&sentinel_password=pw-too"


@pytest.mark.parametrize("url", ["redis://:s3cret@h/0", "redis+socket://:s3cret@/run/r.sock", SENTINELS])
def test_no_password_shows_where_celery_prints_its_settings(url: str) -> None:
    app = Celery()
    app.conf.update(redis_settings(url, url))
    shown = app.conf.humanize() + str(app.conf.table()) + app.backend.as_uri()
    assert "s3cret" not in shown
    assert "pw-too" not in shown


def test_both_sides_of_celery_know_all_sentinels_and_the_master() -> None:
    settings = redis_settings(SENTINELS, SENTINELS)
    assert settings["broker_transport_options"]["sentinels"] == (("a", 1), ("b", 2))
    assert settings["broker_transport_options"]["master_name"] == "m"
    app = Celery()
    app.conf.update(settings)
    assert [(host["host"], host["port"]) for host in app.backend.connparams["hosts"]] == [("a", 1), ("b", 2)]
    assert app.backend.connparams["password"] == "s3cret"


@pytest.mark.parametrize(("asked", "mode"), [("", ssl.CERT_REQUIRED), ("&ssl_cert_reqs=none", ssl.CERT_NONE)])
def test_certificates_are_checked_unless_the_url_says_otherwise(asked: str, mode: ssl.VerifyMode) -> None:
    settings = redis_settings(f"rediss://h/0?ssl_ca_certs=/ca.pem{asked}", "redis://h/0")
    assert settings["broker_use_ssl"] == {"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": mode}
    assert settings["redis_backend_use_ssl"] is None


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/venv/bin/celery -A fleet flower --port=0", "flower"),
        ("/site-packages/celery/__main__.py --app=fleet worker -n flower", "worker"),
        ("celery --workdir /flower -A fleet -q", ""),
        ("/srv/celery/report flower", None),
        ("/venv/bin/mycelery flower", None),
    ],
)
def test_the_subcommand_of_celery_is_told_from_its_command_line(
    monkeypatch: pytest.MonkeyPatch, line: str, command: str | None
) -> None:
    monkeypatch.setattr("sys.argv", line.split())
    assert celery_command() == command
