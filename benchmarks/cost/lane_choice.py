"""Three models, four lengths of a shared prefix, warm and cold: which lane Fleet takes, and what each would have cost.

Each cell has a provider of its own. Cold: nobody has asked about the prefix in the last hours. Warm: calls come every
minute, and the day before has told Fleet what each lane's calls read. A batch is answered two hours later, when the
cache has forgotten. The ledger says what the same call costs on each lane; the taken one must be the cheapest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cost.cell import BY_S, KIND, NAMES, words
from benchmarks.cost.tables import GPT_5, O3, SONNET
from benchmarks.cost.world import BEGIN_S, PriceTable, Vendor, World
from fleet.economy.lanes.choice import LANES, TIER_OF, Lane, LaneFacts, Way
from fleet.models import BotTask
from fleet.workers.simulator.batch.answering import BATCH

#: A model whose batches give no discount on what is read from the cache, beside one with `flex` and one without.
MODELS = (GPT_5, SONNET, replace(O3, name="o3-batches-only", flex=None, batch_cached=1.0))
#: Tokens of the shared prefix.
PREFIXES = (0, 2_000, 20_000, 100_000)
#: Tokens of a task's own.
OWN_TOKENS = 300
#: By which tasks name the shared document.
NAME = NAMES[0]
#: Calls that have taught Fleet what a lane's calls read, a minute apart.
TAUGHT = 25
#: Seconds until a batch is answered.
LATER_S = 7200.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What came of one cell.

    Args:
        model, prefix_tokens, is_warm: The cell.
        picos: What the call costs on each lane, by the ledger.
        taken: The lane that Fleet took.
    """

    model: str
    prefix_tokens: int
    is_warm: bool
    picos: Mapping[Lane, int]
    taken: Lane

    @property
    def is_cheapest(self) -> bool:
        """True when no lane would have cost less."""
        return self.picos[self.taken] == min(self.picos.values())


def choices() -> Iterator[Choice]:
    """Yield all cells."""
    for table in MODELS:
        for prefix_tokens in PREFIXES:
            for is_warm in (True, False):
                yield asyncio.run(_choice(table, prefix_tokens, is_warm=is_warm))


async def _choice(table: PriceTable, prefix_tokens: int, *, is_warm: bool) -> Choice:
    lanes: tuple[Lane, ...] = ("batch", "standard") if table.flex is None else ("batch", "flex", "standard")
    learnt, picos = dict[Way, LaneFacts](), dict[Lane, int]()
    for lane in lanes:
        way = (f"api/{table.name}", KIND, lane)
        every_s = 60.0 if is_warm and lane != "batch" else LATER_S
        learnt[way], picos[lane] = await _taught(table, prefix_tokens, lane, every_s)
    vendor = Vendor((table,), None)
    times = {f"api/{table.name}": LaneFacts(within_s=LATER_S)}
    world = World(vendor, table, documents=_documents(prefix_tokens), learnt=learnt, times=times)
    answer = await world.ask(_task(prefix_tokens, 0, by_s=BY_S), 0)
    tiers = [line["tier"] for line in vendor.ledger.report()["usage"]]
    taken = next(lane for lane in LANES if (TIER_OF[lane] or "") == (BATCH if answer is None else tiers[0]))
    return Choice(table.name, prefix_tokens, is_warm, picos, taken)


async def _taught(table: PriceTable, prefix_tokens: int, lane: Lane, every_s: float) -> tuple[LaneFacts, int]:
    """Return what calls on a lane have told the bill, as Fleet reads it there, and what one more costs (picos)."""
    vendor = Vendor((table,), None)
    vendor.tier = TIER_OF[lane]
    world = World(vendor, table, documents=_documents(prefix_tokens))
    for number in range(TAUGHT):
        vendor.now_s = BEGIN_S + every_s * number
        await world.ask(_task(prefix_tokens, number), number)
    told = vendor.ledger.report()["total"]
    sent, calls = told["input_tokens"], told["served"]
    facts = LaneFacts(
        hit=told["cached_tokens"] / sent, written=told["cache_write_tokens"] / sent,
        output_tokens=round(told["output_tokens"] / calls), calls=calls,
    )  # fmt: skip
    vendor.now_s += every_s
    await world.ask(_task(prefix_tokens, TAUGHT), TAUGHT)
    return facts, vendor.ledger.report()["total"]["billed_usd_picos"] - told["billed_usd_picos"]


def _documents(tokens: int) -> dict[str, str]:
    return {NAME: words("shared", tokens)} if tokens else {}


def _task(prefix_tokens: int, number: int, **more: Any) -> BotTask:
    context = {"context": [NAME]} if prefix_tokens else {}
    return BotTask.model_validate({"prompt": words(f"own {number}", OWN_TOKENS), "kind": KIND, **context, **more})
