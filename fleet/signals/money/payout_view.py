"""Payouts as pages, metrics and the diagnosis see them: where the last one of each network stands. No payee's name."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen


class PayoutRow(Frozen):
    """The payout that is under way on a network, else the one that was prepared last there."""

    network: str
    payout: str
    kind: str = Field("evm", description="Of its network: `evm` or `tron`.")
    is_open: bool = Field(description="It has not ended.")
    payments: int = 0
    tokens: str = Field("0", description="All that it pays; every digit.")
    prepared_at: float = Field(description="Unix time (s).")
    expires_at: float = Field(description="Unix time (s) after which nobody may sign or send it.")
    moved_at: float = Field(description="Unix time (s) at which one of its transactions changed last.")
    states: dict[str, int] = Field(
        {}, description="Transactions by state: prepared, signed, broadcast, settled, failed."
    )
    in_blocks: int = Field(0, description="Those broadcast that were last seen in a block.")
    why: str = Field("", description="What is told of the first of those that is not settled; empty: nothing.")

    @property
    def unsent(self) -> int:
        """Transactions that are prepared or signed, and were not sent."""
        return self.states.get("prepared", 0) + self.states.get("signed", 0)


class AddressRow(Frozen):
    """Addresses on one network that are new or have changed, and are not paid yet."""

    network: str
    new: int = 0
    changed: int = 0
    until: float | None = Field(None, description="Unix time (s) from which the first is paid; None: not yet seen.")
    wait_s: float = Field(86_400.0, description="Seconds for which an address waits from when it is seen.")


class PayoutsView(Frozen):
    """Payouts just now."""

    rows: tuple[PayoutRow, ...] = Field((), description="By network.")
    addresses: tuple[AddressRow, ...] = Field((), description="By network; those that wait.")
    terms_hold_at: float | None = Field(
        None, description="Unix time (s) from which changed settings that guard payouts hold; None: none has changed."
    )
