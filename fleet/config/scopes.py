"""The scope of a key: whom it serves, and how much a day (docs/keys.md). How scopes meet: `fleet/vault/scopes.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: A name, or the beginning of names: `research`, `gpt-5*`.
Pattern = Annotated[str, StringConstraints(pattern=r"^[^\s*]{0,200}\*?$", min_length=1, max_length=200)]
#: Names that are served; None: all.
Patterns = tuple[Pattern, ...] | None


class ScopeSettings(BaseModel):
    """Whom a key serves, and how much a day. What isn't set is not limited; a name that ends in `*` is a beginning."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pools: Patterns = Field(None, description="Pools that it serves.")
    bots: Patterns = Field(None, description="Bots that it serves, such as `research-0*`.")
    tenants: Patterns = Field(
        None, description="Tenants that it serves: their tasks use no other key, others never it."
    )
    models: Patterns = Field(None, description="Models that may be asked with it.")
    tools: Patterns = Field(None, description="Tools that a request with it may offer to the model.")
    hosts: Patterns = Field(None, description="Hosts that it may be sent to.")
    requests_per_day: int | None = Field(None, ge=1, le=10**9, description="Requests per day (UTC).")
    tokens_per_day: int | None = Field(None, ge=1, le=10**12, description="Tokens per day (UTC), input and output.")
    usd_per_day: float | None = Field(None, ge=0.000001, le=1e9, description="US dollars per day (UTC); needs prices.")

    def told(self) -> str:
        """Return it in words, for people; what it does not limit is left out."""
        parts = [f"{name} {', '.join(names) or 'none'}" for name in NAMED if (names := getattr(self, name)) is not None]
        parts += [f"{getattr(self, name):,} {unit} a day" for name, unit in CAPPED if getattr(self, name) is not None]
        return "; ".join(parts) or "everything"


#: What a scope limits by names, and by a number a day with its unit.
NAMED = ("pools", "bots", "tenants", "models", "tools", "hosts")
CAPPED = (("requests_per_day", "requests"), ("tokens_per_day", "tokens"), ("usd_per_day", "dollars"))
#: The scope of a key that has none.
EVERYTHING = ScopeSettings()


@dataclass(frozen=True, slots=True)
class ScopeAsk:
    """One call, as scopes see it. Empty: it is not known, or the call has none; that is not looked at, but for tenants.

    Args:
        pool: Whose call it is.
        bot: Which bot makes it.
        tenant: For whom; empty: for nobody in particular.
        model: Which model is asked.
        host: Where it is sent.
        tools: Which tools it offers to the model.
    """

    pool: str = ""
    bot: str = ""
    tenant: str = ""
    model: str = ""
    host: str = ""
    tools: tuple[str, ...] = ()


def serves(patterns: tuple[str, ...] | None, name: str) -> bool:
    """True when a name is one of those that are served; None: all are."""
    return patterns is None or any(covers(pattern, name) for pattern in patterns)


def covers(pattern: str, name: str) -> bool:
    """True when a pattern, a name or a beginning with `*`, stands for a name or for all of another pattern."""
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return pattern == name
