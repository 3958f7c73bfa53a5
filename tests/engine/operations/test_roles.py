"""The rules of `fleet acl`, asked of a real server key by key and command by command; nothing is run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
import redis

from fleet import config
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.operations.roles import DASHBOARD, KEYS, PRODUCER, ROLES, line_of, patterns, rules_of
from fleet.store import bill_keys, flow_keys, keys
from fleet.store.client import connect
from tests.every import every
from tests.house import ROOT, sources
from tests.redis_server import RedisServer
from tests.store.test_keys import ARGUMENTS

#: A digit of a priority step, as kombu and Celery's guide write it.
ENDS = ("", "\x06\x161", ":1")


@pytest.fixture(params=["", "team-a:"])
def server(own_redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A server with the four users of a fleet with and without a prefix; its pool is called research."""
    settings = config.load(redis={"prefix": request.param}, pools={"research": {"bots": 1}, "research-v2": {"bots": 1}})
    with connect(own_redis.url) as client:
        for one in rules_of(settings, pools=("research",)):
            client.execute_command("ACL", "SETUSER", one.user, *one.words)
        yield client


def may(client: redis.Redis, role: str, *command: str) -> bool:
    return bool(client.execute_command("ACL", "DRYRUN", f"fleet-{role}", *command) == b"OK")


def samples() -> dict[str, tuple[str, ...]]:
    """Return keys of every builder, by its name."""
    made: dict[str, tuple[str, ...]] = {}
    for module in (keys, bill_keys):
        for name, plain in module._BUILDERS.items():
            if name != "lists":
                built = getattr(module, name)(
                    *(ARGUMENTS.get(part, "x") for part in inspect.signature(plain).parameters)
                )
                made[f"{module.__name__}.{name}"] = (built,) if isinstance(built, str) else tuple(built)
    return made


def test_who_works_and_who_operates_reaches_every_key_and_who_looks_reads_it(server: redis.Redis) -> None:
    made = [key for found in samples().values() for key in found]
    made += [keys.lists(keys.queue("research")) + end for end in ENDS] + [keys.lists("celery") + end for end in ENDS]
    for role in ("worker", "operator"):
        assert every(may(server, role, "SET", key, "1") and may(server, role, "GET", key) for key in made)
    assert every(may(server, "dashboard", "GET", key) for key in made)
    written = {key for key in made if may(server, "dashboard", "SET", key, "1")}
    assert written == {
        key for name in ("consumed", "consumed_looked") for key in samples()[f"fleet.store.keys.{name}"]
    } | {bill_keys.check_turn()}


def test_a_producer_adds_to_its_own_queues_and_reads_no_prompt(server: redis.Redis) -> None:
    own = [keys.lists(keys.queue("research")) + end for end in ENDS]
    others = [keys.lists(keys.queue("research-v2")) + end for end in ENDS] + [keys.lists("celery")]
    assert every(may(server, "producer", "LPUSH", key, "x") for key in own)
    for command in (["LRANGE", "0", "-1"], ["RPOP"], ["DEL"], ["LINDEX", "0"], ["DUMP"], ["UNLINK"]):
        assert [key for key in (*own, *others) if may(server, "producer", command[0], key, *command[1:])] == []
    assert [key for key in others if may(server, "producer", "LPUSH", key, "x")] == []
    assert not may(server, "producer", "HGETALL", keys.parked())
    assert not may(server, "producer", "HGET", keys.unacked(), "tag")
    assert not may(server, "producer", "HGET", keys.dead_letter_bodies(), "id")
    assert may(server, "producer", "GET", keys.result("id"))


def test_a_producer_reaches_no_flows_and_no_parked_order_of_another_pool(server: redis.Redis) -> None:
    for pool in ("research", "research-v2"):
        first, flow = keys.lists(keys.queue(pool)), flow_of("acme")
        commands = [
            ("SET", flow_keys.has(first), "even"),
            ("ZADD", keys.parked_order(keys.queue(pool)), "1", "id"),
            *(command for place in (first, first + ENDS[1]) for command in (
                ("LPUSH", flow_keys.flow(flow, place), "x"), ("LPUSH", flow_keys.flow("-", place), "x"),
                ("EXISTS", flow_keys.old(flow, place)), ("ZADD", flow_keys.ring(place), "NX", "0", flow),
                ("ZCARD", flow_keys.ring(place)),
            )),
        ]  # fmt: skip
        assert {may(server, "producer", *command) for command in commands} == {pool == "research"}
    assert may(server, "producer", "EXISTS", flow_keys.weights())


def test_a_producer_reaches_no_key_that_its_table_does_not_name(server: redis.Redis) -> None:
    named = {name for row in PRODUCER for name in row.split()}
    for builder, made in samples().items():
        is_open = [key for key in made if may(server, "producer", "EXISTS", key) or may(server, "producer", "GET", key)]
        assert not is_open or builder.rpartition(".")[2] in named, builder


@pytest.mark.parametrize("role", ROLES)
def test_nobody_changes_the_server_or_asks_for_more_than_the_role_needs(server: redis.Redis, role: str) -> None:
    for command in (
        "FLUSHALL", "FLUSHDB", "CONFIG SET maxmemory 1", "ACL SETUSER x", "ACL LIST", "SHUTDOWN", "DEBUG SLEEP 1",
        "MONITOR", "SCRIPT FLUSH", "SCRIPT KILL", "REPLICAOF no one", "SAVE", "KEYS *", "CLIENT KILL x",
        "FUNCTION FLUSH", "SWAPDB 0 1", "GET somebody:elses",
    ):  # fmt: skip
        assert not may(server, role, *command.split()), command
    assert may(server, role, "CONFIG", "GET", "appendonly") == (role == "operator")
    assert may(server, role, "SLOWLOG", "RESET") == (role == "operator"), "`fleet forget` empties it: it quotes prompts"
    assert may(server, role, "SCAN", "0") == (role != "producer")
    assert may(server, role, "PSUBSCRIBE", keys.result("*")) == (role != "producer")
    assert may(server, role, "SUBSCRIBE", keys.result("id"))
    assert not may(server, role, "SUBSCRIBE", "somebody:elses")


def test_a_worker_may_run_every_command_that_scripts_name(server: redis.Redis) -> None:
    call = re.compile(r"redis\.p?call\(\s*['\"](\w+)['\"]")
    named = {name for path in sources(ROOT, "*.lua") for name in call.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 40
    for name in sorted(named):
        told = server.execute_command("COMMAND", "INFO", name)
        category = {str(one) for one in next(iter(told.values()))["acl_categories"]}
        assert name == "TIME" or category & {"@read", "@write", "@pubsub"}, name
        assert not category & {"@dangerous", "@admin"}, name


def test_builders_of_one_name_in_two_modules_are_all_covered() -> None:
    assert len(patterns()) >= sum(len(module._BUILDERS) for module in KEYS)
    assert patterns()["bots"] != patterns()["bill_keys.bots"]


def test_the_tables_name_builders_only() -> None:
    for table in (PRODUCER, DASHBOARD):
        assert {name for row in table for name in row.split()} <= {*patterns(), "lists", "own_parked_order"}


def test_a_line_lets_nobody_in_until_it_gets_a_password() -> None:
    lines = [line_of(one) for one in rules_of(config.load())]
    assert [line.split()[1] for line in lines] == [f"fleet-{role}" for role in ROLES]
    assert [line for line in lines if "nopass" in line or ">" in line or "#" in line or "\n" in line] == []
