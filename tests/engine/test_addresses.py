"""Where Redis is, in Celery's own words: obeyed by all of Fleet, or refused in one line. Never two by accident."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from fleet import config
from fleet.engine import celery_options
from fleet.engine.app import FleetCelery
from fleet.engine.transport import channel, unix_socket
from fleet.errors import ConfigurationError
from fleet.store.client import connect
from fleet.store.private.embedded import broker_url, state_url
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import REPO, WorkerProcess

OTHER = "redis://:s3cret@127.0.0.1:1/0"


def command(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS` to its end."""
    env = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{cwd}", **variables}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> bool:
    """True for one line from Fleet, exit code 2, and no password."""
    ours = [line for line in done.stderr.splitlines() if line.startswith("fleet: ")]
    shown = done.stdout + done.stderr
    right = done.returncode == 2 and len(ours) == 1 and all(word in ours[0] for word in words)
    return right and "Traceback" not in shown and "s3cret" not in shown


# ---- Celery's variables


def test_celerys_variables_stand_for_what_fleets_settings_do_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://a/1")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://b/2")
    redis = config.load().redis
    assert (redis.url and redis.url.get_secret_value()) == "redis://a/1"
    assert (redis.state_url and redis.state_url.get_secret_value()) == "redis://b/2"
    ours = config.load(redis={"url": "redis://c", "state_url": "redis://d"}).redis
    assert (ours.url and ours.url.get_secret_value()) == "redis://c"
    assert (ours.state_url and ours.state_url.get_secret_value()) == "redis://d"


def test_a_variable_that_names_the_configured_redis_in_other_words_is_no_contradiction(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = redis_url.replace("127.0.0.1", "localhost").removesuffix("/0")
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, spelled)
    settings = config.load(redis={"url": redis_url})
    assert broker_url(settings) == state_url(settings) == redis_url


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CELERY_BROKER_URL", OTHER),
        ("CELERY_BROKER_URL", "amqp://guest:s3cret@rabbit//"),
        ("CELERY_BROKER_READ_URL", OTHER),
        ("CELERY_BROKER_WRITE_URL", OTHER),
        ("CELERY_RESULT_BACKEND", OTHER),
        ("CELERY_RESULT_BACKEND", "rpc://"),
    ],
)
def test_a_variable_that_contradicts_is_refused_by_its_name_without_passwords(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    settings = config.load(redis={"url": redis_url, "state_url": redis_url})
    with pytest.raises(ConfigurationError, match=rf"^{variable}: expected the Redis of redis\.") as caught:
        broker_url(settings)
        state_url(settings)
    assert "s3cret" not in str(caught.value)


def test_a_broker_that_is_only_read_from_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_READ_URL", OTHER)
    with pytest.raises(ConfigurationError, match=r"^CELERY_BROKER_READ_URL: expected CELERY_BROKER_URL or redis\.url"):
        broker_url(config.load())


def test_what_celery_cannot_reach_by_its_variable_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "rediss+socket:///run/r.sock")
    with pytest.raises(ConfigurationError, match=r"^CELERY_BROKER_URL: expected redis://"):
        broker_url(config.load())


