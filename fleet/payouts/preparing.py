"""Preparing a slip: what a network's node says of the contract, the payer, gas and energy; and what fees will take."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

from fleet.config.payouts.tables import TEST_NETS, NetworkSettings, tokens_in_full, units_of
from fleet.payouts import evm, tron
from fleet.payouts.nodes import EvmNode, TronNode, as_answered, url_of
from fleet.payouts.refusals import CallReverted, NodeAway, PayoutRefused
from fleet.payouts.slip import Payment, Slip, Transfer
from fleet.quoting import quote

#: Gas and energy are set above their estimate by this, for balances change until a transaction runs.
HEAD_ROOM = Fraction(5, 4)
#: A unit of gas may cost this many times what it costs now, within `max_fee_gwei`.
PRICE_ROOM = 2
#: Hours for which a slip may be signed and sent. TRON takes a transaction for 24 hours at most.
EXPIRES_HOURS = 8
#: Places of a network's own coin after the point.
WEI_DECIMALS, SUN_DECIMALS = 18, 6
#: Smallest units in a gwei, and in a TRX.
GWEI, SUN = 10**9, 10**6
#: What nodes of EVM networks say of a call that the contract ends; anything else is the node's own trouble.
_REVERTED = re.compile(r"revert|vm execution|invalid opcode", re.IGNORECASE)


class SlipDraft(NamedTuple):
    """Transactions that would make some payments, and the most that they cost.

    Args:
        slip: Unsigned.
        fee: Of all transactions, in smallest units of the network's own coin: wei, or sun.
        fee_units: The same in smallest units of the token, by `native_price`.
        refused: Payee -> why no transaction can pay it now; then the slip is none: ask for one without them.
    """

    slip: Slip
    fee: int
    fee_units: int
    refused: Mapping[str, str] = MappingProxyType({})


class PayingAccount(NamedTuple):
    """What a node says of the payer and the token.

    Args:
        draft: Returns transactions for payments, asking the node what they take.
        balance: Smallest units of the token that the payer has.
        coins: Smallest units of the network's own coin that it has for fees; `coin_decimals` says what makes one.
        nonce: Of its next transaction; None where networks do not count.
    """

    draft: Callable[[Sequence[Payment]], SlipDraft]
    balance: int
    coins: int
    coin_decimals: int
    nonce: int | None


@as_answered()
def payer_of(
    name: str, network: NetworkSettings, payout: str, now_s: float, *, voids: str = "", confirmers: tuple[str, ...] = ()
) -> PayingAccount:
    """Ask a network's node about the payer and the token, and hold that against the settings.

    Raises:
        PayoutRefused: When the network, the token or the payer is not what the settings say.
        NodeAway: Without an answer.
    """
    slip = Slip(
        payout, name, network.kind, chain_id_of(name, network), network.main_net, network.token,
        network.decimals, network.payer, network.multisend, 0, 0, int(now_s), int(now_s + EXPIRES_HOURS * 3600), (),
        voids=voids, confirmers=confirmers,
    )  # fmt: skip
    if units_of(network.native_price, 18) == 0:
        raise PayoutRefused(f"expected networks.{name}.native_price, by which fees are weighed, got 0")
    if network.kind == "tron":
        return _on_tron(slip, network, TronNode(url_of(name, network)))
    return _on_evm(slip, network, EvmNode(url_of(name, network)))


@as_answered()
def chain_id_of(name: str, network: NetworkSettings) -> int:
    """Ask a network's node which network it is of: its number, on TRON the end of its first block's id.

    Raises:
        NodeAway: Without an answer.
    """
    url = url_of(name, network)
    if network.kind == "evm":
        return EvmNode(url).number("eth_chainId")
    first = str(TronNode(url).ask("wallet/getblockbynum", num=0).get("blockID", ""))
    if len(first) != 64:
        raise NodeAway(f"expected the first block from the node of networks.{name}, got none")
    return int(first[-8:], 16)


def in_tokens(native: int, native_digits: int, network: NetworkSettings) -> int:
    """Return an amount of a network's own coin in smallest units of the token, rounded up."""
    price = Fraction(network.native_price)
    return math.ceil(Fraction(native, 10**native_digits) * price * int(10**network.decimals))


