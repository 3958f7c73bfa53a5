"""What data say of themselves, and that the server which gets them loads them, or that nothing is started at all.

The folders in `data/` were written by real servers: one key of each type, a rewrite, one more key.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fleet import config
from fleet.errors import ConfigurationError
from fleet.store.client import connect
from fleet.store.private.embedded import ensure_redis
from fleet.store.private.server import bundled_program, choose_server
from fleet.store.private.written import READERS, Release, read_written
from tests.every import every

DATA = Path(__file__).parents[1] / "data"
WRITERS = {
    "redis-6.2": ("Redis 6.2.14", 9),
    "redis-7.0": ("Redis 7.0.15", 10),
    "redis-7.2": ("Redis 7.2.4", 11),
    "redis-7.4": ("Redis 7.4.1", 12),
    "valkey-8.1": ("Valkey 8.1.1", 11),
    "valkey-9.1": ("Valkey 9.1.2", 80),
}
#: Whose data the bundled Valkey loads.
LOADED = ("redis-6.2", "redis-7.0", "redis-7.2", "valkey-8.1", "valkey-9.1")
#: server -> whose data it loads, as found by starting each of these servers on each folder.
LOADS = {
    "Redis 6.2.14": {"redis-6.2"},
    "Redis 7.0.15": {"redis-6.2", "redis-7.0"},
    "Redis 7.2.4": {"redis-6.2", "redis-7.0", "redis-7.2", "valkey-8.1"},
    "Redis 7.4.1": {"redis-6.2", "redis-7.0", "redis-7.2", "redis-7.4", "valkey-8.1"},
    "Redis 8.0.2": {"redis-6.2", "redis-7.0", "redis-7.2", "redis-7.4", "valkey-8.1"},
    "Valkey 8.1.1": {"redis-6.2", "redis-7.0", "redis-7.2", "valkey-8.1"},
    "Valkey 9.1.2": {"redis-6.2", "redis-7.0", "redis-7.2", "valkey-8.1", "valkey-9.1"},
}


def release(text: str) -> Release:
    return Release.parse(*text.split(" "))


def lay(home: Path, writer: str) -> Path:
    """Put data where the embedded Redis keeps them."""
    shutil.copytree(DATA / writer, home / "redis")
    return home / "redis"


@pytest.mark.parametrize(("writer", "found"), WRITERS.items())
def test_data_name_their_writer_and_version(writer: str, found: tuple[str, int]) -> None:
    written = read_written(DATA / writer)
    assert written is not None
    assert (str(written.by), written.rdb) == found


@pytest.mark.parametrize("server", LOADS)
def test_a_server_is_given_the_data_that_it_loads_and_no_others(server: str) -> None:
    given = {
        writer for writer in WRITERS if (found := read_written(DATA / writer)) and found.readable_by(release(server))
    }
    assert given == LOADS[server]


def test_an_rdb_version_from_the_future_goes_to_its_writer_and_what_is_newer(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"REDIS0099\xfa\x09redis-ver\x069.4.11\xfa\x0aredis-bits\xc0@")
    assert 99 not in READERS
    written = read_written(tmp_path)
    assert written is not None
    able = ["Redis 9.4.11", "Redis 10.0.0"]
    assert [
        text for text in [*LOADS, "Redis 9.4.10", "Valkey 10.0.0", *able] if written.readable_by(release(text))
    ] == able


def test_a_command_log_without_a_header_goes_to_any_server(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n")
    written = read_written(tmp_path)
    assert written is not None
    assert written.by is None
    assert every(written.readable_by(release(server)) for server in LOADS)


@pytest.mark.parametrize("files", [[], ["appendonly.aof"]], ids=["nothing", "an empty log"])
def test_an_empty_folder_has_no_data(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert read_written(tmp_path) is None
    assert read_written(tmp_path / "missing") is None


# ---- with real servers


@pytest.mark.parametrize("writer", LOADED)
def test_the_bundled_valkey_takes_over_what_other_servers_wrote(
    fleet_home: Path, writer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lay(fleet_home, writer)
    url = ensure_redis(fleet_home, "bundled")
    assert str(bundled_program()) in (fleet_home / "redis.json").read_text()
    assert "Valkey 9" in capsys.readouterr().err
    with connect(url) as client:
        assert client.get("text") == b"kept"
        assert client.get("later") == b"after the rewrite"
        assert client.hgetall("hash") == {b"a": b"1", b"b": b"x" * 80}
        assert client.zrange("sorted", 0, -1, withscores=True) == [(b"m0", 0.5), (b"m1", 1.5), (b"m2", 2.5)]
        assert client.lrange("list", 0, -1) == [b"item %d" % i for i in range(5)]
        assert client.smembers("set") == {b"p", b"q"}
        assert client.smembers("numbers") == {b"1", b"2", b"3"}
        assert [fields for _, fields in client.xrange("stream")] == [{b"f": b"v%d" % i} for i in range(3)]
        assert client.xpending("stream", "group")["pending"] == 1
        assert client.dbsize() == 8


@pytest.mark.parametrize("writer", WRITERS)
def test_the_server_of_these_tests_keeps_the_data_or_is_not_started(fleet_home: Path, writer: str) -> None:
    data = lay(fleet_home, writer)
    wanted = config.load().redis.server
    server, _ = choose_server(wanted)
    assert server.release is not None
    written = read_written(data)
    assert written is not None
    if written.readable_by(server.release):
        with connect(ensure_redis(fleet_home, server.program)) as client:
            assert client.get("later") == b"after the rewrite"
        return
    before = contents(data)
    oldest = " or ".join(f"{reader} or newer" for reader in written.readers)
    with pytest.raises(ConfigurationError, match=f"expected {oldest} for .*written by {written.by}.*redis.server"):
        ensure_redis(fleet_home, server.program)
    assert contents(data) == before
    assert not (fleet_home / "redis.log").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mishap", ["the manifest is lost", "only a snapshot", "the base file is lost"])
def test_nothing_starts_empty_where_there_are_data(fleet_home: Path, mishap: str) -> None:
    data = lay(fleet_home, "redis-7.0")
    files = data / "appendonlydir"
    if mishap == "the manifest is lost":
        (files / "appendonly.aof.manifest").unlink()
    elif mishap == "the base file is lost":
        (files / "appendonly.aof.2.base.rdb").unlink()
    else:
        (files / "appendonly.aof.2.base.rdb").rename(data / "dump.rdb")
        shutil.rmtree(files)
    before = contents(data)
    expected = {
        "the manifest is lost": "expected .*manifest, which lists the files beside it, got none",
        "only a snapshot": r"got only .*dump.rdb \(RDB version 10, written by Redis 7.0.15\).*appendonly no",
        "the base file is lost": "expected a private Redis to start",
    }
    with pytest.raises(ConfigurationError, match=expected[mishap]):
        ensure_redis(fleet_home, "bundled")
    assert contents(data) == before


def test_what_would_start_empty_without_a_word_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "redis"
    (data / "appendonlydir").mkdir(parents=True)
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n"
    )
    (data / "appendonlydir" / "appendonly.aof.2.base.rdb").touch()  # a power cut can leave it so
    with pytest.raises(ConfigurationError, match="got an empty file"):
        read_written(data)
    link = tmp_path / "linked"
    link.symlink_to(tmp_path / "not mounted")
    with pytest.raises(ConfigurationError, match="is a disk not mounted"):
        read_written(link)
