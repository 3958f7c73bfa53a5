"""What people see of tenants that wait, as frozen values. Times are Unix seconds."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen

#: What tasks without a tenant are called.
NOBODY = "no tenant"


class TenantView(Frozen):
    """What waits of one tenant in one pool, of all priorities."""

    pool: str
    tenant: str = Field(description="Its name; of tasks without one `no tenant`; where it cannot be read a digest.")
    flow: str = Field(description="Digest of its name, as in the keys of Redis; `-`: of what has no tenant.")
    waiting: int
    weight: float
    share: float = Field(description="Of the pool's takes, while all of these wait (0 to 1).")
    since: float | None = Field(description="When the one that is next was queued; None: nothing tells it.")

    def waited_s(self, now_s: float) -> float | None:
        """Return for how long the one that is next has waited, s."""
        return None if self.since is None else max(0.0, now_s - self.since)


class TenantsView(Frozen):
    """Tenants that wait in pools where more than one does, or some have weights."""

    rows: tuple[TenantView, ...] = Field((), description="Those with the most tasks, the most first.")
    others: int = Field(0, description="How many more there are; at most, where there are thousands.")
    others_waiting: int = Field(0, description="Tasks of those.")
    by_pool: dict[str, int] = Field({}, description="How many tenants wait, by pool; at most, as above.")
    unused: tuple[str, ...] = Field((), description="On demand: tenants with a weight, of which nothing is known.")
