"""Where a pool's next call goes, told by the rule and the ladder of its workers, whatever else the ladder holds."""

from __future__ import annotations

import pytest

from fleet.config import PersonaSettings, PoolSettings, RungSettings, Settings
from fleet.engine.operations.ladders import TEXT, apis_of, next_limit
from fleet.waits import Wait

SMALL, LATER = RungSettings(model="small"), RungSettings(answer="Later.")
OUTAGE = Wait("outage")


def a_pool(*below: RungSettings, models: tuple[str, ...] = (), candidates: tuple[str, ...] = ()) -> Settings:
    persona = PersonaSettings(models=models)
    return Settings(pools={"a": PoolSettings(model="own", persona=persona, candidates=candidates, fallback=below)})


def next_of(settings: Settings, *shut: str) -> str | Wait | None:
    """Return the model that is asked next, or what `next_limit` does; these models' APIs are down."""
    down = {f"simulator/{model}/default" for model in shut}
    found = next_limit("a", settings, lambda limit: OUTAGE if limit in down else None)
    return found.split("/")[1] if isinstance(found, str) else found


@pytest.mark.parametrize(
    ("settings", "shut", "expected"),
    [
        pytest.param(a_pool(SMALL, LATER), (), "own", id="its own"),
        pytest.param(a_pool(SMALL, LATER), ("own",), "small", id="the rung below"),
        pytest.param(a_pool(SMALL, LATER), ("own", "small"), None, id="a text is called under no limit"),
        pytest.param(a_pool(LATER, models=("own", "other")), ("own",), "other", id="another model stands in"),
        pytest.param(a_pool(LATER, models=("own", "other")), ("own", "other"), None, id="and then the text"),
        pytest.param(a_pool(SMALL, models=("own", "other")), ("own", "other"), "small", id="and then the rung"),
        pytest.param(a_pool(models=("own", "other")), ("own",), "other", id="another model without a ladder"),
        pytest.param(a_pool(candidates=("new",)), ("own",), OUTAGE, id="a candidate stands in for none"),
        pytest.param(a_pool(SMALL), ("own", "small"), OUTAGE, id="all wait"),
    ],
)
def test_the_next_call_goes_where_workers_send_it(
    settings: Settings, shut: tuple[str, ...], expected: str | Wait | None
) -> None:
    assert next_of(settings, *shut) == expected


def test_rungs_are_named_in_their_order_and_other_models_are_none() -> None:
    below = (SMALL, LATER)
    expected = ("simulator/own", "simulator/small", TEXT)
    assert apis_of("a", a_pool(*below)) == apis_of("a", a_pool(*below, models=("own", "other"))) == expected
