"""How healthy the bots are and whether they still answer differently, as everybody is shown it. Frozen values only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.frozen import Frozen
from fleet.signals.bot_table import BotState, TestName

#: What is done about a class of tasks; `learning`: nobody knows yet what is usual for it.
DiversityPhase = Literal["learning", "watching", "treating", "holding", "exhausted"]


class PoolHealth(Frozen):
    """The bots of one pool: how many are bad, and how many of those are out."""

    pool: str
    bots: int
    out: int = Field(description="Quarantined, by their health or by an operator.")
    most_out: int = Field(description="So many may be taken out by their health at most.")
    probation: int
    suspected: int = Field(description="At work, with evidence that is worth a look (3.0).")
    kept_in: int = Field(description="At work with enough evidence: too many are out already.")
    alike: int = Field(description="Named by an alarm, because they answer like others.")
    all_out: bool = Field(description="No bot is left: tasks wait.")
    back_at: float | None = Field(None, description="Of a pool with no bot left: when the first one comes back.")


class BotStanding(Frozen):
    """One of the worst bots: what speaks against it, why it is out, and until when."""

    bot: str
    pool: str
    state: BotState
    evidence: float
    enough: float = Field(description="Evidence that ends in a quarantine: on probation half of the usual.")
    test: TestName = Field(description="The test with the most evidence.")
    reason: str = Field(description="Why it is out, or what speaks against it.")
    since: float | None = Field(None, description="Start of its quarantine.")
    until: float | None = Field(None, description="End of its quarantine; None: not out, or until it is released.")
    by: str = Field("", description="Who took it out; health: the tests did.")
    alike: bool


class FleetHealth(Frozen):
    """Bad bots. Evidence is the logarithm of a likelihood ratio: see docs/health.md. Faults of providers add none."""

    enough: float = Field(0.0, description="Evidence that ends in a quarantine; on probation half of it does.")
    pools: tuple[PoolHealth, ...] = ()
    worst: tuple[BotStanding, ...] = Field(
        (), description="Five at most: bad ones at work, those that are out (the newest first), suspected ones."
    )


class ScoreView(Frozen):
    """One aspect of a class's newest window of answers."""

    aspect: str = Field(description="across: answers to different prompts; within: answers to one prompt.")
    score: float = Field(description="Number of really different answers.")
    usual_score: float | None = Field(None, description="Median of healthy windows; None: not known yet.")
    near_share: float = Field(description="Answers with another bot's answer near them.")
    usual_near_share: float | None = None
    fallen: bool


class ClassDiversity(Frozen):
    """Whether the bots of one class of tasks still answer differently, and what is done where they do not."""

    pool: str
    kind: str
    answers: int = Field(description="Seen so far.")
    phase: DiversityPhase
    alarm: bool = Field(description="Its bots have become alike and are not different again yet.")
    alarm_at: float | None = Field(None, description="Unix time at which the alarm was raised.")
    scores: tuple[ScoreView, ...] = ()
    share_of_usual: float | None = Field(None, description="The lowest score by what is usual; None: not known yet.")
    culprits: tuple[str, ...] = Field((), description="Bots that the alarm names; at most 8 of them.")
    flagged: int = Field(0, description="How many it names.")
    remedy: int = Field(0, description="Highest remedy that a bot is under; 0: none is.")
    treated: int = Field(0, description="Bots under a remedy.")
    control: int = Field(0, description="Flagged bots that are left as they are, to compare with.")
    treated_left: float | None = Field(None, description="While a remedy is tried: likeness by that at the alarm.")
    control_left: float | None = Field(None, description="The same of the control.")
    verdict: str = Field("", description="What came of the last trial, in words.")
    line: str = Field(description="How it stands, in one sentence.")
    advice: str = Field("", description="What to do; empty: nothing.")
