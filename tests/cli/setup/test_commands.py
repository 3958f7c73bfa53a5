"""`fleet init`, `fleet doctor` and docs/configuration.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.cli.main import main
from fleet.cli.setup import checks
from fleet.cli.setup.check import Check
from fleet.cli.setup.checks import check_all
from fleet.cli.setup.findings import FileFacts, Findings, HostFacts, host_facts
from fleet.cli.setup.redis_facts import RedisFacts, redis_facts
from fleet.cli.setup.reference import config_text, reference_text, tables
from fleet.cli.setup.user_code import code_of
from fleet.config import Settings, load
from fleet.store.client import connect
from fleet.store.private.server import choose_server
from fleet.store.private.written import Release
from tests.every import every
from tests.redis_server import RedisServer

DOCS = Path(__file__).parents[3] / "docs"
GOOD_REDIS = RedisFacts(
    role="redis", place="redis://127.0.0.1", release=Release("Redis", (7, 0, 15)), aof=True, appendfsync="everysec",
    eviction="noeviction", pubsub_buffer_bytes=32 << 20,
)  # fmt: skip
GOOD_HOST = HostFacts(
    open_files=20_000, variables=frozenset({"OPENAI_API_KEY"}), files={}, config=None, home=Path("/home/fleet"),
    home_filesystem="ext4", home_free_bytes=100 << 30,
)  # fmt: skip
GOOD_CELERY = {
    **checks.CELERY_MUST,
    "broker_transport_options": {"priority_steps": [0, 1, 2, 3, 4], "visibility_timeout": 15},
    "lease_s": 15,
}
REAL: dict[str, Any] = {
    "providers": {"openai": {"kind": "openai", "api_key_env": "OPENAI_API_KEY"}},
    "pools": {"research": {"provider": "openai", "model": "gpt-6-luna"}},
    "limits": {"openai/gpt-6-luna": {"rpm": 500, "tpm": 2_000_000}},
    "prices": {"openai/gpt-6-luna": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.5}},
}


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def real(**changes: Any) -> Settings:
    """Settings with one real provider and nothing to complain of, but for `changes`."""
    return load(**{**REAL, **changes})


def complaints(
    settings: Settings,
    *,
    redis: RedisFacts = GOOD_REDIS,
    host: HostFacts = GOOD_HOST,
    celery: dict[str, Any] | None = GOOD_CELERY,
) -> dict[str, Check]:
    """Checks that are not in order, by name."""
    found = check_all(settings, Findings(redis=(redis,), host=host, celery=celery))
    return {check.name: check for check in found if check.level != "ok"}


# ---- fleet init and the reference


def test_init_writes_a_file_that_changes_nothing(tmp_path: Path) -> None:
    defaults = load()
    assert invoke("init").exit_code == 0
    assert (tmp_path / "fleet.toml").is_file()
    assert load() == defaults


def test_every_example_of_the_written_file_is_valid_when_switched_on(tmp_path: Path) -> None:
    text, switched = re.subn(r"^#(?=[\[a-z])", "", config_text(), flags=re.MULTILINE)
    (tmp_path / "fleet.toml").write_text(text)
    settings = load()
    assert switched > 40
    assert settings.pools["research"].provider == "openai"
    assert settings.limits["openai/gpt-6-luna"].rpm == 500
    assert settings.prices["openai/gpt-6-luna"].output_usd_per_mtok == 0.5


def test_every_key_has_a_description_and_stands_in_both_texts() -> None:
    for table in tables():
        for key in table.keys:
            assert key.description, f"{table.title} {key.name}"
            assert re.search(rf"^# ?{key.name} = ", config_text(), re.MULTILINE), key.name
            assert f"| `{key.name}` |" in reference_text(), key.name


def test_the_variables_of_the_reference_set_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`FLEET_POOLS__NAME__DEADLINE_S`" in reference_text()
    assert "`FLEET_REDIS__SOCKET_TIMEOUT_S`" in reference_text()
    monkeypatch.setenv("FLEET_POOLS__WRITING__DEADLINE_S", "7")
    monkeypatch.setenv("FLEET_REDIS__SOCKET_TIMEOUT_S", "2")
    assert load().pools["writing"].deadline_s == 7
    assert load().redis.socket_timeout_s == 2


def test_init_refuses_to_overwrite_and_force_does_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("# mine\n")
    refused = invoke("init")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert path.read_text() == "# mine\n"
    assert invoke("init", "--force").exit_code == 0
    assert path.read_text() == config_text()


def test_a_written_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    invoke("init")
    assert (tmp_path / "fleet.toml").stat().st_mode & 0o777 == 0o600


def test_the_configuration_page_is_current() -> None:
    assert (DOCS / "configuration.md").read_text() == reference_text(), "run: python docs/generate.py"


def test_an_unknown_key_is_an_error_that_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("[pools.research]\nbot = 3\n")
    answer = invoke("doctor")
    assert answer.exit_code == 2
    assert "pools.research.bot" in answer.stderr
    assert "`bots`" in answer.stderr


# ---- the checks


def test_sound_settings_raise_no_complaint() -> None:
    assert complaints(real()) == {}


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"error": "no answer"}, "redis: reachable", "fail"),
        ({"release": Release("Redis", (5, 0, 14))}, "redis: version", "fail"),
        ({"aof": False, "snapshots": False}, "redis: persistence", "fail"),
        ({"aof": False, "snapshots": True}, "redis: persistence", "warn"),
        ({"aof": None}, "redis: persistence", "warn"),
        ({"appendfsync": "no"}, "redis: persistence", "warn"),
        ({"writes_ok": False}, "redis: last write to disk", "fail"),
        ({"eviction": "allkeys-lru", "maxmemory_bytes": 1 << 30}, "redis: eviction", "fail"),
        ({"eviction": "allkeys-lru"}, "redis: eviction", "warn"),
        ({"maxmemory_bytes": 100, "used_memory_bytes": 90}, "redis: memory", "warn"),
        ({"local": False, "password": False}, "redis: access", "fail"),
        ({"local": False, "password": True, "tls": False}, "redis: access", "warn"),
        ({"pubsub_buffer_bytes": 1 << 20}, "redis: pub/sub buffer", "warn"),
        ({"clock_skew_s": -2.5}, "redis: clock", "warn"),
        ({"suspects": 3}, "redis: suspects", "warn"),
        ({"worker_clocks": {"w1@here": 0.3, "w2@there": -3600.0}}, "workers: clocks", "warn"),
    ],
)
def test_an_unsafe_redis_is_named(change: dict[str, Any], name: str, level: str) -> None:
    found = complaints(real(), redis=replace(GOOD_REDIS, **change))
    assert found[name].level == level
    assert found[name].advice


def test_a_redis_over_tls_with_a_password_is_in_order() -> None:
    assert complaints(real(), redis=replace(GOOD_REDIS, local=False, tls=True, password=True)) == {}


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"home_filesystem": "tmpfs"}, "embedded Redis: file system", "fail"),
        ({"home_filesystem": "nfs4"}, "embedded Redis: file system", "warn"),
        ({"home_filesystem": "smbfs"}, "embedded Redis: file system", "warn"),
        ({"home_free_bytes": 1 << 20}, "embedded Redis: disk", "warn"),
        ({"open_files": 70}, "worker: open files", "warn"),
        ({"shadow": Path("/srv/bots/fleet.py")}, "worker: module fleet", "fail"),
        ({"variables": frozenset()}, "provider openai: key", "fail"),
    ],
)
def test_an_unfit_host_is_named(change: dict[str, Any], name: str, level: str) -> None:
    redis = replace(GOOD_REDIS, embedded=True)
    assert complaints(real(), redis=redis, host=replace(GOOD_HOST, **change))[name].level == level


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"providers": {"openai": {"kind": "openai"}}}, "provider openai: key", "fail"),
        ({"limits": {}}, "pool research: limits", "warn"),
        ({"limits": {"openai/gpt-6-luna": {"rpm": 9, "tpm": 8191}}}, "pool research: one call", "fail"),
        (
            {"limits": {"openai/gpt-6-luna": {"rpm": 500, "tpm": 2_000_000, "usd_per_day": 0.0001}}},
            "pool research: a day's money",
            "warn",
        ),
        ({"limits": {"openai/gpt-6": {"rpm": 9}}}, '[limits."openai/gpt-6"]', "warn"),
        ({"pools": {"research": {"provider": "openai", "model": "house-1"}}}, "pool research: price", "warn"),
        (
            {"pools": {"research": {"provider": "openai", "model": "gpt-4.1-mini", "tier": "turbo"}}},
            "pool research: price",
            "warn",
        ),
        ({"results": {"expires_s": 200}}, "pool research: deadline", "fail"),
        ({"results": {"expires_s": 1000}}, "results: expiry", "warn"),
        ({"worker": {"processes": 1, "slots": 3}}, "worker: slots", "warn"),
        ({"flower": {"address": "0.0.0.0"}}, "flower: address", "warn"),
        ({"pools": {"research": {"bots": 5}}}, "pool research: provider", "warn"),
    ],
)
def test_unsafe_settings_are_named(change: dict[str, Any], name: str, level: str) -> None:
    found = complaints(real(**change))
    assert found[name].level == level
    assert found[name].advice


def test_a_key_sent_without_tls_fails_unless_the_api_is_on_this_host() -> None:
    def settings(url: str) -> Settings:
        return real(providers={"openai": {**REAL["providers"]["openai"], "base_url": url}})

    assert complaints(settings("http://llm.example.com/v1"))["provider openai: address"].level == "fail"
    assert complaints(settings("http://127.0.0.1:8000/v1")) == {}
    assert complaints(settings("https://llm.example.com/v1")) == {}


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        (FileFacts(exists=False), "missing"),
        (FileFacts(exists=True, mode=0o600, size_bytes=0), "empty"),
        (FileFacts(exists=True, mode=0o644, size_bytes=9), "644"),
        (FileFacts(exists=True, mode=0o600, size_bytes=9), None),
    ],
)
def test_a_key_file_must_be_there_and_private(file: FileFacts, wrong: str | None) -> None:
    path = Path("/keys/openai")
    settings = real(providers={"openai": {"kind": "openai", "api_key_file": path}})
    found = complaints(settings, host=replace(GOOD_HOST, files={path: file}))
    assert (wrong is None and not found) or wrong in found["provider openai: key"].found


def test_a_configuration_file_that_others_can_read_must_hold_no_password(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text('[redis]\nurl = "redis://:hunter2@127.0.0.1/0"\n')
    path.chmod(0o644)
    check = checks.config_file(load(), host_facts(load()))
    assert check.level == "fail"
    assert "hunter2" not in f"{check.found} {check.advice}"
    path.chmod(0o600)
    assert checks.config_file(load(), host_facts(load())).level == "ok"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_acks_late", False),
        ("task_reject_on_worker_lost", None),
        ("worker_prefetch_multiplier", 4),
        ("broker_transport", "redis"),
        ("worker_pool", "prefork"),
    ],
)
def test_overridden_celery_settings_fail(key: str, value: object) -> None:
    assert complaints(real(), celery={**GOOD_CELERY, key: value})[f"celery: {key}"].level == "fail"


def test_overridden_transport_options_fail() -> None:
    found = complaints(real(), celery={**GOOD_CELERY, "broker_transport_options": {"visibility_timeout": 3600}})
    assert found["celery: broker_transport_options.priority_steps"].level == "fail"
    assert found["celery: broker_transport_options.visibility_timeout"].level == "fail"


# ---- against a real Redis


def test_the_facts_of_a_redis_are_its_own(own_redis: RedisServer) -> None:
    with connect(own_redis.url, timeout_s=5) as client:
        client.config_set("appendonly", "yes")
        client.config_set("maxmemory", 1 << 30)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("client-output-buffer-limit", "pubsub 1048576 1024 60")
    facts = redis_facts(own_redis.url, role="redis", embedded=False, timeout_s=5)
    assert facts.aof is True
    assert facts.appendfsync == "everysec"
    assert facts.maxmemory_bytes == 1 << 30
    assert facts.eviction == "allkeys-lru"
    assert facts.pubsub_buffer_bytes == 1 << 20
    assert facts.release == choose_server(own_redis.program)[0].release
    assert facts.local
    assert abs(facts.clock_skew_s) < 1


def test_doctor_finds_nothing_wrong_with_a_fresh_machine(fleet_home: Path) -> None:
    # A process of its own: the Celery app reads its settings once per process.
    command = [sys.executable, "-m", "fleet.cli.main", "doctor", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = json.loads(answer.stdout)
    assert [check for check in found if check["level"] == "fail"] == []
    assert answer.returncode == 0
    server, _ = choose_server(load().redis.server)
    assert {check["found"] for check in found if check["name"] == "redis: version"} == {str(server)}
    assert {"redis: persistence", "celery: task_acks_late", "worker: open files"} <= {c["name"] for c in found}


def test_doctor_fails_when_redis_does_not_answer_and_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", "redis://:hunter2@127.0.0.1:1/0")
    answer = invoke("doctor")
    assert answer.exit_code == 1
    assert "redis: reachable" in answer.stdout
    assert "hunter2" not in answer.output


@pytest.mark.parametrize("own", ["function", "agent", None])
@pytest.mark.parametrize("reports", [(), ("LANGSMITH_TRACING",)])
def test_doctor_says_whether_frameworks_tell_their_vendors_where_one_may_run(
    own: str | None, reports: tuple[str, ...]
) -> None:
    pool = {**REAL["pools"]["research"], **({own: "my_bots:answer"} if own else {})}
    settings = real(pools={"research": pool})
    code = dict.fromkeys(code_of(settings.pools["research"]))
    facts = Findings(redis=(GOOD_REDIS,), host=replace(GOOD_HOST, reports=reports), celery=GOOD_CELERY, code=code)
    found = [one for one in check_all(settings, facts) if one.name.startswith("frameworks")]
    assert [one.level for one in found] == [("warn" if reports else "ok")] * bool(own)
    assert not (own and reports) or every("LANGSMITH_TRACING" in one.found and one.advice for one in found)


def test_doctor_finds_the_variable_of_the_webhook_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_WEBHOOK", "https://hooks.example.com/secret")
    facts = host_facts(load(alerts={"webhook_env": "OPS_WEBHOOK"}))
    assert facts.variables == {"OPS_WEBHOOK"}
