"""How a model behaves as the mind of an agent: it calls the tools that it is offered for some turns, then answers.

Off unless the model's name asks for it (`agent`, `agent-5`, `agent-loop`, `agent-fan`) or every model is to act. How
many turns and which calls follow from the seed and from what the user said, so a repeated run takes the same road.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from fleet.workers.simulator.rich.wanted import OfferedTool, Wanted, WireError

#: What the names of such models begin with.
NAME = "agent"
#: Turns with calls before the answer, by chance, and calls of one turn, unless the name says otherwise.
MOST_TURNS, MOST_CALLS = 5, 3
#: Calls of the first turn of a model that fans out.
FAN_OUT = 300
#: Share of the turns with calls that also say something.
TALKATIVE = 0.25

_NAMED = re.compile(r"agent(?:-(?P<turns>\d{1,3})|-loop(?:-(?P<steps>[1-9]))?|-fan(?:-(?P<calls>[1-9]\d{0,2}))?)?")


class Manner(NamedTuple):
    """How a model acts.

    Args:
        turns: Turns with calls before the answer; None: 1 to 5, by chance.
        cycle: It never answers, but makes this many calls again and again, one a turn; 0: it does answer.
        fan_out: Calls of the first turn; 0: one to three, by chance.
    """

    turns: int | None = None
    cycle: int = 0
    fan_out: int = 0


class Acting(NamedTuple):
    """The manner of one run, and a number that decides what its turns have in common."""

    manner: Manner
    plan: int


class ToolPick(NamedTuple):
    """A tool that is to be called, and what decides its arguments."""

    tool: OfferedTool
    chance: random.Random


def manner_of(model: str, *, every_model: bool) -> Manner | None:
    """Return how a model acts; None for one that is no agent's.

    Raises:
        WireError: For a name that begins as theirs do and is none.
    """
    if not (model == NAME or model.startswith(f"{NAME}-")):
        return Manner() if every_model else None
    named = _NAMED.fullmatch(model)
    if named is None:
        raise WireError(
            "model: expected agent, agent-TURNS, agent-loop, agent-loop-STEPS, agent-fan or agent-fan-CALLS (turns up "
            "to 999, steps up to 9, calls up to 999), got another name that begins with agent-",
            param="model",
        )
    if "-loop" in model:
        return Manner(cycle=int(named["steps"] or 1))
    if "-fan" in model:
        return Manner(turns=1, fan_out=int(named["calls"] or FAN_OUT))
    return Manner(turns=None if named["turns"] is None else int(named["turns"]))


def picks(acting: Acting, wanted: Wanted, chance: random.Random) -> list[ToolPick]:
    """Return what is called in this turn; nothing when it is time for the answer as text.

    Args:
        acting: How it acts.
        wanted: What is asked: its tools, and how many turns there were.
        chance: Decides what differs between turns.
    """
    manner, plan = acting
    working = [tool for tool in wanted.tools if not tool.is_final]
    if wanted.choice == "none" or not wanted.tools:
        return []
    if wanted.choice not in ("auto", "required"):
        return [ToolPick(tool, chance) for tool in wanted.tools if tool.name == wanted.choice]
    made = wanted.tool_turns.made
    if manner.cycle and working:
        step = made % manner.cycle
        return [ToolPick(working[step % len(working)], random.Random(plan + step))]
    if working and made < (1 + plan % MOST_TURNS if manner.turns is None else manner.turns):
        count = manner.fan_out if manner.fan_out and not made else chance.randint(1, MOST_CALLS)
        return [ToolPick(chance.choice(working), chance) for _ in range(count if wanted.is_parallel else 1)]
    finals = [tool for tool in wanted.tools if tool.is_final]
    if not finals and wanted.choice == "required":
        finals = working[-1:]  # frameworks put the tool that is the answer last
    return [ToolPick(tool, chance) for tool in finals[:1]]
