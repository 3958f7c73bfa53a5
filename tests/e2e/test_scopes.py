"""Scopes of keys in a real worker: what is never served ends, what is not served now waits, and daily caps hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.config.scopes import ScopeSettings
from fleet.engine.messages.producer import fresh_id, submit_many
from fleet.errors import ConfigurationError
from tests.every import every
from tests.keys.unsigned import Siege
from tests.redis_server import RedisServer
from tests.waiting import wait_until

WAIT_S = 60.0
SCOPED = """
[providers.own]
kind = "simulator"
[providers.own.scope]
tenants = ["acme"]
pools = ["bound"]
[pools.bound]
bots = 2
provider = "own"
[providers.several]
kind = "simulator"
[providers.several.keys.acmes]
api_key_env = "ACMES_KEY"
[providers.several.keys.acmes.scope]
tenants = ["acme"]
[providers.several.keys.small]
api_key_env = "SMALL_KEY"
[providers.several.keys.small.scope]
pools = ["several"]
requests_per_day = 2
[providers.several.keys.bulk]
api_key_env = "BULK_KEY"
[providers.several.keys.bulk.scope]
pools = ["bulk"]
[pools.several]
bots = 2
provider = "several"
[pools.bulk]
bots = 2
provider = "several"
[providers.strict]
kind = "simulator"
[providers.strict.scope]
tools = ["add"]
[pools.agent]
bots = 2
provider = "strict"
function = "my_bots:asks"
"""
BOT = """
def asks(task, bot):
    told = bot.openai().chat.completions.create(
        model="simulated-1", messages=[{"role": "user", "content": task.prompt}],
        tools=[{"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}],
    )
    return told.choices[0].message.content or "done"
"""


@pytest.fixture
def siege(tmp_path: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Siege]:
    for label in ("acmes", "small", "bulk"):
        monkeypatch.setenv(f"{label.upper()}_KEY", f"sk-{label}-0123456789")
    (tmp_path / "my_bots.py").write_text(BOT)
    one = Siege(tmp_path, own_redis.url, SCOPED)
    try:
        one.worker.wait_ready()
        yield one
    finally:
        one.close()


def fleet(*words: str) -> str:
    done = CliRunner().invoke(main, words, prog_name="fleet")
    assert done.exit_code in (0, 1), done.output  # `why` of a task that waits
    return done.stdout


def test_scopes_and_caps_hold_in_a_worker(siege: Siege) -> None:
    mine, others, nobodys = submit_many(
        [{"prompt": "x", "pool": "bound", "tenant": tenant} for tenant in ("acme", "other", "")]
    )
    found = siege.results([mine, others, nobodys])
    assert found[mine].status == "ok"
    for one in (others, nobodys):
        error = found[one].error
        assert error is not None and error.type == "OutOfScope" and found[one].attempts == 0
        assert "other" not in error.message.split() and "[providers.own]" in error.message

    (one,) = submit_many([{"prompt": "x", "pool": "agent"}])
    error = siege.results([one])[one].error
    assert error is not None and (error.type, error.blame) == ("OutOfScope", "prompt"), error
    assert "'shell'" in error.message and "(add)" in error.message

    fleet("keys", "scope", "simulator", "--pool", "writing")
    ids: list[str] = []
    wait_until(lambda: _waits_for_its_scope(ids), WAIT_S, lambda: f"a task waits\n{siege.worker.log[-2000:]}")
    ids = [one for one in ids if siege.result(one) is None]
    ids += submit_many([{"prompt": "x", "pool": "open"} for _ in range(4)])
    fleet("keys", "scope", "simulator", "--requests-per-day", "2")  # in place of what was set before
    wait_until(lambda: sum(siege.result(one) is not None for one in ids) == 2, WAIT_S, lambda: siege.worker.log[-2000:])
    waiting = next(one for one in ids if siege.result(one) is None)
    wait_until(lambda: "2 requests of 2 requests spent" in fleet("why", waiting), WAIT_S, lambda: fleet("why", waiting))
    assert json.loads(fleet("keys", "scope", "simulator", "--json"))["used_today"] == {"requests_per_day": 2}
    fleet("keys", "scope", "simulator", "--reset")
    assert every(one.status == "ok" for one in siege.results(ids).values())


def test_each_of_several_keys_serves_whom_its_own_scope_says(siege: Siege) -> None:
    acmes = list(submit_many([{"prompt": "x", "pool": "several", "tenant": "acme"} for _ in range(3)]))
    others = list(submit_many([{"prompt": "x", "pool": "several"} for _ in range(4)]))
    bulk = list(submit_many([{"prompt": "x", "pool": "bulk"} for _ in range(3)]))
    assert every(one.status == "ok" for one in siege.results([*acmes, *bulk]).values())
    wait_until(lambda: sum(siege.result(one) is not None for one in others) == 2, WAIT_S, lambda: siege.worker.log)
    waiting = next(one for one in others if siege.result(one) is None)
    told = "budget key:several/small:requests"
    wait_until(lambda: told in fleet("why", waiting), WAIT_S, lambda: fleet("why", waiting))
    assert "`fleet keys scope several/small`" in fleet("why", waiting)
    more = list(submit_many([{"prompt": "x", "pool": "several", "tenant": "acme"} for _ in range(2)]))
    assert every(one.status == "ok" for one in siege.results(more).values()), "its neighbours' key is used up, not its"

    def billed() -> dict[str, int]:
        lines = json.loads(fleet("bill", "--by", "key", "--json"))["lines"]
        return {row["key"]: row["calls"] for row in lines if row["key"] in ("acmes", "small", "bulk")}

    wait_until(lambda: billed() == {"acmes": 5, "small": 2, "bulk": 3}, WAIT_S, lambda: str(billed()))
    rows = {row["key"]: row for row in json.loads(fleet("keys", "--json"))["keys"]}
    assert rows["several/small"]["used_today"] == {"requests_per_day": 2}
    assert rows["several/acmes"]["scope"] == {"tenants": ["acme"]}
    fleet("keys", "scope", "several/acmes", "--tenant", "acme", "--requests-per-day", "1")
    assert "several/acmes: tenants acme; 1 requests a day" in fleet("keys", "scope", "several/acmes")
    last: list[str] = []

    def waits() -> bool:
        last.extend(submit_many([{"prompt": "x", "pool": "several", "tenant": "acme"}]))
        return any("several/acmes:requests" in fleet("why", one) for one in last[-3:])

    wait_until(waits, WAIT_S, lambda: siege.worker.log)
    fleet("keys", "scope", "several/acmes", "--reset")
    assert every(one.status == "ok" for one in siege.results(last).values())


def _waits_for_its_scope(ids: list[str]) -> bool:
    ids += submit_many([{"prompt": "x", "pool": "open"}])
    return any("`fleet keys scope simulator --reset` takes that back" in fleet("why", one) for one in ids)


def test_a_delegations_own_caps_and_models_hold_for_its_tasks_alone(siege: Siege) -> None:
    capped = siege.token_for("research", requests_per_day=1)
    other = siege.token_for("research", models=("other",))
    first, second, third = fresh_id(), fresh_id(), fresh_id()
    siege.push(siege.signed(capped, first), task_id=first)
    assert siege.results([first])[first].status == "ok"
    siege.push(siege.signed(capped, second), task_id=second)
    siege.push(siege.signed(other, third), task_id=third)
    error = siege.results([third])[third].error
    assert error is not None and error.type == "OutOfScope" and "delegation" in error.message
    wait_until(lambda: "of 1 requests spent" in fleet("why", second), WAIT_S, lambda: fleet("why", second))
    neighbour = siege.push(siege.signed(siege.token, one := fresh_id()), task_id=one)
    assert siege.results([neighbour])[neighbour].status == "ok"


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ({"pools": ["a"]}, r"scope\.pools: expected 'b' among them, which pool b uses"),
        ({"models": ["x"]}, r"scope\.models: expected 'simulated-1' among them"),
        ({"bots": ["b-9*"]}, r"scope\.bots: expected at least one of pool b"),
        ({"hosts": ["api.example.com"]}, r"scope\.hosts: expected '127\.0\.0\.1' among them"),
    ],
)
def test_a_scope_by_which_a_pool_could_never_work_is_refused_with_the_settings(
    scope: dict[str, object], told: str
) -> None:
    providers = {"own": {"kind": "simulator", "scope": scope}}
    with pytest.raises(ConfigurationError, match=told):
        config.load(providers=providers, pools={"b": {"bots": 2, "provider": "own"}})
    assert config.load(providers={"own": {"kind": "simulator", "scope": {}}}, pools={"b": {"provider": "own"}})


def test_a_scope_is_told_in_words() -> None:
    assert ScopeSettings().told() == "everything"
    assert ScopeSettings(pools=("a",), tools=(), usd_per_day=2).told() == "pools a; tools none; 2.0 dollars a day"
