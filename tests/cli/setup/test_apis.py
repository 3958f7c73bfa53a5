"""`fleet doctor` and the APIs: what their lists and one real answer show before a task is paid."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.setup.api_checks import api_checks, is_same
from fleet.cli.setup.apis import Answered, ApiFacts
from fleet.cli.setup.check import Check
from fleet.cli.setup.findings import HostFacts
from fleet.cli.setup.pool_checks import provider_key
from fleet.config import Settings, load
from fleet.errors import FleetError, KeyRejected, NotServed, ProviderUnavailable, RateLimited
from fleet.rates import RateReading, RateReadings
from fleet.workers.providers.listing import ListedModel, Listing
from tests.workers.simulator.running import running, total

TODAY = date(2026, 11, 29)
URL = "http://127.0.0.1:8080/v1"
NONE = RateReading()


def settings(*, kind: str = "openai", model: str = "gpt-6-luna", **limit: int) -> Settings:
    return load(
        providers={"api": {"kind": kind, "base_url": URL}},
        pools={"p": {"provider": "api", "model": model}},
        limits={f"api/{model}": limit} if limit else {},
    )


def checks(facts: ApiFacts, **changed: Any) -> dict[str, Check]:
    found = settings(**changed)
    name = found.pools["p"].model
    return {check.name: check for check in api_checks(found, {("api", name): facts}, today=TODAY)}


def listing(*models: ListedModel | str) -> ApiFacts:
    return ApiFacts(Listing(f"{URL}/models", 200, tuple(ListedModel(m) if isinstance(m, str) else m for m in models)))


def test_a_listed_model_is_in_order() -> None:
    found = checks(listing("gpt-6-luna", "gpt-6-sol"))
    assert {check.level for check in found.values()} == {"ok"}
    assert "lists 2 models" in found["provider api: connection"].found


def test_a_model_that_the_account_does_not_list_is_warned_of_with_the_nearest() -> None:
    found = checks(listing("gpt-6-luna", "whisper-9"), model="gpt-6-lunar")["pool p: model"]
    assert found.level == "warn" and "`gpt-6-luna`" in found.advice
    assert "listed: whisper-9" in checks(listing("whisper-9"))["pool p: model"].advice


@pytest.mark.parametrize(
    ("model", "name", "same"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001", True),
        ("gpt-6-luna", "gpt-6-luna-2026-08-01", True),
        ("llama3", "llama3:latest", True),
        ("meta/llama-4:free", "meta/llama-4", True),
        ("openai/gpt-6-luna", "openai/*", True),
        ("gpt-6", "gpt-6-luna", False),
        ("gpt-6-luna", "gpt-6", False),
        ("gpt-6-luna", "*", True),
    ],
)
def test_versions_variants_and_patterns_are_names_of_a_model(model: str, name: str, same: bool) -> None:
    assert is_same(model, name) is same


def test_the_vendor_in_a_name_is_not_part_of_what_is_listed() -> None:
    found = checks(listing("gemini-3.8-flash"), kind="pydantic-ai", model="google:gemini-3.8-flash")
    assert found["pool p: model"].level == "ok"


def test_a_models_last_day_is_a_warning_before_it_and_a_failure_from_then_on() -> None:
    before = checks(listing(ListedModel("gpt-6-luna", date(2026, 12, 31), instead="gpt-7")))["pool p: model"]
    assert before.level == "warn" and "2026-12-31" in before.found and "`gpt-7`" in before.advice
    assert checks(listing(ListedModel("gpt-6-luna", TODAY)))["pool p: model"].level == "fail"
    assert checks(listing(ListedModel("gpt-6-luna", is_ending=True)))["pool p: model"].level == "warn"


@pytest.mark.parametrize(
    ("found", "level", "told"),
    [
        (Listing(URL, trouble="nothing listens at 127.0.0.1:8080"), "fail", "Correct host and port"),
        (Listing(URL, trouble="127.0.0.1:8080 speaks no TLS"), "fail", "Use http://"),
        (Listing(URL, 404, base_url="http://127.0.0.1:8080/v1"), "fail", 'Set base_url = "http://127.0.0.1:8080/v1"'),
        (Listing(URL, 401, said=" (invalid_api_key)"), "fail", "Use a key that lives"),
        (Listing(URL, 402), "fail", "Add money"),
        (Listing(URL, 403), "warn", "--call"),
        (Listing(URL, 503), "warn", "look again later"),
        (Listing(URL, 404, is_json=True), "ok", ""),
        (Listing(URL, 404), "warn", "no such API"),
    ],
)
def test_what_is_wrong_with_an_address_or_a_key_is_said_with_what_to_do(found: Listing, level: str, told: str) -> None:
    check = checks(ApiFacts(found))["provider api: connection"]
    assert (check.level, told in check.advice) == (level, True), check


@pytest.mark.parametrize(
    ("error", "level", "told"),
    [
        (KeyRejected("dead"), "fail", "Check this key"),
        (NotServed("no such model"), "fail", "Correct model in [pools.p]"),
        (ProviderUnavailable("503"), "fail", "status page"),
        (RateLimited("429"), "warn", "in a minute"),
    ],
)
def test_a_real_call_that_fails_says_whose_business_it_is(error: FleetError, level: str, told: str) -> None:
    check = checks(ApiFacts(Listing(URL, 200, ()), answer=error))["pool p: call"]
    assert check.level == level and told in check.advice


def test_a_last_day_that_only_an_answers_headers_tell_is_said_too() -> None:
    answer = Answered(5, (10, 1), None, ends=date(2026, 12, 31))
    check = checks(ApiFacts(Listing(URL, 404, is_json=True), answer=answer))["pool p: model"]
    assert check.level == "warn" and "2026-12-31" in check.found


def test_limits_typed_higher_than_the_accounts_are_named_and_others_are_not() -> None:
    def named(rates: RateReadings, **limit: int) -> list[str]:
        found = checks(ApiFacts(Listing(URL, 200, ()), answer=Answered(5, (10, 1), rates)), **limit)
        return [check.found for name, check in found.items() if name.endswith("limits of the account")]

    minute = (RateReading(60, 59, 1.0), RateReading(20_000, 19_990, 0.1), NONE, NONE)
    assert named(minute, rpm=500, tpm=20_000) == ["rpm 500 is set, 60 is what the answer's headers say"]
    assert named(minute, rpm=60, tpm=10_000) == []
    assert named((RateReading(200, 199, 86_000.0), NONE, NONE, NONE), rpm=500) == []  # a day's


def test_a_clouds_own_key_is_not_missed() -> None:
    found = load(
        providers={"aws": {"kind": "pydantic-ai"}}, pools={"p": {"provider": "aws", "model": "bedrock:amazon.nova"}}
    )
    host = HostFacts(1024, frozenset(), {}, None, Path(), None, 0)
    assert provider_key("aws", "default", found, host, ["bedrock:amazon.nova"]).level == "ok"
    assert provider_key("aws", "default", found, host, ["google:gemini-3.8-flash"]).level == "fail"


def write(tmp_path: Path, url: str, *, model: str = "openai-chat:simulated-1") -> None:
    (tmp_path / "fleet.toml").write_text(f"""
[providers.native]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "A_KEY"

[providers.other]
kind = "pydantic-ai"
base_url = "{url}"
api_key_env = "A_KEY"

[pools.a]
provider = "native"
model = "simulated-1"

[pools.b]
provider = "other"
model = "{model}"

[limits."native/simulated-1"]
rpm = 500
tpm = 100000000000
""")


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    command = [sys.executable, "-m", "fleet.cli.main", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}


def test_doctor_lists_models_and_calls_each_once_only_when_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "test-key")
    with running(rpm=100) as url:
        write(tmp_path, url, model="openai-chat:simulated-2")
        _, found = doctor()
        assert total(url)["calls"] == 0
        assert "pool a: call" not in found
        assert found["provider other: connection"]["level"] == "ok"
        assert found["pool b: model"]["level"] == "warn" and "`simulated-1`" in found["pool b: model"]["advice"]
        _, found = doctor("--call")
        assert total(url)["calls"] == 2
        assert found["pool a: call"]["level"] == found["pool b: call"]["level"] == "ok"
        assert "rpm 500 is set, 100 is" in found["pool a: limits of the account"]["found"]
