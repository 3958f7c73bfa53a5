"""`python -m tests.payouts.each_step`: each command is killed at each of its steps, and all sums are exact after each.

A step is before or after something is sent, or a file gets its name. On the two small networks, so it needs no npm; it
takes some ten minutes. The tests do it for the short commands.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

from fleet import config
from fleet.earnings.ledger import rows_ever
from fleet.payouts.book import PayoutBook
from fleet.payouts.netting import dues
from fleet.store.client import connect
from tests.payouts import evm_place, test_tron
from tests.payouts.fake_evm import FakeEvm
from tests.payouts.fake_tron import FINAL_DEPTH, FakeTron
from tests.payouts.faulty import door_to
from tests.payouts.purse import MEAN_STEPS, PAYER, Dying, Round, earn
from tests.redis_server import RedisServer

#: Blocks after which one is final, and one more.
EVM_DEPTH, TRON_DEPTH = 4, FINAL_DEPTH + 1
#: Steps of an operator after which one of a payout's commands has surely run.
ENOUGH = 12

Place = evm_place.Place | test_tron.Place


class DyingAt(Dying):
    """Kills one command at one step, once."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        #: Command and step; None: nothing dies.
        self.at: tuple[str, int] | None = None

    def dies_at(self, command: str) -> int | None:
        if self.at is None or self.at[0] != command:
            return None
        (_, step), self.at = self.at, None
        return step


def kill_at_each_step(place: Place, command: str, *, depth: int) -> int:
    """Kill a command at each of its steps, and finish the payout each time; return how many steps there were.

    Raises:
        AssertionError: Somebody was paid more or less than earned.
    """
    dying = DyingAt()
    operator, step = Round(place.folder, place.client, dying), 0
    while True:
        earn(place.client, config.current(), 15, bots=3, prefix=f"{command}{step}-")
        killed = dying.crashes
        if command == "slip":  # it is for a slip that was lost
            operator.step(mortal=False)
            (place.folder / f"{PayoutBook(place.client).open_on('test')}.slip").unlink(missing_ok=True)
        dying.at = (command, step)
        for _ in range(ENOUGH):
            if dying.at is not None:
                operator.step()
                place.chain.mine()
        _finish(place, operator, depth)
        if dying.crashes == killed:
            return step
        step += 1


def _finish(place: Place, operator: Round, depth: int) -> None:
    for _ in range(10 * ENOUGH):
        left = dues(rows_ever(place.client), PayoutBook(place.client).netted(), ())
        if not left and PayoutBook(place.client).open_on("test") is None:
            break
        operator.step(mortal=False)
        place.chain.mine(depth)
    earned = Counter[str]()
    for row, count in rows_ever(place.client).items():
        earned[row.payee] += row.units * count
    assert place.paid() == [earned[f"p{number:03d}"] for number in (1, 2, 3)]


def main() -> None:
    for kind, depth in (("evm", EVM_DEPTH), ("tron", TRON_DEPTH)):
        chain = FakeTron(PAYER["tron"]) if kind == "tron" else FakeEvm(PAYER["evm"])
        with tempfile.TemporaryDirectory(prefix="payouts") as name:
            folder = Path(name)
            server = RedisServer(folder)
            os.environ.update(
                FLEET_REDIS__URL=server.url, FLEET_CONFIG=str(folder / "fleet.toml"), FLEET_HOME=str(folder / "home")
            )
            try:
                with connect(server.url) as client, door_to(chain.execute) as door:
                    place: Place
                    if isinstance(chain, FakeEvm):
                        place = evm_place.Place(folder, client, chain, door)
                        place.configure(threshold="0", network={"native_price": "0.001"})
                    else:
                        place = test_tron.Place(folder, client, chain, door)
                        place.configure(native_price="0.00001")
                    steps = {command: kill_at_each_step(place, command, depth=depth) for command in MEAN_STEPS}
            finally:
                server.stop()
        print(f"{kind}: " + " ".join(f"{command}={count}" for command, count in steps.items()), "twice=0 forgotten=0")


if __name__ == "__main__":
    main()
