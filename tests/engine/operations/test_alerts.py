"""A webhook is told what is wrong: once, whoever looks and whoever dies. A real Redis and a real HTTP server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import redis

from fleet import config
from fleet.config import Settings, load
from fleet.engine.operations import alerts
from fleet.engine.operations.alerts import Alerter, read_log, webhook
from fleet.errors import ConfigurationError, FleetError
from fleet.store import keys
from tests.cli.operate.test_dead import client, fleet

__all__ = ["client"]

SECRET = "a-secret-path"


class Webhook(HTTPServer):
    """Takes messages and answers `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Takes)
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.retry_after = ""


class _Takes(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        if self.server.retry_after:
            self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.bodies.append({"text": "followed a redirect"})
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("OUR_WEBHOOK", f"http://127.0.0.1:{server.server_port}/{SECRET}")
        monkeypatch.setenv("FLEET_ALERTS__WEBHOOK_ENV", "OUR_WEBHOOK")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(client: redis.Redis, hook: Webhook) -> Settings:
    return load(alerts={"webhook_env": "OUR_WEBHOOK", "link": "https://fleet.example/fleet"})


def next_look(client: redis.Redis) -> None:
    """Have the next look taken now, and not in ten seconds."""
    client.delete(keys.turn("alerts"))


def test_what_is_wrong_is_told_once_whoever_looks(client: redis.Redis, hook: Webhook, settings: Settings) -> None:
    one, other = Alerter(settings), Alerter(settings)
    assert one.look() is not None
    (told,) = hook.bodies
    assert set(told) == {"text"} and told["text"].startswith("WARNING No worker runs")
    assert told["text"].endswith("https://fleet.example/fleet")
    assert other.look() is None, "it has the turn"
    assert 0 < client.pttl(keys.turn("alerts")) <= alerts.LOOK_EVERY_S * 1000
    next_look(client)
    look = other.look()
    assert look is not None and look.news == () and len(hook.bodies) == 1
    assert [one.kind for one in read_log(client).told] == ["no_worker"]
    (shown,) = json.loads(fleet("alerts", "--json").stdout)["alerts"]
    assert shown["kind"] == "no_worker" and shown["sentence"] in told["text"]
    assert json.loads(fleet("alerts", "show", "provider_down", "--json").stdout) == {"alerts": []}
    assert "expected one of provider_down" in fleet("alerts", "show", "nothing", code=2).stderr


def test_who_dies_between_message_and_note_has_it_told_again_and_not_lost(
    client: redis.Redis, hook: Webhook, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(alerts, "_note", die)
        Alerter(settings).look()
    assert len(hook.bodies) == 1 and read_log(client).told == ()
    next_look(client)
    Alerter(settings).look()
    assert len(hook.bodies) == 2 and hook.bodies[0] == hook.bodies[1]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_does_not_take_a_message_is_told_without_its_address_and_asked_again(
    client: redis.Redis, hook: Webhook, settings: Settings, status: int
) -> None:
    hook.status = status
    with pytest.raises(FleetError, match=f"expected the webhook to answer 2xx, got {status}") as failed:
        Alerter(settings).look()
    assert SECRET not in str(failed.value) and len(hook.bodies) == 1, "a redirect is not followed"
    hook.status = 204
    next_look(client)
    Alerter(settings).look()
    assert len(hook.bodies) == 2


@pytest.mark.parametrize(("status", "retry_after", "posts"), [(429, "1800", 0), (503, "1800", 1), (500, "", 2)])
def test_a_webhook_that_fails_is_left_alone_and_what_may_have_arrived_counts(
    client: redis.Redis,
    hook: Webhook,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    status: int,
    retry_after: str,
    posts: int,
) -> None:
    hook.status, hook.retry_after = status, retry_after
    watch = alerts.AlertWatch(settings)
    for _ in range(5):
        next_look(client)
        watch.step()
    assert len(hook.bodies) == (1 if retry_after else 2)
    assert len(read_log(client).posts) == posts and read_log(client).told == ()
    assert sum("not told" in message for message in caplog.messages) == 1


def test_of_a_redis_that_is_away_a_webhook_that_fails_is_not_told_with_each_look(
    client: redis.Redis, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.status = 500
    monkeypatch.setattr(alerts, "AWAY_S", 0.0)
    watch = alerts.AlertWatch(load(alerts={"webhook_env": "OUR_WEBHOOK"}, redis={"url": "redis://127.0.0.1:1/0"}))
    for _ in range(9):
        watch.step()
    assert len(hook.bodies) == 2, "at once, with the next look, and then after a pause"


def test_a_failure_is_an_event_once(client: redis.Redis, hook: Webhook, settings: Settings) -> None:
    hook.status = 500
    watch = alerts.AlertWatch(settings)
    for _ in range(2):
        watch._tell(FleetError("alerts: expected the webhook to answer 2xx, got 500"))
    events = json.loads(fleet("events", "--name", "alert_failed", "--json").stdout)["events"]
    assert [event["fields"]["why"] for event in events] == ["alerts: expected the webhook to answer 2xx, got 500"]


def test_a_trial_says_that_messages_arrive_or_why_they_do_not(
    client: redis.Redis, hook: Webhook, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has taken a message" in fleet("alerts", "test").stderr
    assert hook.bodies[0]["text"].startswith("A test")
    hook.status = 403
    assert fleet("alerts", "test", code=1).stderr == "fleet: alerts: expected the webhook to answer 2xx, got 403\n"
    for wrong in ("", "file:///etc/passwd", "hooks.example.com/x"):
        monkeypatch.setenv("OUR_WEBHOOK", wrong)
        with pytest.raises(ConfigurationError, match="expected the variable OUR_WEBHOOK to hold an https:// address"):
            webhook(settings)
    monkeypatch.delenv("FLEET_ALERTS__WEBHOOK_ENV")
    config.current.cache_clear()
    told = fleet("alerts", "watch", code=2).stderr
    assert told.startswith("fleet: alerts.webhook_env: expected the name of an environment variable"), told


def test_a_redis_that_is_away_is_told_and_that_it_is_back(
    client: redis.Redis, hook: Webhook, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = load(
        alerts={"webhook_env": "OUR_WEBHOOK", "body": "json"}, redis={"url": "redis://127.0.0.1:1/0"}
    )  # nothing listens there
    watch = alerts.AlertWatch(nobody)
    watch.step()
    assert hook.bodies == [], "it may be starting anew"
    monkeypatch.setattr(alerts, "AWAY_S", 0.0)
    watch.step()
    watch.step()
    (told,) = hook.bodies
    assert told["text"].startswith("CRITICAL Redis does not answer since ") and "fleet doctor" in told["text"]
    assert told["findings"][0]["kind"] == "redis_away"
    watch._settings = settings  # it is there again
    watch._alerter = Alerter(settings)
    watch.step()
    assert [body["text"].partition(" ")[0] for body in hook.bodies[1:]] == ["WARNING", "OVER,"]
    next_look(client)
    watch.step()
    assert len(hook.bodies) == 3


def test_a_broker_of_its_own_that_is_away_is_told_once_by_each_process_also_between_two_turns(
    client: redis.Redis,
    hook: Webhook,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(alerts, "AWAY_S", 0.0)
    redis_of = {"url": "redis://127.0.0.1:1/0", "state_url": settings.redis.url}
    half = load(alerts={"webhook_env": "OUR_WEBHOOK", "body": "json"}, redis=redis_of)
    watch, other = alerts.AlertWatch(half), alerts.AlertWatch(half)
    for _ in range(3):
        watch.step()
    (told,) = hook.bodies
    assert [one["kind"] for one in told["findings"]] == ["redis_away"]
    assert sum("not told" in message for message in caplog.messages) == 1
    other.step()
    assert len(hook.bodies) == 2, "it has never had the turn"
    watch._settings, watch._alerter = settings, Alerter(settings)  # it is there again, and another has the turn
    watch.step()
    assert [body["text"].partition(" ")[0] for body in hook.bodies[2:]] == ["OVER,"]


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_a_webhook_that_speaks_no_http_is_told_in_one_line_without_its_address(
    client: redis.Redis, hook: Webhook, settings: Settings, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("OUR_WEBHOOK", f"http://127.0.0.1:{server.getsockname()[1]}/{SECRET}")
        told = fleet("alerts", "test", code=1).stderr
        thread.join()
    assert told.startswith("fleet: alerts: expected the webhook to answer, got ") and SECRET not in told
    monkeypatch.setenv("OUR_WEBHOOK", f"http://127.0.0.1:1/{SECRET} with a space")
    told = fleet("alerts", "test", code=1).stderr
    assert told.startswith("fleet: alerts: expected the webhook to answer, got ") and SECRET not in told


def test_with_json_each_finding_is_told_in_parts(client: redis.Redis, hook: Webhook) -> None:
    Alerter(load(alerts={"webhook_env": "OUR_WEBHOOK", "body": "json"})).look()
    (finding,) = hook.bodies[0]["findings"]
    assert (finding["what"], finding["kind"], finding["severity"]) == ("began", "no_worker", "warning")