def known_id(slip: Slip, transfer: Transfer) -> str:
    """Return the id that a transaction will have, where that is known before it is signed; else nothing."""
    return tron.transaction_id(tron.raw_data(slip, transfer)) if slip.kind == "tron" else ""


def check_network(name: str, network: NetworkSettings) -> str:
    """Return what a node says of a network, when that is what the settings say.

    Raises:
        PayoutRefused: It is another network, or the token has other decimals.
        NodeAway: Without an answer.
    """
    payer = payer_of(name, network, "check", 0.0)
    nonce = "" if payer.nonce is None else f", nonce {payer.nonce}"
    return f"payer has {tokens_in_full(payer.balance, network.decimals)} tokens{nonce}"


# -- EVM


def _on_evm(slip: Slip, network: NetworkSettings, node: EvmNode) -> PayingAccount:
    if slip.chain_id != network.chain_id:
        raise PayoutRefused(f"expected network {network.chain_id} at networks.{slip.network}.url, got {slip.chain_id}")
    _check_decimals(slip, node.view(network.token, evm.DECIMALS))
    slip = replace(slip, final_block=max(0, node.final_block(network.confirmations)))
    (latest, _), (pending, _) = node.ask_together(
        ("eth_getTransactionCount", [network.payer, "latest"]), ("eth_getTransactionCount", [network.payer, "pending"])
    )
    if latest != pending and not slip.voids:
        raise PayoutRefused(
            f"expected no transaction of {network.payer} on its way, got {int(pending, 16) - int(latest, 16)}: "
            "the payer is for payouts only; wait for them"
        )
    nonce = int(latest, 16)
    balance = node.view(network.token, evm.BALANCE_OF, network.payer)
    price = node.number("eth_gasPrice")
    most = units_of(network.max_fee_gwei, 9)
    if price > most:
        raise PayoutRefused(
            f"expected gas for at most {network.max_fee_gwei} gwei (networks.{slip.network}.max_fee_gwei), "
            f"got {price / GWEI:g}: wait, or raise it"
        )
    fee = min(most, PRICE_ROOM * price)
    tip, error = node.ask_together(("eth_maxPriorityFeePerGas", []))[0]
    slip = replace(slip, max_fee_per_gas=fee, max_priority_fee_per_gas=min(fee, price if error else int(tip, 16)))

    @as_answered()
    def draft(payments: Sequence[Payment]) -> SlipDraft:
        parts = evm.parted(payments, network.multisend)
        estimates = _estimates(network, node, parts, network.multisend)
        if failed := next(((part, error) for part, (_, error) in zip(parts, estimates, strict=True) if error), None):
            check_balance(slip, payments, balance)
            return SlipDraft(slip, 0, 0, _refused(network, node, payments, *failed))
        gas = [math.ceil(int(found, 16) * HEAD_ROOM) for found, _ in estimates]
        transfers = tuple(
            Transfer(part, nonce=nonce + place, gas=units)
            for place, (part, units) in enumerate(zip(parts, gas, strict=True))
        )
        fees = sum(gas) * fee
        return SlipDraft(replace(slip, transfers=transfers), fees, in_tokens(fees, WEI_DECIMALS, network))

    coins = node.number("eth_getBalance", network.payer, "latest")
    return PayingAccount(draft, balance, coins, WEI_DECIMALS, nonce)


def _estimates(
    network: NetworkSettings, node: EvmNode, parts: Sequence[Sequence[Payment]], multisend: str | None
) -> list[tuple[Any, str | None]]:
    """Return what each part takes as one transaction, or what is wrong with it."""
    calls = [
        {"from": network.payer, "to": multisend or network.token, "data": evm.data_of(part, network.token, multisend)}
        for part in parts
    ]
    return node.ask_together(*(("eth_estimateGas", [call]) for call in calls)) if calls else []


