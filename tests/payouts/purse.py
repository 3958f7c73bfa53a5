"""What tests of payouts share: keys, settings, earnings, and commands that run here or in a process that dies."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.config import Settings
from fleet.earnings.ledger import Accrual
from fleet.models import BotResult
from fleet.payouts import keyfiles
from fleet.store.client import run_script

#: Steps after which a command dies, on average: about as many as it has, so that it dies at each, and lives at times.
MEAN_STEPS = {"prepare": 100, "slip": 12, "sign": 3, "send": 30, "check": 20}
PASSPHRASE = "a passphrase of tests"
PAYER_KEY = "0x" + "17" * 32
PAYER = keyfiles.addresses_of(bytes.fromhex(PAYER_KEY[2:]))


def payees(count: int) -> list[str]:
    """Return addresses."""
    seeded = random.Random(23)
    return [keyfiles.addresses_of(seeded.randbytes(32))["evm"] for _ in range(count)]


def key_file(folder: Path, private_key: str = PAYER_KEY, name: str = "payer.json") -> Path:
    """Write an encrypted key file with little work in it, so that tests are quick; and its passphrase beside it."""
    from eth_account import Account

    path = folder / name
    if not path.exists():
        path.write_text(json.dumps(Account.encrypt(private_key, PASSPHRASE, iterations=2)))
        (folder / "passphrase").write_text(f"{PASSPHRASE}\n")
    return path


def write_settings(
    folder: Path, network: Mapping[str, Any], addresses: list[str], payouts: Mapping[str, Any] | None = None
) -> None:
    """Write a fleet.toml with one network and a payee for each of as many bots."""
    terms = {"pay_simulated": True, "threshold": "0.05", "every_hours": 0, "address_wait_hours": 0, **(payouts or {})}
    tables: dict[str, Mapping[str, Any]] = {"payouts": terms, "pools.research": {"bots": len(addresses)}}
    tables["networks.test"] = {"native_price": "100", **network}
    for number, address in enumerate(addresses, 1):
        bots = [f"research-{number:03d}"]
        tables[f"payees.p{number:03d}"] = {"bots": bots, "network": "test", "address": address}
    lines = ['[[payouts.earn]]\nprice = "0.01"']
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None)]
    (folder / "fleet.toml").write_text("\n".join(lines) + "\n")
    config.current.cache_clear()


def earn(client: redis.Redis, settings: Settings, tasks: int, *, bots: int, prefix: str) -> None:
    """Enter the earnings of tasks, as the finishing script does."""
    from fleet.earnings.ledger import ACCRUE

    accrual = Accrual(settings)
    for number in range(tasks):
        result = BotResult(
            task_id=f"{prefix}{number}", status="ok", pool="research", bot=f"research-{number % bots + 1:03d}",
            finished_at=time.time(),
        )  # fmt: skip
        call = accrual.call_of(result, "default")
        assert call is not None
        run_script(client, ACCRUE, *call)


def fleet(*arguments: object, code: int | None = 0) -> str:
    """Run a command here and return what it printed."""
    done = CliRunner().invoke(main, ["payouts", *map(str, arguments)])
    assert code is None or done.exit_code == code, done.output
    return done.output


class Dying:
    """Runs commands in processes that are killed at a random step: before or after something is sent, or renamed.

    Args:
        seed: Of the steps.
    """

    def __init__(self, *, seed: int) -> None:
        self._random = random.Random(seed)
        self.deaths = Counter[str]()

    @property
    def crashes(self) -> int:
        """How many were killed."""
        return self.deaths.total()

    def run(self, *arguments: object, mortal: bool = True) -> int | None:
        """Run a command; return its exit code, None when it was killed."""
        dies_at = self.dies_at(str(arguments[0])) if mortal else None
        child = os.fork()
        if child == 0:
            self._live([str(one) for one in arguments], dies_at)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.deaths[str(arguments[0])] += 1
            return None
        return os.waitstatus_to_exitcode(status)

    def dies_at(self, command: str) -> int | None:
        """Return the step at which a command dies; None: it lives."""
        return int(self._random.expovariate(1 / MEAN_STEPS[command]))

    @staticmethod
    def _live(arguments: list[str], dies_at: int | None) -> None:
        """Be the child: never returns."""
        code = 70
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            if dies_at is not None:
                _count_steps(dies_at)
            config.current.cache_clear()
            main(["payouts", *arguments], standalone_mode=True)
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        finally:
            os._exit(code)


def _count_steps(dies_at: int) -> None:
    steps = iter(range(10**9))

    def step() -> None:
        if next(steps) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            step()
            done = function(*args, **kwargs)
            step()
            return done

        return stepped

    socket.socket.sendall = around(socket.socket.sendall)  # type: ignore[method-assign]
    os.replace = around(os.replace)
    Path.replace = around(Path.replace)  # type: ignore[method-assign]


class Round:
    """Does what an operator does, whatever has died: prepares, signs, sends and checks, by what files and Redis say.

    Args:
        folder: Of its files.
        client: Of the state Redis.
        dying: Runs the commands.
        nonce: Transactions that the payer made before the first payout.
    """

    def __init__(self, folder: Path, client: redis.Redis, dying: Dying, *, nonce: int = 0) -> None:
        self._folder, self._client, self._dying, self._nonce = folder, client, dying, nonce
        self._key = key_file(folder)
        #: Payouts whose nonces were used up.
        self.voided: set[str] = set()

    def void(self) -> None:
        """Use up the nonces of the payout under way, if there is one whose nonces are free."""
        from fleet.payouts.book import PayoutBook

        payout = PayoutBook(self._client).open_on("test")
        if payout is None or payout in self.voided:
            return
        slip, signed = self._folder / f"{payout}.void", self._folder / f"{payout}.void.signed"
        for one in (slip, signed):  # of an attempt that came to nothing: a slip replaces no other one
            one.unlink(missing_ok=True)
        words = ("--key", self._key, "--passphrase-file", self._folder / "passphrase", "-o", signed)
        done = [self._dying.run(*command, mortal=False) for command in (
            ("void", payout, "-o", slip), ("sign", slip, *words), ("send", signed))]  # fmt: skip
        if done == [0, 0, 0]:
            self.voided.add(payout)

    def step(self, *, mortal: bool = True) -> str:
        """Do what is next; return what that was."""
        from fleet.payouts.book import PayoutBook, read_payouts

        book = PayoutBook(self._client)
        payout = book.open_on("test")
        run = self._dying.run
        if payout is None:
            fresh = self._folder / f"{time.monotonic_ns()}.json"
            first = () if read_payouts(self._client) else ("--nonce", self._nonce)
            run("prepare", "test", "-o", fresh, "--now", *first, mortal=mortal)
            return "prepare"
        slip, signed = self._folder / f"{payout}.slip", self._folder / f"{payout}.signed"
        if not slip.exists():
            run("slip", payout, "-o", slip, mortal=mortal)
            return "slip"
        if not signed.exists():
            words = ("--key", self._key, "--passphrase-file", self._folder / "passphrase", "-o", signed)
            run("sign", slip, *words, mortal=mortal)
            return "sign"
        if (
            any(one.state in ("prepared", "signed") for one in book.read(payout).standings)
            and payout not in self.voided
        ):
            run("send", signed, mortal=mortal)
            return "send"
        run("check", mortal=mortal)
        return "check"
