"""`fleet keys delegate`, `undelegate` and `scope` from a shell, and what `fleet doctor` says of them."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.key_checks import KeyFacts, key_checks, key_facts
from fleet.vault.delegation import Token, read_chain
from fleet.vault.delegations import PUBLIC, root_keys, seal_secret


@pytest.fixture(autouse=True)
def place(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, value in (("REDIS__URL", redis_url), ("HOME", tmp_path / "home"), ("CONFIG", tmp_path / "fleet.toml")):
        monkeypatch.setenv(f"FLEET_{name}", str(value))
    (tmp_path / "fleet.toml").write_text(
        "[pools.research]\nbots = 2\ndelegated = true\n[pools.open]\nbots = 2\n"
        '[providers.sim]\nkind = "simulator"\n[providers.sim.scope]\npools = ["re*"]\nrequests_per_day = 10\n'
    )
    config.current.cache_clear()
    yield tmp_path
    config.current.cache_clear()


def fleet(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, words, catch_exceptions=False, prog_name="fleet")
    assert done.exit_code == code, done.output
    return done.output


def delegations() -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in json.loads(fleet("keys", "--json"))["delegations"]}


def test_a_delegation_is_made_handed_on_listed_and_ends_with_its_parent(place: Path) -> None:
    first, second = place / "first.delegation", place / "second.delegation"
    words = ("--pool", "research", "--requests-per-day", "5", "-o", str(first))
    told = fleet("keys", "delegate", "simulator", "--to", "team", *words)
    assert str(place / "home" / PUBLIC) in told and stat.S_IMODE(first.stat().st_mode) == 0o600
    token = Token.read(first.read_text(), "here")
    chain = read_chain(token.chain, root_keys(config.current()))
    assert (chain.provider, chain.holder.to, chain.scope.pools) == ("simulator", "team", ("research",))
    seal = seal_secret(config.current())
    assert seal is not None and token.secret not in told

    wider = ("--to", "night", "--requests-per-day", "9")
    assert "no more than delegation" in fleet("keys", "delegate", "simulator", "--from", str(first), *wider, code=2)
    out = fleet("keys", "delegate", "simulator", "--from", str(first), "--to", "night", "-o", str(second), "--json")
    assert json.loads(out)["scope"] == {"pools": ["research"], "requests_per_day": 5}
    parent, child = (Token.read(file.read_text(), "here").blocks[-1].id for file in (first, second))
    assert {name: row["state"] for name, row in delegations().items()} == {parent: "holds", child: "holds"}
    assert child in fleet("keys", "show", "simulator") and child not in fleet("keys", "show", "sim")
    assert f"and with it {child}" in fleet("keys", "undelegate", parent)
    assert {row["state"] for row in delegations().values()} == {"revoked"}
    events = fleet("events")
    assert "key_delegated" in events and "delegation_revoked" in events
    assert seal_secret(config.current()) == seal, "a second delegation makes no second seal"


def test_wrong_words_are_answered_with_what_was_expected(place: Path) -> None:
    assert "expected a provider of sim, simulator, got 'nobody'" in fleet(
        "keys", "delegate", "nobody", "--to", "x", code=2
    )
    assert "12 hexadecimal digits" in fleet("keys", "undelegate", "xyz", code=2)
    assert "expected a name, or the beginning of one" in fleet("keys", "scope", "sim", "--pool", "a b", code=2)
    assert "expected --reset alone" in fleet("keys", "scope", "sim", "--pool", "a", "--reset", code=2)
    (place / "none").write_text("fleet-delegation/1:nonsense")
    (place / "none").chmod(0o600)
    told = fleet("keys", "delegate", "simulator", "--from", str(place / "none"), "--to", "x", code=2)
    assert "expected a delegation, as `fleet keys delegate` prints it" in told and "nonsense" not in told
    assert "takes unsigned" not in told


def test_a_pool_that_takes_unsigned_tasks_too_is_told() -> None:
    told = fleet("keys", "delegate", "simulator", "--to", "x", "--pool", "open")
    assert "open: unsigned tasks are taken, too" in told


def test_a_scope_is_shown_narrowed_and_taken_back() -> None:
    assert fleet("keys", "scope", "sim").startswith("sim: pools re*; 10 requests a day\n")
    assert "pools: expected no more than fleet.toml allows" in fleet("keys", "scope", "sim", "--pool", "open", code=2)
    for option, wrong, near in (
        ("pool", "reserach", "research"), ("pool", "reserach-*", "research"), ("bot", "research-03", "research-002"),
        ("host", "127.0.0.2", "127.0.0.1"), ("model", "x", "expected one of"),
    ):  # fmt: skip
        told = fleet("keys", "scope", "sim", f"--{option}", wrong, code=2)
        assert f"expected a {option} that there is, got '{wrong}'" in told and near in told and "nothing is set" in told
    assert "the nearest known one is `sim`" in fleet("keys", "scope", "sin", code=2)
    told = fleet("keys", "scope", "sim", "--pool", "research", "--requests-per-day", "3")
    assert "sim: pools research; 3 requests a day" in told and "fleet.toml  pools re*" in told
    assert json.loads(fleet("keys", "scope", "sim", "--json"))["used_today"] == {"requests_per_day": 0}
    (found,) = [check for check in key_checks(config.current(), key_facts(config.current())) if "sim" in check.name]
    assert found.level == "warn" and "pools research; 3 requests a day holds" in found.found
    assert fleet("keys", "scope", "sim", "--reset").startswith("sim: pools re*; 10 requests a day\n")
    assert "key_scoped" in fleet("events")


def test_doctor_tells_of_a_delegated_pool_whose_signatures_cannot_be_checked() -> None:
    settings = config.current()
    (found,) = key_checks(settings, key_facts(settings))
    assert found.level == "fail" and "`fleet keys delegate` makes one" in found.advice
    fleet("keys", "delegate", "simulator", "--to", "x")
    (found,) = key_checks(settings, key_facts(settings))
    assert found.level == "ok"
    (found,) = key_checks(settings, KeyFacts(has_seal=False))
    assert found.level == "warn" and "vault.seal_file" in found.advice
