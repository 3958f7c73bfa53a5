"""Real Flower processes, started as a user starts them: who gets in, and what a page says."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet import dashboard
from fleet.config import PoolSettings, ProviderSettings, load
from fleet.dashboard.flower import badge
from fleet.errors import ConfigurationError
from tests.dashboard.flower_process import START_S, Flower, running
from tests.redis_server import RedisServer
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory, redis_process: object) -> Iterator[tuple[Flower, str]]:
    """Flower without any options, and the login that it should accept."""
    folder = tmp_path_factory.mktemp("flower")
    home = folder / ".fleet"
    env = {"FLEET_HOME": str(home)}
    with running(folder, redis_process.url, env=env) as process:  # type: ignore[attr-defined]
        yield process, f"fleet:{(home / 'flower.password').read_text().strip()}"


PLACES = ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/metrics"]


@pytest.mark.parametrize("path", PLACES)
def test_nobody_gets_in_without_the_password(flower: tuple[Flower, str], path: str) -> None:
    assert flower[0].get(path)[0] == 401
    assert flower[0].get(path, "fleet:wrong")[0] == 401
    assert flower[0].get(path, "fleet:")[0] == 401


@pytest.mark.parametrize("path", PLACES)
def test_the_password_opens_everything(flower: tuple[Flower, str], path: str) -> None:
    process, login = flower
    assert process.get(path, login)[0] == 200


@pytest.mark.parametrize("path", ["/workers", "/tasks", "/broker", "/nowhere"])
def test_every_page_says_that_the_simulator_answers(flower: tuple[Flower, str], path: str) -> None:
    process, login = flower
    assert "answers: simulator</span>" in process.get(path, login)[1]


def test_the_broker_page_counts_the_queues(flower: tuple[Flower, str]) -> None:
    process, login = flower
    page = process.get("/broker", login)[1]
    assert "fleet.research" in page
    assert "redis://" in page
    assert "fleet.engine" not in page


def test_it_says_where_the_password_is_and_never_the_password(flower: tuple[Flower, str]) -> None:
    process, login = flower
    text = process.log.read_text()
    assert text.count("user fleet, password in ") == 1
    assert "flower.password" in text
    assert login.split(":")[1] not in text


def test_a_login_on_the_command_line_wins(tmp_path: Path, redis_url: str, fleet_home: Path) -> None:
    with running(tmp_path, redis_url, "--basic_auth=me:mine") as flower:
        assert flower.get("/workers", "me:mine")[0] == 200
        assert flower.get("/workers", f"fleet:{dashboard.password(fleet_home)}")[0] == 401
        assert "login as configured for Flower" in flower.log.read_text()


def test_a_login_in_flowers_own_variable_wins(tmp_path: Path, redis_url: str) -> None:
    with running(tmp_path, redis_url, env={"FLOWER_BASIC_AUTH": "me:mine", "FLOWER_MAX_TASKS": "7"}) as flower:
        assert flower.get("/api/workers", "me:mine")[0] == 200
        assert flower.get("/api/workers")[0] == 401


def test_flowers_configuration_file_wins(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "flowerconfig.py").write_text("basic_auth = ['me:mine']\n")
    with running(tmp_path, redis_url) as flower:
        assert flower.get("/workers", "me:mine")[0] == 200
        assert flower.log.read_text().count("Flower: http") == 1


def test_who_opens_the_api_on_purpose_is_obeyed_and_told(tmp_path: Path, redis_url: str) -> None:
    with running(tmp_path, redis_url, env={"FLOWER_UNAUTHENTICATED_API": "true"}) as flower:
        assert flower.get("/api/workers")[0] == 200
        assert "NO authentication" in flower.log.read_text()


def test_another_kind_of_login_replaces_the_password(tmp_path: Path, redis_url: str) -> None:
    options = ["--auth=.*@example.com", "--auth_provider=flower.views.auth.GoogleAuth2LoginHandler"]
    with running(tmp_path, redis_url, *options, "--oauth2_key=k", "--oauth2_secret=s") as flower:
        status, _ = flower.get("/workers")
        assert status == 302
        assert flower.get("/metrics")[0] == 401
        assert "login as configured for Flower" in flower.log.read_text()


def test_real_answers_have_no_badge_and_a_mixture_names_the_simulated_pools() -> None:
    real = {"openai": ProviderSettings(kind="openai")}
    pools = {"a": PoolSettings(provider="openai", model="m"), "b": PoolSettings()}
    assert badge(load(providers=real, pools=pools)) == "answers: simulator in b"
    assert not load(providers=real, pools={"a": pools["a"]}).simulated


def test_the_password_is_made_once_and_is_for_its_owner_only(fleet_home: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        passwords = set(threads.map(lambda _: dashboard.password(fleet_home), range(8)))
    assert len(passwords) == 1
    assert len(passwords.pop()) >= 20
    assert stat.S_IMODE((fleet_home / dashboard.PASSWORD_FILE).stat().st_mode) == 0o600
    assert [file.name for file in fleet_home.iterdir()] == [dashboard.PASSWORD_FILE]


def test_an_empty_password_file_is_an_error(fleet_home: Path) -> None:
    fleet_home.mkdir()
    (fleet_home / dashboard.PASSWORD_FILE).touch()
    with pytest.raises(ConfigurationError, match="expected a password, got an empty file"):
        dashboard.password(fleet_home)


def test_the_healthcheck_is_red_while_redis_hangs_and_green_afterwards(own_redis: RedisServer, tmp_path: Path) -> None:
    with running(tmp_path, own_redis.url) as flower:
        own_redis.freeze()
        assert flower.get("/healthcheck") == (503, "Redis does not answer")
        own_redis.thaw()
        wait_until(lambda: flower.get("/healthcheck") == (200, "OK"), START_S, "the healthcheck is green again")


def test_a_taken_port_is_one_line(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "fleet", "flower"], capture_output=True, text=True, timeout=START_S,
            env={**os.environ, "FLEET_REDIS__URL": redis_url, "FLEET_FLOWER__PORT": str(port)}, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"fleet: Flower: expected to listen on 127.0.0.1, port {port}, got: Address already in use; set flower.port in "
        "fleet.toml or --port=N (0: any free one), or end what listens there"
    ]


def test_ctrl_c_says_that_a_private_redis_runs_on(tmp_path: Path, fleet_home: Path) -> None:
    log = tmp_path / "flower.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "fleet", "flower", "--port=0"], stdout=out, stderr=out
        )
    wait_until(lambda: "Flower: http" in log.read_text() or process.poll() is not None, START_S, "Flower listens")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0, log.read_text()
    assert log.read_text().count("fleet: a private Redis runs on; `fleet down` ends it\n") == 1