def _refused(
    network: NetworkSettings, node: EvmNode, payments: Sequence[Payment], part: Sequence[Payment], wrong: str
) -> dict[str, str]:
    """Return payee -> why it cannot be paid, asked as it would be paid: alone, else as the one with whom a part fails.

    Raises:
        PayoutRefused: It is none of them.
    """
    why_not = _why_not(network, node, payments)
    if why_not or not _REVERTED.search(wrong):
        raise PayoutRefused(f"expected payments that go through, got {wrong}{why_not}")
    alone = _estimates(network, node, [[payment] for payment in payments], network.multisend)
    refused = {
        payment.payee: quote(error)
        for payment, (_, error) in zip(payments, alone, strict=True)
        if error is not None and _REVERTED.search(error)
    }
    if refused:
        return _unless_all(refused, payments)
    if len(part) == 1 or any(error is not None for _, error in alone):
        raise PayoutRefused(f"expected payments that go through, got {wrong}")
    return {_first_not_with_others(network, node, part).payee: _NOT_WITH_OTHERS.format(quote(wrong))}


def _first_not_with_others(network: NetworkSettings, node: EvmNode, part: Sequence[Payment]) -> Payment:
    """Return the payment with which a part begins to fail, by halves: all before it go through together.

    Raises:
        PayoutRefused: The node says something else than that it would be reverted.
    """
    passes, fails = 1, len(part)
    while fails - passes > 1:
        half = (passes + fails) // 2
        ((_, error),) = _estimates(network, node, [part[:half]], network.multisend)
        if error is not None and not _REVERTED.search(error):
            raise PayoutRefused(f"expected payments that go through, got {error}")
        passes, fails = (half, fails) if error is None else (passes, half)
    return part[fails - 1]


def _why_not(network: NetworkSettings, node: EvmNode, payments: Sequence[Payment]) -> str:
    units = sum(payment.units for payment in payments)
    if network.multisend is None:
        return ""
    allowed = node.view(network.token, evm.ALLOWANCE, network.payer, network.multisend)
    if allowed >= units:
        return ""
    return (
        f": the contract {network.multisend} may move {tokens_in_full(allowed, network.decimals)} tokens of the payer "
        f"and would need {tokens_in_full(units, network.decimals)}; approve it with the payer's wallet"
    )


def void_of(slip: Slip, network: NetworkSettings, payout: str, now_s: float) -> Slip:
    """Return a slip that pays nobody and uses up the nonces of another one that no block has.

    Raises:
        PayoutRefused: On TRON, where a slip ends by itself.
    """
    if slip.kind == "tron":
        raise PayoutRefused(
            f"expected a slip of a network that counts, got one of TRON: it ends by itself at {slip.expires_s} (Unix "
            "time), and `fleet payouts check` sees that"
        )
    payer = payer_of(slip.network, network, payout, now_s, voids=slip.id)
    bare = payer.draft(()).slip
    fee = max(bare.max_fee_per_gas, math.ceil(slip.max_fee_per_gas * HEAD_ROOM))  # nodes want 10% more to replace one
    transfers = tuple(
        Transfer((), nonce=one.nonce, gas=evm.PLAIN_GAS) for one in slip.transfers if one.nonce >= (payer.nonce or 0)
    )
    if not transfers:
        raise PayoutRefused(f"expected nonces of payout {slip.id} that are free, got none: `fleet payouts check`")
    return replace(bare, max_fee_per_gas=fee, max_priority_fee_per_gas=fee, transfers=transfers)


# -- TRON


