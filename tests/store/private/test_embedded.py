"""The embedded Redis: found again, survives its starter and kill -9, never confused with somebody else's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fleet import config
from fleet.errors import ConfigurationError
from fleet.store.client import connect
from fleet.store.private import embedded
from fleet.store.private.embedded import broker_url, state_url, stop_redis
from fleet.store.private.server import choose_server
from tests.every import every
from tests.redis_server import RedisServer
from tests.stack_processes import has_ended
from tests.waiting import wait_until

START = (
    "import sys, pathlib; from fleet import config; from fleet.store.private.embedded import ensure_redis; "
    "print(ensure_redis(pathlib.Path(sys.argv[1]), config.load().redis.server))"
)


def ensure_redis(home: Path, **timeout: float) -> str:
    """Find or start the embedded Redis on the server that these tests run on."""
    return embedded.ensure_redis(home, config.load().redis.server, **timeout)


def recorded(home: Path) -> dict[str, object]:
    return dict(json.loads((home / "redis.json").read_text()))


def pid_of(home: Path) -> int:
    return int(str(recorded(home)["pid"]))


def kill(home: Path) -> None:
    """kill -9, and wait until the kernel has cleared the process away."""
    process = psutil.Process(pid_of(home))
    process.kill()
    wait_until(lambda: has_ended(process), what="it is dead")


def remember(url: str, value: str) -> None:
    with connect(url) as client:
        client.set("k", value)


def remembered(url: str) -> bytes | None:
    with connect(url) as client:
        value = client.get("k")
    assert value is None or isinstance(value, bytes)
    return value


def test_the_first_caller_starts_it_and_says_so_the_second_finds_it_silently(
    fleet_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = ensure_redis(fleet_home)
    said = capsys.readouterr()
    assert said.out == ""
    server, reason = choose_server(config.load().redis.server)
    where = f"127.0.0.1:{recorded(fleet_home)['port']} (data in .fleet/redis)"
    assert said.err == f"fleet: started a private Redis on {where}: {server}, {reason}\n"
    assert recorded(fleet_home)["program"] == str(server.program)
    assert ensure_redis(fleet_home) == url
    assert capsys.readouterr().err == ""


def test_it_survives_its_starter_and_is_no_child_of_anybody(fleet_home: Path) -> None:
    starter = subprocess.run(
        [sys.executable, "-c", START, str(fleet_home)], capture_output=True, text=True, check=True, timeout=60
    )
    url = starter.stdout.strip()
    assert ensure_redis(fleet_home) == url
    process = psutil.Process(pid_of(fleet_home))
    assert process.ppid() != os.getpid()
    assert os.getsid(process.pid) != os.getsid(0)


def test_after_kill_9_it_comes_back_on_the_same_port_with_its_data(fleet_home: Path) -> None:
    url = ensure_redis(fleet_home)
    remember(url, "kept")
    kill(fleet_home)
    assert ensure_redis(fleet_home) == url
    assert remembered(url) == b"kept"


def test_after_stop_it_is_gone_and_a_new_start_has_the_data(fleet_home: Path) -> None:
    url = ensure_redis(fleet_home)
    remember(url, "kept")
    pid = pid_of(fleet_home)
    assert stop_redis(fleet_home) is True
    assert has_ended(pid)
    assert stop_redis(fleet_home) is False
    assert remembered(ensure_redis(fleet_home)) == b"kept"


@pytest.mark.parametrize("mishap", ["state folder deleted", "data deleted", "state folder replaced"])
def test_it_ends_when_its_folder_is_gone(fleet_home: Path, mishap: str) -> None:
    ensure_redis(fleet_home)
    process = psutil.Process(pid_of(fleet_home))
    watcher = process.parents()[0]
    shutil.rmtree(fleet_home / "redis" if mishap == "data deleted" else fleet_home)
    if mishap == "state folder replaced":
        (fleet_home / "redis").mkdir(parents=True)
    wait_until(lambda: has_ended(process) and has_ended(watcher), what="server and watcher have ended")


@pytest.mark.parametrize("first", ["redis.lock", "redis.alive", "redis.json", None])
def test_who_has_had_it_does_not_make_a_deleted_folder_anew_not_even_while_it_is_being_deleted(
    fleet_home: Path, first: str | None
) -> None:
    """Whatever is deleted first, neither finding, reviving nor stopping it leaves a file that was not there."""
    ensure_redis(fleet_home)
    process = psutil.Process(pid_of(fleet_home))
    if first is None:
        shutil.rmtree(fleet_home)
    else:
        (fleet_home / first).unlink()
    before = {path.relative_to(fleet_home) for path in fleet_home.rglob("*")}
    assert embedded.revive_redis(fleet_home, "auto") is None
    if first != "redis.lock":  # the server still answers, and is found
        with pytest.raises(ConfigurationError):
            ensure_redis(fleet_home)
    elif psutil.pid_exists(process.pid):
        with pytest.raises(ConfigurationError, match=r"redis\.lock"):
            stop_redis(fleet_home)
    assert {path.relative_to(fleet_home) for path in fleet_home.rglob("*")} == before
    assert fleet_home.exists() is (first is not None)
    shutil.rmtree(fleet_home, ignore_errors=True)
    wait_until(lambda: has_ended(process), what="the server has ended")
    with pytest.raises(ConfigurationError, match="was deleted while this process used a private Redis"):
        ensure_redis(fleet_home)
    assert not fleet_home.exists()


@pytest.mark.parametrize("end", ["stop", "kill -9"])
def test_its_watcher_ends_with_it(fleet_home: Path, end: str) -> None:
    ensure_redis(fleet_home)
    watcher = psutil.Process(pid_of(fleet_home)).parents()[0]
    (stop_redis if end == "stop" else kill)(fleet_home)
    wait_until(lambda: has_ended(watcher), what="the watcher has ended")


def test_stopping_what_never_ran_does_nothing(tmp_path: Path) -> None:
    assert stop_redis(tmp_path / "nowhere") is False
    assert not (tmp_path / "nowhere").exists()


def test_of_several_starters_at_once_one_starts_it(fleet_home: Path) -> None:
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(fleet_home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [starter.communicate(timeout=60) for starter in starters]
    assert len({url for url, _ in said}) == 1
    assert sum("started a private Redis" in talk for _, talk in said) == 1


def test_the_password_is_strong_private_and_needed(fleet_home: Path) -> None:
    url = ensure_redis(fleet_home)
    password = str(recorded(fleet_home)["password"])
    assert len(password) >= 32
    assert every(password not in part for part in psutil.Process(pid_of(fleet_home)).cmdline())
    with pytest.raises(ConfigurationError, match="Authentication required"):
        connect(url.replace(f":{password}@", ""))
    for path in [fleet_home, *fleet_home.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077 or path.name == "redis.lock", f"{path} is readable by others: {mode:o}"


def test_it_listens_on_loopback_only_and_never_evicts(fleet_home: Path) -> None:
    with connect(ensure_redis(fleet_home)) as client:
        names = ("bind", "maxmemory-policy", "appendonly", "appendfsync")
        values = [client.config_get(name)[name] for name in names]
    assert values == ["127.0.0.1", "noeviction", "yes", "everysec"]


def test_what_slots_and_bots_are_kept_in_is_no_string_that_is_read_from_end_to_end(fleet_home: Path) -> None:
    with connect(ensure_redis(fleet_home)) as client:
        client.zadd("bots", {f"research-{number:03d}": number for number in range(100)})
        client.hset("claims", mapping={f"token-{number}": "research-001" for number in range(100)})
        assert [client.object("encoding", key) for key in ("bots", "claims")] == [b"skiplist", b"hashtable"]


def test_a_foreign_redis_on_our_port_is_left_alone_and_another_port_is_taken(fleet_home: Path, tmp_path: Path) -> None:
    url = ensure_redis(fleet_home)
    remember(url, "kept")
    stop_redis(fleet_home)
    port = int(str(recorded(fleet_home)["port"]))
    foreign = RedisServer(tmp_path, port=port)
    try:
        again = ensure_redis(fleet_home)
        assert recorded(fleet_home)["port"] != port
        assert remembered(again) == b"kept"
        with connect(foreign.url) as client:
            assert client.dbsize() == 0
    finally:
        foreign.stop()


def test_a_copied_folder_gets_a_server_of_its_own(fleet_home: Path, tmp_path: Path) -> None:
    url = ensure_redis(fleet_home)
    remember(url, "original")
    copy = tmp_path / "copy"
    shutil.copytree(fleet_home, copy)
    try:
        other = ensure_redis(copy)
        assert other != url
        remember(other, "copy")
        assert remembered(url) == b"original"
    finally:
        stop_redis(copy)


def test_a_damaged_state_file_loses_no_data(fleet_home: Path) -> None:
    remember(ensure_redis(fleet_home), "kept")
    stop_redis(fleet_home)
    (fleet_home / "redis.json").write_text('{"port": ')
    assert remembered(ensure_redis(fleet_home)) == b"kept"


@pytest.mark.parametrize("mishap", ["state file lost", "frozen"])
def test_a_server_that_runs_but_does_not_answer_never_gets_a_second_one_beside_it(
    fleet_home: Path, monkeypatch: pytest.MonkeyPatch, mishap: str
) -> None:
    monkeypatch.setattr(embedded, "PROBE_TIMEOUT_S", 0.2)
    url = ensure_redis(fleet_home)
    state = (fleet_home / "redis.json").read_text()
    pid = pid_of(fleet_home)
    if mishap == "frozen":
        os.kill(pid, signal.SIGSTOP)
    else:
        (fleet_home / "redis.json").unlink()
    try:
        with pytest.raises(ConfigurationError, match="end that process and try again"):
            ensure_redis(fleet_home, timeout_s=0.2)
    finally:
        os.kill(pid, signal.SIGCONT)
        (fleet_home / "redis.json").write_text(state)
    assert ensure_redis(fleet_home) == url
    assert pid_of(fleet_home) == pid


def test_a_torn_end_of_the_append_only_file_is_cut_off(fleet_home: Path) -> None:
    url = ensure_redis(fleet_home)
    remember(url, "kept")
    stop_redis(fleet_home)
    with append_only_file(fleet_home).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\nto")
    assert remembered(ensure_redis(fleet_home)) == b"kept"


def test_a_broken_append_only_file_is_an_error_with_the_servers_last_words(fleet_home: Path) -> None:
    remember(ensure_redis(fleet_home), "kept")
    stop_redis(fleet_home)
    path = append_only_file(fleet_home)
    path.write_bytes(b"this is no append-only file\r\n" + path.read_bytes())
    begin = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"Bad file format.*redis\.log.*redis-check-aof --fix"):
        ensure_redis(fleet_home)
    assert time.monotonic() - begin < 5


def append_only_file(home: Path) -> Path:
    return max((path for path in (home / "redis").rglob("*.aof") if path.stat().st_size), key=lambda path: path.name)


def test_a_state_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"expected a folder that can be written at .*set FLEET_HOME"):
        ensure_redis(tmp_path / "file" / ".fleet")


def test_without_a_url_broker_and_state_share_the_embedded_redis(fleet_home: Path) -> None:
    settings = config.load()
    assert broker_url(settings) == state_url(settings) == ensure_redis(fleet_home)


def test_a_configured_url_is_obeyed(fleet_home: Path, redis_url: str) -> None:
    settings = config.load(redis={"url": redis_url})
    assert broker_url(settings) == state_url(settings) == redis_url
    assert not fleet_home.exists()


@pytest.mark.parametrize("setting", ["url", "state_url"])
def test_a_configured_url_that_does_not_answer_is_an_error_and_is_never_replaced(
    fleet_home: Path, own_redis: RedisServer, setting: str
) -> None:
    own_redis.kill()
    settings = config.load(redis={setting: own_redis.url.replace("//", "//:s3cret@")})
    with pytest.raises(ConfigurationError, match=rf"redis\.{setting}: expected a Redis that answers") as caught:
        state_url(settings)
    assert str(caught.value).count(f"redis://:***@127.0.0.1:{own_redis.port}") == 1  # told once
    assert ".;" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not fleet_home.exists()


def test_a_configured_redis_that_hangs_is_an_error_in_time(fleet_home: Path, own_redis: RedisServer) -> None:
    own_redis.freeze()
    settings = config.load(redis={"url": own_redis.url, "socket_timeout_s": 0.2})
    begin = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"redis\.url"):
        broker_url(settings)
    assert time.monotonic() - begin < 2