# ---- options of `celery`


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("celery -A fleet -b redis://a worker", ("-b", "redis://a")),
        ("celery -bredis://a -A fleet worker", ("-b", "redis://a")),
        ("celery --broker=redis://a -A fleet purge", ("--broker", "redis://a")),
        ("celery --workdir /x --broker redis://a inspect ping", ("--broker", "redis://a")),
        ("celery -A fleet worker -b redis://a", None),
        ("fleet -b redis://a", None),
    ],
)
def test_an_address_among_celerys_options_is_found_however_it_is_spelled(
    monkeypatch: pytest.MonkeyPatch, line: str, found: tuple[str, str] | None
) -> None:
    monkeypatch.setattr("sys.argv", line.split())
    assert celery_options.option_value("-b", "--broker") == found


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-b", OTHER, "worker"), "-b"),
        (("--result-backend", OTHER, "flower"), "--result-backend"),
    ],
)
def test_an_option_that_reaches_one_process_only_is_refused(
    redis_url: str, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    done = command("celery", "-A", "fleet", *words, cwd=tmp_path, FLEET_REDIS__URL=redis_url)
    assert refused(done, f"fleet: {named}: expected"), done.stderr


@pytest.mark.parametrize(("name", "variable"), [("--config", "CELERY_CONFIG_MODULE"), ("--loader", "CELERY_LOADER")])
def test_a_celery_configuration_beside_fleets_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    for words, named in (([f"{name}=mine"], name), ([], variable)):
        monkeypatch.setattr("sys.argv", ["celery", "-A", "fleet", *words, "worker"])
        monkeypatch.setenv(variable, "mine")
        with pytest.raises(ConfigurationError, match=f"^{named}: expected no Celery configuration"):
            celery_options.refuse_foreign_config()


@pytest.mark.parametrize(
    ("words", "variables", "named"),
    [
        (["-b", OTHER], {}, "-b"),
        ([], {"BROKER_URL": OTHER}, "BROKER_URL"),
        ([], {"CELERY_BROKER": OTHER}, "CELERY_BROKER"),
        ([], {"RESULT_BACKEND": OTHER}, "RESULT_BACKEND"),
    ],
)
def test_what_celery_took_out_of_an_option_passes_for_nobodys_variable(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, words: list[str], variables: dict[str, str], named: str
) -> None:
    monkeypatch.setattr(celery_options, "_given", {})
    monkeypatch.setattr("sys.argv", ["celery", "-A", "fleet", *words, "worker"])
    handed_on = "CELERY_RESULT_BACKEND" if named == "RESULT_BACKEND" else "CELERY_BROKER_URL"
    for name, value in ({handed_on: OTHER} | variables).items():
        monkeypatch.setenv(name, value)
    celery_options.take_options()
    assert handed_on not in os.environ
    with pytest.raises(ConfigurationError, match=rf"^{named}: expected the Redis that all of Fleet has"):
        celery_options.refuse_other_addresses(config.load(redis={"url": redis_url, "state_url": redis_url}))


def test_an_option_that_repeats_the_settings_is_obeyed_and_starts_nothing_when_it_does_not(
    redis_url: str, tmp_path: Path
) -> None:
    done = command("celery", "-A", "fleet", "-b", redis_url, "purge", "-f", cwd=tmp_path, FLEET_REDIS__URL=redis_url)
    assert done.returncode == 0, done.stderr
    done = command("celery", "-A", "fleet", "-b", redis_url, "purge", "-f", cwd=tmp_path)
    assert refused(done, "FLEET_REDIS__URL"), done.stderr
    assert not (tmp_path / ".fleet/redis.json").exists()


# ---- settings of other modules


def app_with(monkeypatch: pytest.MonkeyPatch, url: str) -> FleetCelery:
    monkeypatch.setenv("FLEET_REDIS__URL", url)
    config.current.cache_clear()
    app = FleetCelery("mine")
    app.add_defaults(app.settings)
    return app


@pytest.mark.parametrize(
    ("name", "value"),
    [("broker_url", OTHER), ("result_backend", OTHER), ("broker_transport", "redis"), ("result_backend", "rpc://")],
)
def test_a_module_that_changes_what_fleet_rests_on_gets_no_connection(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    app = app_with(monkeypatch, redis_url)
    app.conf[name] = value
    for use in (app.connection, app._get_backend):
        with pytest.raises(ConfigurationError, match=f"^{name}: expected ") as caught:
            use()
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://h:6379/0", "rediss://h/1", "redis+socket:///r.sock?virtual_host=2", "sentinel://a:1/0"]
)
def test_whatever_the_url_the_transport_that_runs_is_ours(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(
        "fleet.engine.settings.broker_url", lambda _: f"{url}{'?master_name=m' if 'sent' in url else ''}"
    )
    monkeypatch.setattr("fleet.engine.settings.state_url", lambda _: "redis://h")
    app = app_with(monkeypatch, url)
    assert issubclass(app.connection().get_transport_cls(), channel.Transport)
    assert app.connection_for_read().as_uri().split("://")[0] in ("fleet.engine.transport.channel:Transport",
        "fleet.engine.transport.sentinel:Transport", "redis+socket")  # fmt: skip


def test_no_password_of_a_unix_socket_shows() -> None:
    url = unix_socket.as_kombu_takes_it("redis+socket://ann:s3cret@/r.sock?virtual_host=3")
    connection = Connection(url, transport=unix_socket.Transport)
    assert connection.as_uri() == "redis+socket://ann:***@/r.sock?virtual_host=3"
    assert connection.as_uri(include_password=True) == "redis+socket://ann:s3cret@/r.sock?virtual_host=3"


# ---- a Unix socket, with all that its URL may say


@pytest.fixture(scope="module")
def socket_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Redis behind a Unix socket that lets in only a user of its own."""
    folder = tmp_path_factory.mktemp("sock")
    server = RedisServer(folder, "--unixsocket", str(folder / "r.sock"))
    with connect(server.url) as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">s3cret", "~*", "&*", "+@all")
        client.execute_command("ACL", "SETUSER", "default", "off")
    yield folder / "r.sock"
    server.stop()


def test_worker_producers_and_commands_meet_behind_one_unix_socket(
    socket_redis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = f"unix://{socket_redis}?db=3&username=ann&password=s3cret"
    celerys = f"redis+socket://ann:s3cret@{socket_redis}?virtual_host=3"
    monkeypatch.setenv("FLEET_REDIS__URL", ours)
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "20")
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "5")
    worker = WorkerProcess(tmp_path)
    try:
        worker.wait_ready()
        plain: Any = Celery(broker=celerys, backend=celerys)
        by_client = plain.send_task("fleet.submit_task", args=["What is 2+2?"], priority=9)
        code = "from fleet import submit_task\nprint(submit_task.delay('What is 2+3?').get(timeout=30).answer)"
        script = tmp_path / "ask.py"
        script.write_text(code)
        asked = command("ask", cwd=tmp_path)
        assert asked.stdout == "5\n", asked.stderr
        assert by_client.get(timeout=30)["answer"] == "4"
        (tmp_path / "in.jsonl").write_text('{"prompt": "What is 2+4?"}\n')
        run = command("fleet.cli.main", "run", "in.jsonl", "-o", "out.jsonl", "--quiet", "--json", cwd=tmp_path)
        assert json.loads(run.stdout)["ok"] == 1, run.stderr
        monkeypatch.delenv("FLEET_REDIS__URL")
        by_variable = command("fleet.cli.main", "submit", "What is 2+5?", cwd=tmp_path, CELERY_BROKER_URL=celerys)
        assert by_variable.stdout == "7\n", by_variable.stderr
        ping = command("celery", "-A", "fleet", "inspect", "ping", cwd=tmp_path, CELERY_BROKER_URL=celerys)
        assert "pong" in ping.stdout, ping.stderr
        assert "s3cret" not in worker.log
        wait_until(lambda: worker.log.count("finished task=") == 4, 10, "four tasks are done")
    finally:
        worker.kill()
