"""python -m benchmarks.cost_contexts: what a document that 100 bots share costs, named once or pasted into each prompt.

One simulator with its prefix cache and prices, two workers. Each way has 100 tasks at once on a document that is new to
the provider: in the messages, behind each bot's own persona, and named (`context=`). The ledger bills both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from benchmarks.bench import print_table, until
from benchmarks.bill_fleet import Fleet, Provider, running

BOTS, TASKS, SENTENCES = 100, 100, 1000
KEY = "benchmark-key"
SETTINGS = """
[providers.api]
kind = "{kind}"
base_url = "{url}{path}"
api_key_env = "CONTEXTS_KEY"
[limits."api/m"]
rpm = 1000000
[pools.research]
bots = {bots}
provider = "api"
model = "m"
max_output_tokens = 100
[pools.research.persona]
context_windows_tokens = [40000]
"""
#: Vendor -> what follows its address.
KINDS = {"openai": "/v1", "anthropic": ""}


class Row(NamedTuple):
    """What one way has cost.

    Args:
        usd: By the ledger.
        cold: Calls that have read less than half of the document from the cache.
        answers: What was answered, in order.
    """

    usd: float
    cold: int
    answers: tuple[str | None, ...]


def rows(kind: str) -> Iterator[Row]:
    """Yield what it costs with the document in each prompt, and then with its name alone."""
    from fleet.economy.contexts import documents
    from fleet.workers.context import count_tokens

    os.environ |= {"CONTEXTS_KEY": KEY, "FLEET_WORKER__SLOTS": "60"}
    provider = Provider("--latency-ms", "300")
    try:
        settings = SETTINGS.replace("{kind}", kind).replace("{path}", KINDS[kind]).replace("{bots}", str(BOTS))
        with running(settings, provider) as fleet:
            pasted = {"role": "system", "content": _document("pasted")}
            yield _asked(fleet, lambda n: {"messages": [pasted, {"role": "user", "content": f"What is {n}+{n}?"}]})
            named = _document("named")
            one, _ = documents.add(fleet.redis, named, name="named", tokens=count_tokens(named))
            yield _asked(fleet, lambda n: {"prompt": f"What is {n}+{n}?", "context": [one.id]})
    finally:
        provider.stop()


def _document(what: str) -> str:
    return (
        f"On the {what} harbour. "
        + "It has nine cranes and a pilot who knows the tides of the northern sound. " * SENTENCES
    )


def _asked(fleet: Fleet, task: Callable[[int], dict[str, Any]]) -> Row:
    fleet.provider.reset()
    ids = fleet.submit({"pool": "research", **task(number)} for number in range(TASKS))
    until(lambda: len(fleet.results(ids)) == TASKS, "all results", every_s=0.2)
    fleet.provider.wait_quiet()
    results = fleet.results(ids)
    cold = sum(one["usage"].get("cached_tokens", 0) < one["usage"]["input_tokens"] / 2 for one in results)
    billed = fleet.provider.ledger()["total"]["billed_usd_picos"]
    return Row(billed / 1e12, cold, tuple(one["answer"] for one in results))


@click.command()
@click.option(
    "--check", is_flag=True, help="Exit with 1 unless at most 2 calls read cold, and the answers are the same."
)
def main(check: bool) -> None:
    """Bill 100 tasks on one document, pasted and named, through both vendors' wires."""
    lines, is_well = [], True
    for kind in KINDS:
        pasted, named = rows(kind)
        is_same = pasted.answers == named.answers
        is_well = is_well and is_same and named.cold <= 2 and named.usd < pasted.usd
        for what, row in (("pasted", pasted), ("named", named)):
            saved = f"{1 - row.usd / pasted.usd:.0%}"
            lines.append([f"{kind}, {what}", f"{row.cold}", f"${row.usd:.4f}", saved, "same" if is_same else "differ"])
    title = f"{TASKS} tasks of {BOTS} bots at once on one document, cold"
    print_table(title, ["way", "cold reads", "billed", "saved", "answers"], lines)
    if check and not is_well:
        sys.exit("expected at most 2 cold reads of a named document, for less, with the same answers")


if __name__ == "__main__":
    main()