def _on_tron(slip: Slip, network: NetworkSettings, node: TronNode) -> PayingAccount:
    if slip.chain_id not in TEST_NETS and not network.main_net:
        raise PayoutRefused(
            f"expected Nile or Shasta, the test networks, at networks.{slip.network}.url, got network {slip.chain_id}; "
            "for real money set main_net"
        )
    decimals, _ = node.view(network.payer, network.token, "decimals()", "")
    _check_decimals(slip, decimals)
    holder = evm.word(tron.address_bytes(network.payer)[1:].hex())
    balance, _ = node.view(network.payer, network.token, "balanceOf(address)", holder)
    prices = node.parameters()
    left = _resources(network, node)

    @as_answered()
    def draft(payments: Sequence[Payment]) -> SlipDraft:
        head = node.ask("wallet/getnowblock")
        block, stamp = str(head["blockID"]), int(head["block_header"]["raw_data"]["timestamp"])
        transfers, burnt, energy_left = [], 0, left
        refused, dear = dict[str, str](), dict[str, str]()
        for place, payment in enumerate(payments):
            try:
                _, energy = node.view(
                    network.payer, network.token, "transfer(address,uint256)",
                    tron.call_data(payment.to, payment.units)[8:],
                )  # fmt: skip
            except CallReverted as reverted:
                refused[payment.payee] = str(reverted)
                continue
            most = math.ceil(energy * HEAD_ROOM) * prices["getEnergyFee"]
            if most > units_of(network.max_fee_trx, 6):
                dear[payment.payee] = (
                    f"its transfer may burn {most / SUN:g} TRX, more than networks.{slip.network}.max_fee_trx, "
                    f"{network.max_fee_trx}: rent energy, or raise it"
                )
                continue
            transfer = Transfer(
                (payment,), gas=most, ref_block_bytes=block[12:16], ref_block_hash=block[16:32],
                expiration_ms=stamp + EXPIRES_HOURS * 3_600_000, timestamp_ms=stamp + place,
            )  # fmt: skip
            transfers.append(transfer)
            paid = max(0, math.ceil(energy * HEAD_ROOM) - energy_left)
            energy_left = max(0, energy_left - math.ceil(energy * HEAD_ROOM))
            burnt += paid * prices["getEnergyFee"]
            burnt += tron.bandwidth_of(tron.raw_data(slip, transfer)) * prices["getTransactionFee"]
        if refused:
            check_balance(slip, payments, balance)
        if refused or dear:
            return SlipDraft(slip, 0, 0, {**_unless_all(refused, payments), **dear})
        return SlipDraft(replace(slip, transfers=tuple(transfers)), burnt, in_tokens(burnt, SUN_DECIMALS, network))

    account = node.ask("wallet/getaccount", address=tron.address_bytes(network.payer).hex())
    return PayingAccount(draft, balance, int(account.get("balance", 0)), SUN_DECIMALS, None)


def _resources(network: NetworkSettings, node: TronNode) -> int:
    """Return the energy that the payer has from its stake or rent."""
    found = node.ask("wallet/getaccountresource", address=tron.address_bytes(network.payer).hex())
    return max(0, int(found.get("EnergyLimit", 0)) - int(found.get("EnergyUsed", 0)))


#: Why a payee waits whose transfer alone would be reverted, and one whose transfer is only with others.
_REFUSES = "the token refuses its address: {}"
_NOT_WITH_OTHERS = "together with the others its payment is refused, and theirs with it: {}"


def _unless_all(refused: Mapping[str, str], payments: Sequence[Payment]) -> dict[str, str]:
    """Return who cannot be paid, unless nobody can: then it may be the token or the payer, and nobody is accused.

    Raises:
        PayoutRefused: With what the token says.
    """
    if refused and len(refused) == len(payments):
        who = "the only payee" if len(payments) == 1 else "the payees"
        raise PayoutRefused(
            f"expected payments that go through, got none that does: {next(iter(refused.values()))}: the token may be "
            f"paused, or refuse the payer or {who}"
        )
    return {payee: _REFUSES.format(why) for payee, why in refused.items()}


def check_balance(slip: Slip, payments: Sequence[Payment], balance: int) -> None:
    """Refuse payments of more than the payer has.

    Raises:
        PayoutRefused: With both amounts.
    """
    units = sum(payment.units for payment in payments)
    if units > balance:
        raise PayoutRefused(
            f"expected {tokens_in_full(units, slip.decimals)} tokens with the payer, got "
            f"{tokens_in_full(balance, slip.decimals)}: send it some"
        )


def _check_decimals(slip: Slip, decimals: int) -> None:
    if decimals != slip.decimals:
        raise PayoutRefused(
            f"expected networks.{slip.network}.decimals as its contract has them, {decimals}, got {slip.decimals}: all "
            f"would be wrong by 10^{abs(decimals - slip.decimals)}"
        )
