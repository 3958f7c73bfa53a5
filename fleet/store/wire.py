"""One Redis connection on asyncio: bytes in, replies out. Where it goes: `address.py`.

Replies arrive in the order of the commands, so a deque is all the bookkeeping. No reconnect here: see `client.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import hiredis

from fleet.errors import ConfigurationError, FleetError, StoreError, StoreRefused, StoreUnavailable
from fleet.store.address import masked
from fleet.store.scripts import Script

#: Server states that pass: first word of the error, or inside the text of a script's error before Redis 7.
_PASSING = re.compile(r"(?:^|-)(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|OOM)\b")
#: What redis-py says when TLS does not come about: the port speaks none, or the certificate is not to be trusted.
_NO_TLS = re.compile(r"\[SSL|CERTIFICATE|certificate")
#: Errors that only the URL or the server's ACL can cure.
_REFUSED = re.compile(
    r"^(NOAUTH|WRONGPASS|NOPERM)\b|AUTH <password>|DB index is out of range|invalid DB index|"
    r"The user executing the script can't|ACL failure in script"
)
#: Those of a user that was let in, and may not do this, in the words of Redis 7.0, of later ones and of Valkey.
_NO_RIGHTS = re.compile(r"[nN]o permissions|NOPERM|The user executing the script can't|ACL failure in script")
#: What `Reader.gets` returns when the bytes so far end inside a reply.
INCOMPLETE = object()


def refused(text: str, url: str) -> StoreRefused:
    """Return the error of a server that does not let us in, or whose user may not do what was asked."""
    if _NO_RIGHTS.search(text):
        return StoreRefused(
            f"{masked(url)}: expected a Redis user with the rights of this role, got {text!r}; name another user in "
            "redis.url, or give this one the rules that `fleet acl` prints"
        )
    return StoreRefused(
        f"{masked(url)}: expected Redis to let us in, got {text!r}; "
        "correct the user, the password and the database number in redis.url"
    )


def unanswered(text: str, url: str) -> FleetError:
    """Return the error of a server that was not reached: failing TLS is cured by the URL, the rest by waiting."""
    if _NO_TLS.search(text):
        return ConfigurationError(
            f"{masked(url)}: expected a server with TLS and a certificate that ssl_ca_certs vouches for, got: {text}; "
            "correct redis.url: rediss://host:port/db?ssl_ca_certs=/path/ca.pem, or redis:// for a server without TLS"
        )
    return StoreUnavailable(f"{masked(url)}: Redis did not answer: {text}")


def translate(text: str, url: str) -> FleetError:
    """Turn the text of an error reply into the error that tells the caller what to do."""
    if _REFUSED.search(text):
        return refused(text, url)
    if _PASSING.search(text):
        return StoreUnavailable(f"{masked(url)}: Redis is not ready: {text}")
    return StoreError(f"{masked(url)}: Redis refused a command: {text}")


class Receiver(Protocol):
    """Who gets a reply: an `asyncio.Future`, or what behaves like one and saves a task from waking up."""

    def done(self) -> bool:
        """True when nobody wants it any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Take the reply. Must not raise."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Take the error there is instead of a reply. Must not raise."""
        ...


class PendingCommand:
    """One command on its way: its bytes, and whom its reply is for.

    Args:
        parts: The whole command; for a script what follows its sha: number of keys, keys, arguments.
        due: Loop time after which nobody waits for the reply any more.
        future: Who waits; None for fire and forget.
        script: The script that is run, or None for a plain command.
    """

    __slots__ = ("due", "future", "packed", "parts", "redirects", "script")
    #: How many calls of its script it makes.
    calls = 1

    def __init__(
        self, parts: tuple[Any, ...], due: float, future: Receiver | None, script: Script | None = None
    ) -> None:
        self.parts = parts
        self.due = due
        self.future = future
        self.script = script
        #: How often nodes of a cluster have sent it on.
        self.redirects = 0
        # Packed here, in the caller's hands: an argument of a wrong type must not spoil a whole batch.
        self.packed: bytes = hiredis.pack_command(parts if script is None else ("EVALSHA", script.sha, *parts))

    @property
    def keys(self) -> Sequence[Any]:
        """Its KEYS; of a plain command the first one."""
        return self.parts[1:2] if self.script is None else self.parts[1 : 1 + self.parts[0]]

    def send_text(self) -> None:
        """Send the script's text instead of its sha."""
        if self.script is not None:
            self.packed = hiredis.pack_command(("EVAL", self.script.text, *self.parts))


#: Calls of a script that go in one command at most (count): bounds the time for which Redis does nothing else.
MOST_TOGETHER = 32
#: Share of a command's timeout that may have passed when one more call joins it, and has that much less patience.
MOST_AGE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """What calls of a script have in common that may go in one command. Kept by who calls: it is known by itself.

    Args:
        script: Runs all of them, and replies with one reply, or with a list of them when there are several calls.
        keys: Their KEYS, in front of those of each call.
        args: Their ARGV, likewise.
        passes: Names of the scripts whose commands on one of `keys` a call may overtake by going with an earlier one;
            None: all. Behind any other command on them it goes in a command of its own.
    """

    script: Script
    keys: tuple[str, ...]
    args: tuple[Any, ...]
    passes: frozenset[str] | None = None


class Receivers:
    """Gets the replies of several calls, and hands each to whom it is for."""

    def __init__(self) -> None:
        self.each: list[Receiver] = []

    def done(self) -> bool:
        """True when nobody wants a reply any more."""
        return not [one for one in self.each if not one.done()]

    def set_result(self, result: Any) -> None:
        """Hand out the replies."""
        for one, reply in zip(self.each, result if len(self.each) > 1 else [result], strict=True):
            if not one.done():
                one.set_result(reply)

    def set_exception(self, exception: Exception) -> None:
        """Tell all; one instance each, for a shared one would collect the traceback of every waiter."""
        for one in self.each:
            if not one.done():
                one.set_exception(type(exception)(str(exception)))


