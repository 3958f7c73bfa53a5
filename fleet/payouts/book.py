"""The book of payouts in Redis: what each has taken up, and where each of its transactions stands.

Every change is one step that checks what it was read from, and is on Redis' disk before anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import redis
from redis.client import Pipeline

from fleet.earnings.rows import Asset
from fleet.errors import StoreUnavailable
from fleet.payouts.refusals import PayoutRefused
from fleet.payouts.slip import Slip
from fleet.quoting import quote
from fleet.store import payout_keys
from fleet.store.client import Script

#: What becomes of a transaction. `broadcast` is written before it is sent: from then on it may have been.
State = Literal["prepared", "signed", "broadcast", "settled", "failed"]
#: Nothing moves any more.
ENDED = ("settled", "failed")
#: Milliseconds that Redis may take to have a change on its disk: less than a client waits for any answer.
DISK_MS = 4000
#: Seconds for which the mark is kept by which it is known that Redis writes to its disk.
MARK_S = 60

_PREPARE = Script.beside(
    __file__, "prepare.lua", keys="netted payouts open parts latest",
    argv="payout network record before_it rows netting*",
)  # fmt: skip
_CHANGE = Script.beside(
    __file__, "change.lua", keys="netted payouts open parts", argv="payout network before after closes failed*"
)


@dataclass(frozen=True, slots=True)
class TransferState:
    """Where one transaction of a payout stands.

    Args:
        id: On the network; empty: it is not signed.
        raw: Its bytes as they are sent, in hexadecimal digits.
        block: In which it was seen last; None: in none.
        why: It has failed.
        since_s: Unix time of its last change.
    """

    state: State = "prepared"
    id: str = ""
    raw: str = ""
    block: int | None = None
    why: str = ""
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """One payout of the book.

    Args:
        slip: As it was prepared, without signatures.
        standings: One for each of its transfers, in order.
        by: Who prepared it.
    """

    slip: Slip
    standings: tuple[TransferState, ...]
    by: str

    @property
    def has_ended(self) -> bool:
        """True when all its transactions are settled or have failed."""
        return all(one.state in ENDED for one in self.standings)

    def written(self) -> str:
        """As the book has it."""
        return json.dumps(
            {"slip": self.slip.as_data(), "standings": [asdict(one) for one in self.standings], "by": self.by}
        )

    @classmethod
    def of(cls, text: bytes | str) -> Record:
        """Read it."""
        data = json.loads(text)
        return cls(Slip.of(data["slip"]), tuple(TransferState(**one) for one in data["standings"]), data["by"])

    def moved(self, number: int, standing: TransferState) -> Record:
        """Return it with one transaction standing elsewhere."""
        return replace(self, standings=(*self.standings[:number], standing, *self.standings[number + 1 :]))


class PaymentStanding(NamedTuple):
    """A payment, and where its transaction stands; `settled_s`: since when nothing can undo it."""

    payout: str
    id: str
    payee: str
    to: str
    asset: str
    units: int
    state: State
    transaction: str
    why: str
    settled_s: float | None


def payments_of(record: Record) -> Iterator[PaymentStanding]:
    """Yield the payments of a payout."""
    slip = record.slip
    asset = Asset(slip.network, slip.token, slip.decimals).spelt
    for transfer, one in zip(slip.transfers, record.standings, strict=True):
        for payment in transfer.payments:
            yield PaymentStanding(
                slip.id, payment.id, payment.payee, payment.to, asset, payment.units, one.state, one.id, one.why,
                one.since_s if one.state == "settled" else None,
            )  # fmt: skip


class Netting(NamedTuple):
    """Rows that a payout takes up: row as the ledger has it -> how many were taken up before, and how many more."""

    rows: Mapping[str, tuple[int, int]]
    #: Id of a payment -> row -> how many of its tasks that pays.
    parts: Mapping[str, Mapping[str, int]]


class PayoutBook:
    """Reads and changes the book.

    Args:
        client: Plain client of the state Redis.
        replicas: Servers besides it on whose disk a change must be, too (`redis.replicas`).
    """

    def __init__(self, client: redis.Redis, *, replicas: int = 0) -> None:
        self._client, self._replicas = client, replicas

    def netted(self) -> dict[str, int]:
        """Return row -> how many of its tasks payouts have taken up that have not failed."""
        found = cast("dict[bytes, bytes]", self._client.hgetall(payout_keys.netted()))
        return {row.decode(): int(count) for row, count in found.items()}

    def open_on(self, network: str) -> str | None:
        """Return the id of the payout that is under way on a network."""
        found = cast("bytes | None", self._client.hget(payout_keys.open_payouts(), network))
        return None if found is None else found.decode()

    def under_way(self) -> dict[str, str]:
        """Return network -> id of the payout under way there, also of networks that are configured no more."""
        found = cast("dict[bytes, bytes]", self._client.hgetall(payout_keys.open_payouts()))
        return {network.decode(): payout.decode() for network, payout in sorted(found.items())}

    def read(self, payout: str) -> Record:
        """Return a payout.

        Raises:
            PayoutRefused: There is none of that id.
        """
        text = cast("bytes | None", self._client.hget(payout_keys.payouts(), payout))
        if text is None:
            raise PayoutRefused(
                f"expected a payout that was prepared with this Redis, got {quote(payout)}; `fleet payouts list` "
                "shows them, and one that an older copy of Redis does not know must not be sent"
            )
        return Record.of(text)

    def latest_on(self, network: str) -> str:
        """Return the id of the payout that was prepared last on a network, whatever became of it; empty: none was."""
        found = cast("bytes | None", self._client.hget(payout_keys.latest(), network))
        return "" if found is None else found.decode()

    def begin(self, record: Record, netting: Netting, *, before_it: str) -> None:
        """Take up earnings into a payout. On Redis' disk when this returns.

        Args:
            record: The payout.
            netting: What it takes up.
            before_it: What `latest_on` said before anything was read that it rests on: rows, schedule, nonce.

        Raises:
            PayoutRefused: Somebody else was faster, or another payout is under way on the network.
        """
        slip = record.slip
        rows = [part for row, (before, more) in netting.rows.items() for part in (row, before, more)]
        parts = [part for payment, taken in netting.parts.items() for part in (payment, json.dumps(dict(taken)))]
        keys, arguments = _PREPARE.call(
            **_keys(slip.id), latest=payout_keys.latest(), payout=slip.id, network=slip.network,
            record=record.written(), before_it=before_it, rows=len(netting.rows), netting=[*rows, *parts],
        )  # fmt: skip
        code, is_on_disk = self._run(_PREPARE, keys, arguments)
        if code == -1:
            raise PayoutRefused(
                f"expected no payout under way on {slip.network}, got {self.open_on(slip.network)}: send it or void "
                "it, and `fleet payouts check` until it has ended"
            )
        if code == 0:
            raise PayoutRefused("expected that nobody else prepares a payout now, got one: do it again")
        self._check_disk(slip, is_on_disk)

    def change(self, before: Record, after: Record) -> Record:
        """Write where a payout stands; what has failed now is due again. On Redis' disk when this returns.

        Raises:
            PayoutRefused: Somebody else has changed it meanwhile: read it anew.
        """
        slip = after.slip
        pairs = zip(slip.transfers, before.standings, after.standings, strict=True)
        failed = [
            payment.id
            for transfer, was, now in pairs
            if now.state == "failed" and was.state != "failed"
            for payment in transfer.payments
        ]
        keys, arguments = _CHANGE.call(
            **_keys(slip.id), payout=slip.id, network=slip.network, before=before.written(), after=after.written(),
            closes="1" if after.has_ended else "", failed=failed,
        )  # fmt: skip
        code, is_on_disk = self._run(_CHANGE, keys, arguments)
        if code == 0:
            raise PayoutRefused(
                f"expected nobody else at payout {slip.id} now, got a change by another command: do it again"
            )
        self._check_disk(slip, is_on_disk)
        return after

    def keeps(self) -> bool | None:
        """Return whether what is written comes into Redis' append-only file in time; None: there is none."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(payout_keys.disk_mark(), 1, ex=MARK_S)
            return self._waited(pipe)[1]

    def _run(self, script: Script, keys: Sequence[Any], arguments: Sequence[Any]) -> tuple[int, bool | None]:
        """Run a script; return its code, and whether its change is on every disk (None: no server keeps files).

        Both in one request, for WAITAOF speaks of what its own connection has written: after a loss of the connection
        the next one has written nothing, and all of that is on disk.
        """
        with self._client.pipeline(transaction=False) as pipe:
            pipe.eval(script.text, len(keys), *keys, *arguments)
            code, is_on_disk = self._waited(pipe)
        if isinstance(code, Exception):
            code.args = (script.located(str(code)), *code.args[1:])
            raise code
        return int(code), is_on_disk

    def _waited(self, pipe: Pipeline) -> tuple[Any, bool | None]:
        pipe.waitaof(1, self._replicas, DISK_MS)
        done, kept = pipe.execute(raise_on_error=False)
        return done, on_every_disk(kept, self._replicas)

    def _check_disk(self, slip: Slip, found: bool | None) -> None:
        """Refuse to go on where a change is not on disk; without any append-only file only real money is refused."""
        if found is False or (found is None and slip.main_net):
            raise StoreUnavailable(
                f"expected Redis and {self._replicas} replicas (redis.replicas) to write to their disks within "
                f"{DISK_MS} ms (appendonly yes, appendfsync everysec or always), got no word of it; they may have: "
                "do it again, or see `fleet payouts list`"
            )


def on_every_disk(reply: Any, replicas: int) -> bool | None:
    """Return what WAITAOF has said: on its own disk and those of replicas, or not in time; None: there are no files."""
    if isinstance(reply, Exception):
        return None
    own, others = reply
    return bool(own >= 1 and others >= replicas)


def _keys(payout: str) -> dict[str, str]:
    return {
        "netted": payout_keys.netted(), "payouts": payout_keys.payouts(), "open": payout_keys.open_payouts(),
        "parts": payout_keys.parts(payout),
    }  # fmt: skip


def read_payouts(client: redis.Redis) -> Sequence[Record]:
    """Return all payouts, the oldest first."""
    found = cast("dict[bytes, bytes]", client.hgetall(payout_keys.payouts()))
    return sorted(map(Record.of, found.values()), key=lambda record: (record.slip.prepared_s, record.slip.id))
