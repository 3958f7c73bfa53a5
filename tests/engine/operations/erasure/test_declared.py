"""Every key says what it holds and what erasure does about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.engine.operations.erasure.declared import (
    ASKS,
    CACHE,
    CONTEXTS,
    ERASURE,
    FLOWS,
    JOBS,
    LANES,
    MONEY,
    PAYOUTS,
    SCHEDULES,
    STORE,
    VAULT,
    Holding,
)
from fleet.engine.operations.roles import KEYS
from fleet.store import (
    answer_keys,
    bill_keys,
    cache_keys,
    context_keys,
    erasure_keys,
    flow_keys,
    job_keys,
    keys,
    lane_keys,
    payout_keys,
    schedule_keys,
    vault_keys,
)
from tests.every import every

DECLARED = [
    (keys, STORE), (bill_keys, MONEY), (erasure_keys, ERASURE), (vault_keys, VAULT), (context_keys, CONTEXTS),
    (lane_keys, LANES), (schedule_keys, SCHEDULES), (answer_keys, ASKS), (cache_keys, CACHE), (job_keys, JOBS),
    (payout_keys, PAYOUTS), (flow_keys, FLOWS),
]  # fmt: skip


@pytest.mark.parametrize(("module", "declared"), DECLARED)
def test_a_key_without_a_word_about_erasure_is_none(module: object, declared: dict[str, Holding]) -> None:
    assert set(declared) == set(module._BUILDERS), (  # type: ignore[attr-defined]
        "a new key: say in engine/operations/erasure/declared.py what it holds and what `fleet forget` does about it"
    )


def test_what_holds_words_or_a_tenant_does_not_simply_stay() -> None:
    holding = [
        one
        for holdings in (STORE, MONEY, ERASURE, LANES, CACHE, JOBS)
        for one in holdings.values()
        if one.holds != "nothing"
    ]
    assert every(one.becomes in ("erased", "renamed", "told") and one.how for one in holding)


def test_no_module_of_keys_is_left_out() -> None:
    store = Path(answer_keys.__file__).parent
    files = [*store.glob("*keys.py"), *store.glob("*keys/__init__.py")]
    made = {
        path.relative_to(store).parts[0].removesuffix(".py")
        for path in files
        if "_BUILDERS = " in path.read_text(encoding="utf-8")
    }
    assert {module.__name__.rpartition(".")[2] for module, _ in DECLARED} == made
    assert {module.__name__.rpartition(".")[2] for module in KEYS} == made