class GrowingCommand(PendingCommand):
    """One command for several calls: while it waits to be sent, it takes more of them.

    Args:
        common: What the calls have in common.
        due: As of `PendingCommand`.
    """

    __slots__ = ("_args", "_common", "_keys", "_packed_args", "_packed_keys", "calls")

    def __init__(self, common: Together, due: float) -> None:
        super().__init__((), due, None, common.script)
        self._common, self._keys, self._args = common, list[str](), list[Any]()
        self._packed_keys, self._packed_args = list[bytes](), list[bytes]()
        self.calls = 0

    @property
    def keys(self) -> Sequence[Any]:
        """Those KEYS that its calls have in common."""
        return self._common.keys

    def add(self, keys: Sequence[str], args: Sequence[Any], receiver: Receiver | None) -> None:
        """Take one more call; all have somebody who gets the reply, or none has."""
        packed_keys, packed_args = _packed(keys), _packed(args)  # here: one of a wrong type must not spoil the others
        self._packed_keys.append(packed_keys)
        self._packed_args.append(packed_args)
        self._keys += keys
        self._args += args
        self.calls += 1
        if receiver is not None:
            if not isinstance(self.future, Receivers):
                self.future = Receivers()
            self.future.each.append(receiver)

    def pack(self) -> None:
        """Be ready to be sent, with all calls: what is packed of them already is put together."""
        common = self._common
        names = (*common.keys, *self._keys)
        self.parts = (len(names), *names, *common.args, *self._args)
        head = _packed(("EVALSHA", common.script.sha, len(names), *common.keys))
        packed = (head, *self._packed_keys, _packed(common.args), *self._packed_args)
        self.packed = b"*%d\r\n%b" % (2 + len(self.parts), b"".join(packed))


def _packed(parts: Sequence[Any]) -> bytes:
    """Return parts of a command as they are sent, behind the number of all."""
    packed: bytes = hiredis.pack_command(tuple(parts))
    return packed[packed.index(b"\n") + 1 :]


class Outbox(list[PendingCommand]):
    """Commands that wait to be sent."""

    def __init__(self) -> None:
        super().__init__()
        self._growing: dict[Together, GrowingCommand] = {}
        #: By key: those that keep their place among commands on it, by what they may pass.
        self._kept: dict[str, dict[frozenset[str], list[Together]]] = {}

    def append(self, command: PendingCommand) -> None:
        """Take one more command: what may not pass it grows no more."""
        if self._kept:
            name = command.script.name if command.script is not None else ""
            for key in command.keys:
                for passes, behind in self._kept.get(key, {}).items():
                    if name not in passes:
                        for common in behind:
                            self._end(common)
                        behind.clear()
        super().append(command)

    def growing(self, common: Together, *, due_from: float) -> GrowingCommand | None:
        """Return the command in here that takes another one of these calls; None: none does, or it is full or too old.

        Args:
            common: What they have in common.
            due_from: Loop time before which nobody of that command may lose patience.
        """
        found = self._growing.get(common)
        return None if found is None or found.calls >= MOST_TOGETHER or found.due < due_from else found

    def grow(self, common: Together, command: GrowingCommand) -> None:
        """Let a command in here take more calls until it is sent, or something that they may not pass is behind it."""
        self._end(common)
        self._growing[common] = command
        if common.passes is not None:
            for key in common.keys:
                self._kept.setdefault(key, {}).setdefault(common.passes, []).append(common)

    def take(self) -> list[PendingCommand]:
        """Hand out all of it: none of that grows any more."""
        for growing in self._growing.values():
            growing.pack()
        self._growing.clear()
        self._kept.clear()
        calls = list(self)
        self.clear()
        return calls

    def _end(self, common: Together) -> None:
        if (grown := self._growing.pop(common, None)) is not None:
            grown.pack()


class Connection(asyncio.Protocol):
    """A connected socket: packs of commands go out, replies come back in order.

    Args:
        on_reply: Called with each call and its reply; error replies are `hiredis.ReplyError` instances.
        on_lost: Called once with the reason and the calls that will get no reply.
    """

    def __init__(
        self,
        on_reply: Callable[[PendingCommand, Any], None],
        on_lost: Callable[[Connection, str, Iterable[PendingCommand]], None],
    ) -> None:
        self.pending: deque[PendingCommand] = deque()
        #: Scripts this server knows: EVAL is sent once for each, EVALSHA from then on.
        self._known: set[str] = set()
        self._reader = hiredis.Reader(notEnoughData=INCOMPLETE)
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def write(self, calls: list[PendingCommand]) -> None:
        """Send all `calls` at once."""
        assert self._transport is not None
        for call in calls:
            if call.script is not None and call.script.sha not in self._known:
                self._known.add(call.script.sha)
                call.send_text()
        self.pending.extend(calls)
        self._transport.write(b"".join([call.packed for call in calls]))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not INCOMPLETE:
                self._on_reply(self.pending.popleft(), reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("the server does not speak the Redis protocol")

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(f"connection lost: {exc}" if exc else "the server closed the connection")

    def drop(self, reason: str) -> None:
        """Cut the connection; the calls that have no reply yet are handed to `on_lost`."""
        if self._transport is None:
            return
        self._transport.abort()
        self._transport = None
        lost, self.pending = self.pending, deque()
        self._on_lost(self, reason, lost)
