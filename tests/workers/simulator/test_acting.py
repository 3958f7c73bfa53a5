"""How a model acts as an agent's, by its name: turns, loops, fans. Pure."""

from __future__ import annotations

import random

import pytest

from fleet.workers.simulator.rich.acting import Acting, Manner, manner_of, picks
from fleet.workers.simulator.rich.wanted import OfferedTool, ToolTurns, Wanted, WireError, offered
from tests.every import every

SEARCH, WEATHER = (OfferedTool(name, {"type": "object"}) for name in ("search", "weather"))
FINAL = offered("final_result", "The final response which ends this conversation", {"type": "object"})
ORDINARY = Manner(turns=2)


def called(manner: Manner, made: int, *tools: OfferedTool, choice: str = "auto", plan: int = 7) -> list[str]:
    wanted = Wanted(tools=tools or (SEARCH, WEATHER), choice=choice, tool_turns=ToolTurns("Hello", made))
    return [pick.tool.name for pick in picks(Acting(manner, plan), wanted, random.Random(made))]


@pytest.mark.parametrize(
    ("model", "manner"),
    [("agent", Manner()), ("agent-5", Manner(turns=5)), ("agent-loop", Manner(cycle=1)),
     ("agent-loop-4", Manner(cycle=4)), ("agent-fan", Manner(turns=1, fan_out=300)),
     ("agent-fan-792", Manner(turns=1, fan_out=792)), ("agents", None), ("simulated-1", None)],
)  # fmt: skip
def test_a_models_name_says_how_it_acts(model: str, manner: Manner | None) -> None:
    assert manner_of(model, every_model=False) == manner


@pytest.mark.parametrize("model", ["agent-", "agent-lop", "agent-loop-0", "agent-1000", "agent-fan-0", "agent-5-loop"])
def test_a_name_that_only_begins_as_an_agents_is_refused_with_those_that_there_are(model: str) -> None:
    with pytest.raises(WireError, match="expected agent, agent-TURNS, agent-loop"):
        manner_of(model, every_model=False)


def test_with_agents_switched_on_every_other_model_acts_too() -> None:
    assert manner_of("simulated-1", every_model=True) == Manner()


def test_it_calls_for_its_turns_and_then_answers() -> None:
    assert every(bool(called(ORDINARY, made)) for made in (0, 1))
    assert called(ORDINARY, 2) == []


def test_turns_and_calls_by_chance_stay_within_their_bounds() -> None:
    for plan in range(50):
        turns = next(made for made in range(10) if not called(Manner(), made, plan=plan))
        assert 1 <= turns <= 5
        assert every(1 <= len(called(Manner(), made, plan=plan)) <= 3 for made in range(turns))


def test_the_final_tool_is_called_at_the_end_and_never_before() -> None:
    tools = (SEARCH, FINAL, WEATHER)
    assert every("final_result" not in called(ORDINARY, made, *tools, choice="required") for made in (0, 1))
    assert called(ORDINARY, 2, *tools, choice="required") == called(ORDINARY, 2, *tools) == ["final_result"]
    assert called(ORDINARY, 0, FINAL) == ["final_result"]


def test_where_none_is_known_for_final_a_demand_at_the_end_gets_the_last_tool() -> None:
    assert called(ORDINARY, 2, SEARCH, WEATHER, choice="required") == ["weather"]


def test_a_choice_of_the_request_comes_first() -> None:
    assert called(Manner(cycle=1), 0, choice="none") == []
    assert called(ORDINARY, 9, choice="weather") == ["weather"]


def test_a_loop_has_the_same_tool_and_arguments_for_ever_a_cycle_after_its_steps() -> None:
    assert called(Manner(cycle=1), 0) == called(Manner(cycle=1), 500) == ["search"]
    wanted = Wanted(tools=(SEARCH, WEATHER), tool_turns=ToolTurns("Hello", 500))
    seeds = [picks(Acting(Manner(cycle=1), 7), wanted, random.Random(n))[0].chance.random() for n in range(2)]
    assert seeds[0] == seeds[1]
    assert [called(Manner(cycle=4), made)[0] for made in range(5)] == [
        "search",
        "weather",
        "search",
        "weather",
        "search",
    ]


def test_a_fan_makes_all_its_calls_in_one_turn_one_where_only_one_may_come() -> None:
    fan = Manner(turns=1, fan_out=300)
    assert len(called(fan, 0)) == 300 and called(fan, 1) == []
    alone = Wanted(tools=(SEARCH,), is_parallel=False)
    assert len(picks(Acting(fan, 1), alone, random.Random(1))) == 1
