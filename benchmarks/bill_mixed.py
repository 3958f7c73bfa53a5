"""Mixed usage through real workers: every class of token, tier, wire and key, beside the provider's own ledger."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.bench import until
from benchmarks.bill_fleet import Fleet, Provider, prices_of, running

#: Tasks, slots of each of two worker processes, median time to an answer in milliseconds.
TASKS, SLOTS, LATENCY_MS = 3_000, 50, 20
#: Name of a provider -> its key, as the simulator hears it. Two wires, and the simulator's own kind.
KEYS = {"east": "sk-east-0001", "west": "sk-west-0002", "claude": "sk-ant-0003", "own": "simulator"}
_KINDS = {"east": "openai", "west": "openai", "claude": "anthropic", "own": "simulator"}
MODELS = {"east": ("mini", "large"), "west": ("mini",), "claude": ("small", "opus"), "own": ("simulated-1",)}
#: Classes that both count: ours, and the ledger's name.
CLASSES = {
    "input_tokens": "input_tokens", "output_tokens": "output_tokens", "cached_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens", "cache_write_1h_tokens": "cache_write_1h_tokens",
    "reasoning_tokens": "thinking_tokens",
}  # fmt: skip
#: A beginning that is long enough for a prompt cache.
LONG = "These are the rules of the house, which every clerk must know by heart. " * 110


@dataclass(frozen=True, slots=True)
class Compared:
    """One line: what the bill and the ledger have."""

    what: str
    ours: int
    theirs: int


def compare() -> list[Compared]:
    """Run tasks of all kinds, and return what both have counted: by key, and in total."""
    provider = Provider("--latency-ms", str(LATENCY_MS), "--seed", "3", "--error-rate", "0.01")
    try:
        with running(_settings(), provider) as fleet:
            ids = fleet.submit(mixed_tasks())
            until(lambda: fleet.done >= len(ids), f"{len(ids)} tasks", every_s=0.1)
            provider.wait_quiet()
            return list(_compared(fleet, provider.ledger()))
    finally:
        provider.stop()


def _compared(fleet: Fleet, ledger: Mapping[str, Any]) -> Iterator[Compared]:
    from fleet.workers.simulator.ledger import key_label

    bill = fleet.settled_bill(ledger["total"]["calls"], "provider")
    zero = {"billed_usd_picos": 0, "served": 0, **dict.fromkeys(CLASSES.values(), 0)}
    for name, key in KEYS.items():
        sums, theirs = bill.get((name,)), ledger["keys"].get(key_label(key), zero)
        yield Compared(f"key of {name}, pico-dollars", sums.usd_picos if sums else 0, theirs["billed_usd_picos"])
    yield Compared(
        "all, pico-dollars", sum(sums.usd_picos for sums in bill.values()), ledger["total"]["billed_usd_picos"]
    )
    for ours, theirs in CLASSES.items():
        count = sum(getattr(sums.usage, ours) for sums in bill.values())
        yield Compared(f"all, {ours.replace('_', ' ')}", count, ledger["total"][theirs])
    yield Compared("calls of unknown cost", sum(sums.unknown_calls for sums in bill.values()), 0)


def _settings() -> str:
    for name, key in KEYS.items():
        os.environ[f"BILL_KEY_{name.upper()}"] = key
    providers = "".join(
        f'[providers.{name}]\nkind = "{kind}"\nbase_url = "{{url}}"\napi_key_env = "BILL_KEY_{name.upper()}"\n'
        for name, kind in _KINDS.items()
    )
    pools = "".join(
        f'[pools.{name}-{model}]\nbots = 20\nprovider = "{name}"\nmodel = "{model}"\nmax_output_tokens = 4096\n'
        for name, models in MODELS.items()
        for model in models
    )
    models = [f"{name}/{model}" for name, some in MODELS.items() for model in some]
    return f"[worker]\nslots = {SLOTS}\n[health]\nwatch = false\n{providers}{pools}{prices_of(*models)}"


def mixed_tasks() -> Iterator[dict[str, Any]]:
    draw = random.Random(17)
    pools = [(name, model) for name, models in MODELS.items() for model in models]
    for number in range(TASKS):
        name, model = draw.choice(pools)
        task: dict[str, Any] = {"pool": f"{name}-{model}", "kind": draw.choice(("sums", "prose"))}
        task["tenant"] = draw.choice(("", "acme", "globex"))
        question = f"Question {number}: what is {number} + 2?" if number % 2 else f"Write about subject {number}."
        task |= _asked(draw, name, question)
        yield task


def _asked(draw: random.Random, provider: str, question: str) -> dict[str, Any]:
    """Return the prompt, with or without a long beginning, and what else is asked of the model."""
    asked: dict[str, Any] = {}
    is_long = draw.random() < 0.5
    if provider == "claude" and is_long:
        system = f"{LONG}Volume {draw.randrange(40)}."
        mark = {"cache": draw.choice(("5m", "1h"))}
        asked["messages"] = [{"role": "system", "content": system, **mark}, {"role": "user", "content": question}]
    else:
        asked["prompt"] = f"{LONG}{question}" if is_long else question
    if draw.random() < 0.3:
        asked["effort"] = draw.choice(("low", "medium"))
    if draw.random() < 0.4:
        asked["tier"] = draw.choice(("priority", "standard") if provider == "claude" else ("flex", "priority"))
    return asked
