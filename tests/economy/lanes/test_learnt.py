"""What the bill tells of lanes."""

from __future__ import annotations

from fleet.economy.bill.writer import Writer
from fleet.economy.lanes.learnt import LEAST_CALLS, read_learnt
from fleet.store.client import Store, connect
from fleet.usage import Usage
from tests.economy.bill.calls import AT_S, entry, in_store


def test_hits_writes_and_lengths_come_by_model_kind_and_lane_once_there_are_enough_calls(redis_url: str) -> None:
    warm = Usage(input_tokens=1000, output_tokens=50, cached_tokens=900)
    cold = Usage(input_tokens=1000, output_tokens=70, cache_write_tokens=800)

    async def body(store: Store) -> None:
        writer = Writer(store)
        for number in range(LEAST_CALLS):
            writer.enter(entry(number, kind="sum", usage=warm))
            writer.enter(entry(1000 + number, kind="sum", usage=cold, tier="flex"))
        writer.enter(entry(5000, kind="rare", usage=warm))
        writer.enter(entry(5001, kind="sum", usage=warm, tier="turbo"))
        await writer.close()

    in_store(redis_url, body)
    with connect(redis_url) as client:
        found = read_learnt(client, AT_S + 1)
    assert {(kind, lane) for _, kind, lane in found} == {("sum", "standard"), ("sum", "flex")}
    usual, flex = (next(one for way, one in found.items() if way[2] == lane) for lane in ("standard", "flex"))
    assert (usual.hit, usual.written, usual.output_tokens, usual.calls) == (0.9, 0.0, 50, LEAST_CALLS)
    assert (flex.hit, flex.written, flex.output_tokens) == (0.0, 0.8, 70)
