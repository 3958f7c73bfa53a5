"""`python -m tests.payouts --check`: payouts on a real EVM node, TRON's bytes against tronweb's, and what fees take.

Needs node and two npm packages, which the default tests do not: npm install @foundry-rs/anvil tronweb
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import redis

from fleet import config
from fleet.earnings.ledger import rows_ever
from fleet.payouts.book import PayoutBook, read_payouts
from fleet.payouts.netting import dues
from fleet.payouts.preparing import in_tokens
from fleet.payouts.slip import read_slip
from fleet.store.client import connect
from tests.payouts.anvil import GAS_PRICE, Anvil, program, running
from tests.payouts.faulty import Door, door_to
from tests.payouts.purse import PAYER, Dying, Round, earn, fleet, key_file, payees, write_settings
from tests.payouts.test_tron import bytes_of
from tests.payouts.tronweb import asked, written_by_tronweb
from tests.redis_server import RedisServer

#: What is claimed: the figures of --check.
CRASHES, REORGS, TRON, TASKS, PAYEES = 100, 10, 1000, 10_000, 50
#: Dollars of a BNB, and dollars of one token, by which fees are weighed.
BNB_USD = "900"
FEE_SHARE = 0.02
INSTALL = "npm install @foundry-rs/anvil tronweb, and say the folder with --npm FOLDER"


class Bench:
    """A folder with settings, a Redis and anvil behind a bad door."""

    def __init__(self, folder: Path, client: redis.Redis, anvil: Anvil, door: Door, *, count: int) -> None:
        self.folder, self.client, self.anvil, self.door = folder, client, anvil, door
        self.addresses = payees(count)
        self.first_nonce = anvil.nonce
        key_file(folder)

    def configure(self, **payouts: Any) -> None:
        network = {"url": self.door.url, "chain_id": 31_337, "token": self.anvil.token, "payer": PAYER["evm"],
                   "multisend": self.anvil.multisend, "native_price": BNB_USD}  # fmt: skip
        write_settings(self.folder, network, self.addresses, payouts)

    def wrong(self) -> tuple[int, int]:
        """Return smallest units that were paid beyond what was earned, and that were earned and not paid."""
        earned = Counter[str]()
        for row, count in rows_ever(self.client).items():
            earned[row.payee] += row.units * count
        gaps = [
            self.anvil.balance(address) - earned[f"p{number:03d}"] for number, address in enumerate(self.addresses, 1)
        ]
        return sum(max(0, gap) for gap in gaps), sum(max(0, -gap) for gap in gaps)

    def drain(self, round_: Round) -> None:
        """Pay all that is due, undisturbed."""
        self.door.trouble = 0.0
        while PayoutBook(self.client).open_on("test") or dues(
            rows_ever(self.client), PayoutBook(self.client).netted(), ()
        ):
            round_.step(mortal=False)
            self.anvil.mine(3)


def crashed(bench: Bench, crashes: int, reorgs: int, seed: int) -> dict[str, int]:
    """Kill commands at random steps and take blocks back, with a bad node, until it was often enough; then drain."""
    bench.configure(threshold="0", max_fee_share=1.0)
    bench.door.trouble = 0.2
    luck, dying = random.Random(seed), Dying(seed=seed)
    round_ = Round(bench.folder, bench.client, dying, nonce=bench.first_nonce)
    done, taken_back = Counter[str](), 0
    while dying.crashes < crashes or taken_back < reorgs:
        if luck.random() < 0.2 or PayoutBook(bench.client).open_on("test") is None:
            earn(bench.client, config.current(), 25, bots=len(bench.addresses), prefix=f"c{sum(done.values())}-")
        done[round_.step(mortal=dying.crashes < crashes)] += 1
        if not luck.randrange(40):
            round_.void()
        if not luck.randrange(3):
            bench.anvil.mine()
            block = _seen_in_a_block(bench, round_)
            if block is not None and luck.random() < 0.5 and bench.anvil.reorganise(block):
                taken_back += 1
                done[round_.step(mortal=False)] += 1
            else:
                bench.anvil.mine(luck.randrange(3))
        if sys.stderr.isatty():
            print(f"\r{dying.crashes} crashes, {taken_back} reorganisations", end="", file=sys.stderr)
    bench.drain(round_)
    twice, forgotten = bench.wrong()
    standings = [one for record in read_payouts(bench.client) for one in record.standings]
    states, replaced = Counter(one.state for one in standings), sum("nonce went to" in one.why for one in standings)
    print(f"# killed in {dict(dying.deaths)}; answers {dict(bench.door.fates)}")
    print(f"# transactions {dict(states)}, of which {replaced} lost their nonce to another one")
    return {"crashes": dying.crashes, "twice": twice, "forgotten": forgotten, "reorgs": taken_back}


def _seen_in_a_block(bench: Bench, round_: Round) -> int | None:
    """Return the block that is not final in which a payment under way is, as the product itself has seen."""
    payout = PayoutBook(bench.client).open_on("test")
    if payout is None:
        return None
    round_.step(mortal=False)
    standings = PayoutBook(bench.client).read(payout).standings
    return next((one.block for one in standings if one.state == "broadcast" and one.block is not None), None)


def fees(bench: Bench) -> float:
    """Pay 10,000 tasks of $0.01 to 50 payees, and return the share of the payments that the fees have taken."""
    bench.configure(threshold="1", max_fee_share=FEE_SHARE)
    earn(bench.client, config.current(), TASKS, bots=PAYEES, prefix="f")
    folder = bench.folder
    words = ("--key", key_file(folder), "--passphrase-file", folder / "passphrase", "-o", folder / "fees.signed")
    fleet("prepare", "test", "-o", folder / "fees.slip", "--now", "--nonce", bench.first_nonce)
    fleet("sign", folder / "fees.slip", *words)
    fleet("send", folder / "fees.signed")
    bench.anvil.mine(4)
    fleet("check")
    slip = read_slip(folder / "fees.signed")
    wei = bench.anvil.gas_spent([one.id for one in slip.signed])
    bound = sum(one.gas for one in slip.transfers) * slip.max_fee_per_gas
    network = config.current().networks["test"]
    spent, most = (float(Fraction(in_tokens(amount, 18, network), slip.units)) for amount in (wei, bound))
    print(
        f"# {TASKS} tasks of $0.01, {len(list(slip.payments))} payees, {len(slip.transfers)} transactions: gas at "
        f"{GAS_PRICE / 1e9:g} gwei, BNB ${BNB_USD}: ${wei / 1e18 * float(BNB_USD):.4f}, bound: {most:.4f} of it all"
    )
    if bench.wrong() != (0, 0) or most > FEE_SHARE:
        raise SystemExit(f"expected all paid within the fees, got {bench.wrong()}, bound {most:.4f}")
    return spent


def with_bench(anvil: Path, count: int, seed: int, work: Any) -> Any:
    """Run work on a Redis, a node and a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="payouts") as name:
        folder = Path(name)
        server = RedisServer(folder)
        os.environ.update(
            FLEET_REDIS__URL=server.url, FLEET_CONFIG=str(folder / "fleet.toml"), FLEET_HOME=str(folder / "home")
        )
        try:
            with (
                running(anvil, folder) as node,
                door_to(node.execute, seed=seed) as door,
                connect(server.url) as client,
            ):
                return work(Bench(folder, client, node, door, count=count))
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.payouts", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail unless every figure is as claimed")
    parser.add_argument("--npm", type=Path, default=Path(), help="folder with node_modules")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    anvil = program([options.npm, Path(), Path(__file__).parents[2]])
    if anvil is None:
        raise SystemExit(
            "expected anvil and tronweb, got none: npm install @foundry-rs/anvil tronweb, and --npm FOLDER"
        )
    began = time.monotonic()
    transfers = asked(TRON, options.seed)
    theirs = written_by_tronweb(transfers, options.npm.absolute())
    equal = sum(bytes_of(one) == other for one, other in zip(transfers, theirs, strict=True))
    share = with_bench(anvil, PAYEES, options.seed, fees)
    found = with_bench(anvil, 5, options.seed, lambda bench: crashed(bench, CRASHES, REORGS, options.seed))
    print(f"# {time.monotonic() - began:.0f} s, seed {options.seed}")
    print(
        " ".join(f"{name}={value}" for name, value in found.items()),
        f"tron_bytes_equal={equal}/{TRON} fee_share={share:.4f}",
    )
    is_well = not found["twice"] and not found["forgotten"] and equal == TRON and share <= FEE_SHARE
    if options.check and not (is_well and found["crashes"] >= CRASHES and found["reorgs"] >= REORGS):
        raise SystemExit("expected what the header says, got the above")


if __name__ == "__main__":
    main()
