"""The names of Redis keys."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from celery import Celery
from redis.crc import key_slot

from fleet import config
from fleet.engine.messages import queues
from fleet.errors import ConfigurationError
from fleet.store import answer_keys, bill_keys, erasure_keys, flow_keys, keys, vault_keys
from fleet.store.keys import pools
from tests.house import ROOT, sources

#: A value for each kind of argument that a key's name is made of.
ARGUMENTS = {"step": 3, "name": "openai/gpt-5/default"}

#: What the names of Fleet's keys begin with. Messages for people begin with "fleet: ".
OURS = ("fleet:", "{fleet:", f"{keys.TAG}:", f"{bill_keys.TAG}:", "celery-task-meta", "_kombu.binding", "chord-unit")


def spelled() -> list[str]:
    """Return `file:line` of every string that spells the name of a key."""
    found = []
    for path in sources(ROOT, "*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if text.startswith(OURS) and not text.partition(":")[2][:1].isspace():
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_the_name_of_every_key_is_spelled_among_the_keys() -> None:
    assert {place.partition(":")[0] for place in spelled()} == {
        "fleet/store/keys/__init__.py", "fleet/store/keys/pools.py", "fleet/store/answer_keys.py",
        "fleet/store/bill_keys.py", "fleet/store/flow_keys.py",
    }  # fmt: skip


def builders() -> dict[str, str | tuple[str, ...]]:
    """Return what every function of `keys` that names a key returns."""
    made = {}
    for module in (keys, bill_keys, erasure_keys, flow_keys, vault_keys):
        for name, build in module._BUILDERS.items():
            arguments = [ARGUMENTS.get(wanted, "x") for wanted in inspect.signature(build).parameters]
            made[f"{module.__name__}.{name}"] = getattr(module, name)(*arguments)
    return made


def test_every_key_begins_with_the_prefix_and_is_else_the_same() -> None:
    plain = builders()
    assert len(plain) > 50
    config.load(redis={"prefix": "team:"})
    for name, built in builders().items():
        if isinstance(built, str):
            assert built == f"team:{plain[name]}"
        else:
            assert built == tuple(f"team:{key}" for key in plain[name])
    config.load(redis={"prefix": ""})
    assert builders() == plain


def test_every_function_of_the_module_is_a_builder_and_gets_the_prefix() -> None:
    """One that stands below `use_prefix` would get none."""
    for module, besides in (
        (keys, {"queue", "use_prefix"}), (bill_keys, {"use_prefix"}), (erasure_keys, {"use_prefix"}),
        (flow_keys, {"stem", "use_prefix"}), (vault_keys, {"use_prefix"}),
    ):  # fmt: skip
        ours = {name: value for name, value in vars(module).items() if inspect.isfunction(value)}
        own = {
            name
            for name, value in ours.items()
            if f"{value.__module__}.".startswith(f"{module.__name__}.") and not name.startswith("_")
        }
        assert own == {*module._BUILDERS, *besides}


def test_keys_without_a_prefix_are_those_of_the_last_release() -> None:
    assert keys.result("t") == "celery-task-meta-t"
    assert keys.room("fleet.research") == "fleet:gate:fleet.research:room"
    assert keys.limit_keys("openai/gpt-5/default").bots == "fleet:limit:{openai/gpt-5}:default:bots:"
    assert keys.totals() == "{fleet}:signals:totals"
    assert keys.former("bots", "research") == "{fleet}:bots:research"
    assert queues.list_key("fleet.research", 3) == "fleet.research\x06\x163"


def test_keys_of_a_pool_share_a_slot_and_pools_spread_over_the_nodes_of_a_cluster() -> None:
    builders = {name: build for name, build in keys._BUILDERS.items() if build.__code__.co_filename == pools.__file__}
    thirds = set()
    for pool in (f"pool-{number}" for number in range(30)):
        made = [
            getattr(keys, name)(pool, *["sql"] * (len(inspect.signature(build).parameters) - 1))
            for name, build in builders.items()
        ]
        made += [answer_keys.grades(pool, "sql"), answer_keys.classes(pool), answer_keys.ration(pool, "sql")]
        (slot,) = {key_slot(key.encode()) for key in made}
        thirds.add(slot * 3 // 16384)
    assert len(builders) >= 20 and thirds == {0, 1, 2}


def test_queues_keep_their_names_and_their_lists_get_the_prefix() -> None:
    config.load(redis={"prefix": "fleet"})  # what our own names begin with
    assert keys.queue("research") == "fleet.research"
    place = queues.list_key("fleet.research", 3)
    assert place == "fleetfleet.research\x06\x163"
    assert queues.queue_of(place) == ("fleet.research", 3)
    assert queues.queue_of(queues.list_key("celery", 0)) == ("celery", 0)
    assert keys.room("q") == "fleetfleet:gate:q:room"


@pytest.mark.parametrize(("prefix", "key"), [("a", "a_celery-task-meta-t"), ("a-", "a-celery-task-meta-t")])
def test_results_lie_where_a_plain_client_with_that_prefix_looks(prefix: str, key: str) -> None:
    config.load(redis={"prefix": prefix})
    assert keys.result("t") == key
    app = Celery("plain", backend="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
    assert app.backend.get_key_for_task("t").decode() == key


@pytest.mark.parametrize("prefix", ["{a}", "a*", "a b", "%s", "x" * 65, "a\n"])
def test_a_prefix_that_would_move_or_match_other_keys_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="expected at most 64 letters, digits"):
        config.load(redis={"prefix": prefix})


def test_keys_are_named_when_they_are_used_and_by_their_module() -> None:
    """What was built before the settings were read, or taken out of the module, would have no prefix."""
    wrong = []
    for path in sources(ROOT / "fleet", "*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in ("fleet.store.keys", "fleet.store.bill_keys"):
                builders = keys._BUILDERS if node.module == "fleet.store.keys" else bill_keys._BUILDERS
                wrong += [f"{path}: {name.name}" for name in node.names if name.name in builders]
        wrong += [f"{path}:{call.lineno}" for call in _called_at_import(tree) if _names_a_key(call)]
    assert not wrong


def _called_at_import(tree: ast.AST) -> list[ast.Call]:
    """Return the calls outside of functions, with those in their defaults and decorators."""
    found, todo = [], [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Call):
            found.append(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo += [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.decorator_list]
        elif not isinstance(node, ast.Lambda):
            todo += ast.iter_child_nodes(node)
    return found


def _names_a_key(call: ast.Call) -> bool:
    called = call.func
    return (
        isinstance(called, ast.Attribute)
        and isinstance(called.value, ast.Name)
        and called.value.id in ("keys", "bill_keys")
    )


def test_no_script_spells_a_key() -> None:
    spelled_in_lua = []
    for path in sources(ROOT, "*.lua"):
        code = re.sub(r"--.*", "", path.read_text(encoding="utf-8"))
        for text in re.findall(r"'([^'\n]*)'", code):
            if text != "{}" and text.startswith((*OURS, "fleet", "{", "celery")):  # "{}" is an empty JSON object
                spelled_in_lua.append(f"{path.name}: {text}")
    assert not spelled_in_lua
