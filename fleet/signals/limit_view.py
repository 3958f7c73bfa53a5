"""A limit as the Fleet tab, `fleet top` and `fleet stats` show it. How it stands is the limiter's to tell."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.frozen import Frozen

#: Whether its breaker lets calls go; `ramping`: it closed a moment ago, and calls leave at a growing pace.
BreakerState = Literal["closed", "ramping", "half-open", "open"]


class LongLimitView(Frozen):
    """A limit of more than a minute, such as `requests a day`, as the provider told it; `used` None: it did not say."""

    label: str
    used: int | None
    limit: int


class LimitView(Frozen):
    """One limit, just now."""

    limit: str
    rpm: int | None
    used_rpm: float
    tpm: int | None
    used_tpm: float
    in_flight: int
    waiting: int
    next_grant_s: float = Field(description="Seconds until the next slot is free.")
    held_s: float = Field(description="Seconds for which a 429 still holds everybody.")
    refused: int = Field(description="429s seen.")
    refused_at: float | None
    is_changed: bool = Field(description="An operator has set it live.")
    held_by: str = Field("", description="Who told of that 429, and when.")
    usd_per_day: float | None = Field(None, description="US dollars per UTC day; None: not limited.")
    used_usd: float = Field(0.0, description="Those of them that today's calls cost, or have reserved.")
    requests_per_day: int | None = Field(None, description="Requests per UTC day; None: not limited.")
    used_requests: int = Field(0, description="Those of them that are used today.")
    most_in_flight: int | None = Field(None, description="Calls at the same time; None: not limited.")
    in_flight_is_learnt: bool = Field(False, description="The provider refused one of more calls at once.")
    long: tuple[LongLimitView, ...] = Field((), description="Limits of an hour, a day or more, as the provider tells.")
    breaker: BreakerState = Field("closed", description="Whether calls go, or wait until a probe does well.")
    others_rpm: float = Field(
        0.0, description="Requests of its minute that are not ours, as the provider's headers tell."
    )
    paced_rpm: float | None = Field(None, description="Calls a minute while little of those is left.")
    budgets: tuple[str, ...] = Field((), description="Each budget of the day in words, and when it ends at this pace.")
    budget_ends: tuple[float | None, ...] = Field(
        (), description="Unix time at which each of them ends at this pace; None: it lasts the day."
    )

    @property
    def budget_ends_at(self) -> float | None:
        """Unix time at which the first of them ends; None: all last the day."""
        return min((end for end in self.budget_ends if end is not None), default=None)
