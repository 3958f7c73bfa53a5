"""How all bots of a pool stand, in columns: what each says alone."""

from __future__ import annotations

import redis
from hypothesis import given
from hypothesis import strategies as st

from fleet.roster import PoolBots, bot_health_of, health_rows_of, quarantine, read_reasons
from fleet.roster import health_rows as module
from fleet.roster.health import HEAD_BYTES, ROW
from fleet.store import keys
from fleet.store.client import connect

evidence = st.floats(0, 12, width=32)
rows = st.lists(
    st.tuples(evidence, evidence, evidence, *[st.integers(0, 255)] * 4, st.integers(0, 99), *[st.integers(0, 15)] * 3),
    max_size=5,
)


@given(rows=rows, missing=st.integers(0, 3))
def test_the_columns_say_of_each_bot_what_its_own_row_says(rows: list[tuple[float, ...]], missing: int) -> None:
    packed = [ROW.pack(row) for row in rows]
    raw = bytes(HEAD_BYTES) + ROW.pack((9, 9, 9, 255, 255, 255, 0, 0, 0, 5, 5)) + b"".join(packed)  # number 0 is nobody
    columns = health_rows_of(raw, len(rows) + missing)
    alone = [bot_health_of(row) for row in (*packed, *[b""] * missing)]
    assert columns.evidence == tuple(round(max(one.evidence), 1) for one in alone)
    assert [number and one.evidence[number - 1] for number, one in zip(columns.test, alone, strict=True)] == [
        max(one.evidence) for one in alone
    ]
    for place, percents in enumerate(columns.percents):
        assert percents == tuple(round(100 * one.rates[place]) for one in alone)
    assert columns.faults == {place: one.fault for place, one in enumerate(alone) if one.fault}


def test_a_pool_that_was_never_judged_stands_well() -> None:
    assert health_rows_of(b"", 2) == ((0.0, 0.0), (0, 0), ((0, 0), (0, 0), (0, 0)), {})


def test_reasons_are_asked_for_only_when_bots_are_out_and_only_so_many(redis_url: str) -> None:
    with connect(redis_url) as client:
        assert read_reasons(client, {"p": PoolBots({}, 0, {}, ())}) == {}
        for number in range(3):
            client.zadd(keys.bots("p"), {f"p-00{number}": 0})
            quarantine(client, "p", f"p-00{number}", by="me|x", reason=f"odd | {number}", for_s=60)
        out = {f"p-00{number}": 1.5 for number in range(3)}
        stand = {"p": PoolBots({}, 0, out, ()), "q": PoolBots({}, 0, {"q-001": None}, ())}
        found = read_reasons(client, stand)
        assert (found["p-001"].reason, found["p-001"].by, found["p-001"].until) == ("odd | 1", "me/x", 1.5)
        assert found["q-001"].reason == ""  # its key is gone
        assert _asked(client, stand, most=2) == ["p-000", "p-001"]


def _asked(client: redis.Redis, stand: dict[str, PoolBots], *, most: int) -> list[str]:
    before, module.MOST_REASONS = module.MOST_REASONS, most
    try:
        return list(read_reasons(client, stand))
    finally:
        module.MOST_REASONS = before
