"""The tables of payouts: what an accepted task earns, to whom, and on which network that is paid (docs/payouts.md).

Only the form of addresses is checked here; what a contract says of itself is read by `fleet payouts check`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from fleet.config.sections import Section
from fleet.quoting import nearest, quote

#: Places after the point of a token at most: those of ERC-20 tokens are a byte, and none has more than 36.
MOST_DECIMALS = 36
#: Hours that payees wait at most: a year. More is a typing error.
MOST_HOURS = 8760
#: How addresses of each kind are written.
NetworkKind = Literal["evm", "tron"]
_AMOUNT = re.compile(rf"[0-9]{{1,40}}(\.[0-9]{{1,{MOST_DECIMALS}}})?")
_EVM = re.compile(r"0x[0-9a-fA-F]{40}")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
#: First byte of every address of TRON, and bytes of one with its checksum.
_TRON_BYTE, _TRON_BYTES = 0x41, 25


def _is_amount(text: str) -> str:
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f'expected whole tokens and parts as a string, such as "0.01", got {quote(text)}')
    return text


#: Tokens as people write them, exact: never a float.
Amount = Annotated[str, AfterValidator(_is_amount)]


class EarnSettings(Section):
    """What one accepted task earns the payee of its bot. The first of these lines that fits a task holds."""

    pool: str = Field("*", description="Of tasks of this pool; `*`: of any.")
    kind: str = Field("*", description="Of tasks of this kind; `*`: of any.")
    tenant: str = Field("*", description="Of tasks of this tenant; `*`: of any.")
    price: Amount = Field("0", description='Tokens for one task, as a string: "0.01". It must fit the token exactly.')

    def fits(self, pool: str, kind: str, tenant: str) -> bool:
        """True for tasks that earn this price."""
        return all(own in ("*", of) for own, of in ((self.pool, pool), (self.kind, kind), (self.tenant, tenant)))


class PayoutSettings(Section):
    """When earnings are paid. Nobody earns anything without at least one [[payouts.earn]]."""

    earn: tuple[EarnSettings, ...] = Field((), description="What tasks earn, the first line that fits.")
    threshold: Amount = Field("10", description="Tokens from which on a payee is paid; below, it is carried on.")
    every_hours: float = Field(
        168.0, ge=0, le=MOST_HOURS,
        description="Hours between two payouts on one network at least; a year at most.",
    )  # fmt: skip
    max_fee_share: float = Field(
        0.02, gt=0, le=1, description="Share of a payout that its fees may take; who would cost more waits."
    )
    address_wait_hours: float = Field(
        24.0, ge=0, le=MOST_HOURS,
        description="Hours for which a payee whose address is new or has changed is not paid; a year at most.",
    )  # fmt: skip
    revocable_days: int = Field(
        30, ge=1, le=400, description="Days for which it is known what a task has earned, so that it can be revoked."
    )
    pay_simulated: bool = Field(False, description="Whether answers of the simulator earn, too: for tests.")
    confirmers: tuple[str, ...] = Field(
        (),
        description="Addresses (0x...): one of them, not the signer, must confirm a payout. Empty: nobody.",
    )


class NetworkSettings(Section):
    """A network and the token that is paid there. Test networks only, unless `main_net` says otherwise."""

    kind: NetworkKind = Field("evm", description="`evm` (BEP-20 and every ERC-20), or `tron` (TRC-20).")
    url: SecretStr | None = Field(None, description="Of a node: JSON-RPC, or the HTTP API of a full node of TRON.")
    chain_id: int = Field(97, ge=1, description="The network's id: 97 is BSC's test network, 56 BSC. Not for `tron`.")
    main_net: bool = Field(False, description="Real money: without it, only ids of known test networks are taken.")
    token: str = Field("", description="Address of the token's contract.")
    decimals: int = Field(
        18, ge=0, le=MOST_DECIMALS, description="Places of the token after the point; held against the contract's own."
    )
    payer: str = Field("", description="Address that pays, used for nothing else.")
    multisend: str | None = Field(
        None, description="Address of a contract with disperseTokenSimple(address,address[],uint256[]). Not for `tron`."
    )
    max_fee_gwei: Amount = Field("5", description="Most that a unit of gas may cost, in gwei. Not for `tron`.")
    max_fee_trx: Amount = Field("30", description="Most that one transfer may burn, in TRX. Only for `tron`.")
    native_price: Amount = Field("0", description="Tokens that one BNB, ETH or TRX costs: what fees are weighed by.")
    confirmations: int = Field(
        15, ge=1, description="Blocks upon a payment's own, where the node tells of no final block."
    )

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        for name, value in (("token", self.token), ("payer", self.payer), ("multisend", self.multisend or "")):
            if value and (wrong := wrong_address(self.kind, value)):
                raise ValueError(f"{name}: {wrong}")
        if not self.token or not self.payer:
            raise ValueError(f"expected token and payer, got no {'payer' if self.token else 'token'}")
        if self.kind == "tron" and self.multisend:
            raise ValueError("expected no multisend with kind tron: payments there are transfers")
        if self.kind == "evm" and self.chain_id not in TEST_NETS and not self.main_net:
            known = ", ".join(str(one) for one in sorted(TEST_NETS))
            raise ValueError(
                f"expected the id of a known test network ({known}), got {self.chain_id}; all others count as real "
                "money, which needs main_net = true"
            )
        return self


#: Ids of networks whose tokens are surely no money; every other network is taken for one of real money. The last two
#: are TRON's Nile and Shasta: the end of the id of their first block.
TEST_NETS = frozenset(
    {97, 1337, 31_337, 17_000, 80_002, 84_532, 421_614, 11_155_111, 11_155_420, 3_448_148_188, 2_494_104_990}
)


class PayeeSettings(Section):
    """Who is paid for what some bots do. Of several whose patterns name a bot, the first is its payee."""

    bots: tuple[str, ...] = Field((), min_length=1, description='Names of bots, `*` for any part: ["research-*"].')
    network: str = Field("", description="Name of a table under [networks].")
    address: str = Field("", description="Where to; a new or changed one waits, see payouts.address_wait_hours.")
    threshold: Amount | None = Field(None, description="Instead of payouts.threshold.")


def wrong_address(kind: NetworkKind, address: str) -> str | None:
    """Return what is wrong with an address; None: nothing that can be seen without its checksum in mixed case."""
    if kind == "evm":
        return None if _EVM.fullmatch(address) else f"expected 0x and 40 hexadecimal digits, got {quote(address)}"
    if tron_bytes(address) is None:
        return f"expected an address of TRON (T and 33 characters with a right checksum), got {quote(address)}"
    return None


def tron_bytes(address: str) -> bytes | None:
    """Return the 21 bytes of an address of TRON, without its checksum; None: it is not one."""
    number = 0
    for char in address:
        place = _BASE58.find(char)
        if place < 0:
            return None
        number = number * 58 + place
    if number >= 256**_TRON_BYTES:
        return None
    raw = number.to_bytes(_TRON_BYTES, "big")
    body, checksum = raw[:-4], raw[-4:]
    is_right = hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4] == checksum
    return body if is_right and body[0] == _TRON_BYTE and len(address) == 34 else None


def tron_address(body: bytes) -> str:
    """Return how 21 bytes are written as an address of TRON."""
    number = int.from_bytes(body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4], "big")
    text = ""
    while number:
        number, place = divmod(number, 58)
        text = _BASE58[place] + text
    return text


def units_of(amount: str, decimals: int) -> int:
    """Return tokens as a whole number of the smallest unit.

    Raises:
        ValueError: When the token has no such small part.
    """
    units = Fraction(amount) * 10**decimals
    if units.denominator != 1:
        raise ValueError(f"expected at most {decimals} places after the point, got {quote(amount)}")
    return int(units)


def tokens_in_full(units: int, decimals: int) -> str:
    """Return smallest units as tokens with every digit: `0.01`."""
    whole, rest = divmod(abs(units), 10**decimals)
    digits = f"{rest:0{decimals}d}".rstrip("0") if decimals and rest else ""
    return f"{'-' if units < 0 else ''}{whole}{'.' if digits else ''}{digits}"


def check_payouts(
    payouts: PayoutSettings,
    networks: Mapping[str, NetworkSettings],
    payees: Mapping[str, PayeeSettings],
    pools: Iterable[str],
) -> None:
    """Refuse tables that do not fit each other.

    Raises:
        ValueError: Naming the table.
    """
    known = tuple(pools)
    for confirmer in payouts.confirmers:
        if wrong := wrong_address("evm", confirmer):
            raise ValueError(f"payouts.confirmers: {wrong} (as `fleet payouts key` shows it for evm)")
    for line in payouts.earn:
        if line.pool != "*" and line.pool not in known:
            raise ValueError(
                f"payouts.earn: expected a pool that there is, got {quote(line.pool)}; {nearest(line.pool, known)}"
            )
    for name in (*networks, *payees):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise ValueError(f"networks, payees: expected a name of letters, digits, . - and _, got {quote(name)}")
    _check_accounts(networks)
    for name, payee in payees.items():
        network = networks.get(payee.network)
        if network is None:
            raise ValueError(
                f"payees.{name}.network: expected a table of [networks], got {quote(payee.network)}; "
                f"{nearest(payee.network, networks)}"
            )
        if wrong := wrong_address(network.kind, payee.address) or _not_an_owners(network, payee.address):
            raise ValueError(f"payees.{name}.address: {wrong}")
        for where, amount in (
            *(("payouts.earn.price", line.price) for line in payouts.earn),
            (f"payees.{name}.threshold", payee.threshold or payouts.threshold),
        ):
            try:
                units_of(amount, network.decimals)
            except ValueError as error:
                raise ValueError(f"{where}: {error} on network {payee.network}") from None


def _not_an_owners(network: NetworkSettings, address: str) -> str | None:
    """Return what is wrong with an address that no owner of bots has: tokens there are lost, or refused."""
    zero = tron_address(bytes([_TRON_BYTE]) + bytes(20)) if network.kind == "tron" else f"0x{0:040x}"
    ours = {zero: "nobody's", network.token: "the token's", network.payer: "the payer's"}
    ours |= {network.multisend: "the multisend contract's"} if network.multisend else {}
    small = network.kind == "evm"
    found = {own.lower() if small else own: whose for own, whose in ours.items()}
    whose = found.get(address.lower() if small else address)
    return f"expected the address of an owner of bots, got {whose}, {address}" if whose else None


def _check_accounts(networks: Mapping[str, NetworkSettings]) -> None:
    """Refuse two tables for one account of a chain: a payout under way on one would not keep the other from its nonces.

    Raises:
        ValueError: Naming both.
    """
    names: dict[tuple[int, str], str] = {}
    for name, network in networks.items():
        if network.kind != "evm":
            continue  # TRON counts no nonces
        other = names.setdefault((network.chain_id, network.payer.lower()), name)
        if other != name:
            raise ValueError(
                f"networks.{name}: expected one table for chain {network.chain_id} and payer {network.payer}, got "
                f"networks.{other} too: give each a payer of its own"
            )
