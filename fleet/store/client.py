"""Redis for Fleet: `Store` is the hot path of a worker (asyncio, pipelined), `connect` the plain client for the rest.

All coroutines of a process share one connection. Commands issued within one tick of the loop leave in one send, and
nobody waits for the replies of earlier sends. Bytes and sockets: `wire.py`. Key names: `keys.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis

from fleet.errors import ConfigurationError, FleetError, StoreUnavailable
from fleet.store import wire
from fleet.store.address import Address, masked
from fleet.store.running.blame import told_by
from fleet.store.running.sentinel import find_master, plain_client
from fleet.store.scripts import Script
from fleet.store.wire import Connection, GrowingCommand, PendingCommand, Receiver, Together, refused, translate

__all__ = ["Script", "Store", "connect", "masked", "store_errors"]

#: Seconds between two attempts to connect: full jitter below min(cap, timeout / 4, first * 2^attempt), so that
#: every command that waits sees several attempts.
FIRST_BACKOFF_S = 0.05
BACKOFF_CAP_S = 2.0

#: redis-py's classes whose text has lost the code that `translate` goes by.
_REFUSALS = (redis.AuthenticationError, redis.exceptions.NoPermissionError)
_PASSING = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, redis.OutOfMemoryError)

_log = logging.getLogger("fleet.store")


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Translate redis-py's exceptions inside the block into Fleet's own. Clients of other brokers tell theirs."""
    try:
        yield
    except _REFUSALS as error:
        raise refused(*told_by(error, url)) from error
    except _PASSING as error:
        raise wire.unanswered(*told_by(error, url)) from error
    except redis.ResponseError as error:
        raise translate(*told_by(error, url)) from error


def connect(url: str, *, timeout_s: float = 5.0) -> redis.Redis:
    """Return a plain Redis client (replies are bytes) whose server has answered PING.

    Its later errors are redis-py's own: wrap calls in `store_errors(url)`. Not for a worker's hot path.

    Raises:
        StoreUnavailable: When the server does not answer within `timeout_s`.
        ConfigurationError: When `url` is none, or the server does not let us in.
    """
    client = plain_client(Address.parse(url), timeout_s)
    with store_errors(url):
        client.ping()
    return client


def run_script(client: redis.Redis, script: Script, keys: Sequence[Any], arguments: Sequence[Any] = ()) -> Any:
    """Run a script on a plain client (`connect`), loading it when Redis does not know it.

    Raises:
        redis.ResponseError: When it fails, with file and line.
    """
    try:
        try:
            return client.evalsha(script.sha, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            return client.eval(script.text, len(keys), *keys, *arguments)
    except redis.ResponseError as error:
        error.args = (script.located(str(error)), *error.args[1:])
        raise


def run_scripts_together(
    client: redis.Redis, calls: Sequence[tuple[Script, Sequence[Any], Sequence[Any]]]
) -> list[Any]:
    """Run scripts one after the other in one step: whoever dies, all of them have run or none.

    Their whole text is sent: one that Redis does not know would fail alone.

    Args:
        client: Plain client.
        calls: Each a script, its KEYS and its ARGV; all keys share one tag.

    Raises:
        redis.ResponseError: When one of them fails.
    """
    with client.pipeline(transaction=True) as pipe:
        for script, names, arguments in calls:
            pipe.eval(script.text, len(names), *names, *arguments)
        return pipe.execute()


def run_script_each(
    client: redis.Redis, script: Script, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]
) -> list[Any]:
    """Run a script once for each KEYS and ARGV, in one round trip, loading it when Redis does not know it.

    Raises:
        redis.ResponseError: When one of them fails.
    """
    if not calls:
        return []
    with client.pipeline(transaction=False) as pipe:
        for names, arguments in calls:
            pipe.evalsha(script.sha, len(names), *names, *arguments)
        try:
            return pipe.execute()
        except redis.exceptions.NoScriptError:
            client.script_load(script.text)
    return run_script_each(client, script, calls)


class Store:
    """The one pipelined Redis connection of a process, shared by all coroutines of its one asyncio loop.

    Connects with the first command, reconnects with the next one after a loss. A command whose connection is lost
    fails although the server may have carried it out: whoever repeats it needs an idempotent script. Commands keep
    their order, except one whose script the server had forgotten: it is sent again behind the others.

    Args:
        url: redis://, rediss://, unix://, redis+socket:// or sentinel://; with the last the master is looked for anew
            whenever a connection is lost.
        timeout_s: Seconds a command waits for a connection plus its reply. A server that lets one command wait
            that long loses the connection, and everything sent after it fails too.
        name: Client name shown by CLIENT LIST.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, name: str | None = None) -> None:
        self._address = Address.parse(url)
        self._url = url
        self._timeout_s = timeout_s
        self._name = name or f"fleet-{os.getpid()}"
        self._outbox = wire.Outbox()
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._flush_is_due = False
        #: For commands that may wait, while nothing else is to be sent.
        self._late_flush: asyncio.TimerHandle | None = None
        self._closed = False
        self._in_outage = False
        self._last_failure = "no answer"
        #: Fire-and-forget commands that got no good reply, since the start.
        self.lost_sends = 0
        #: Packs of commands written so far: commands per pack is what pipelining saves.
        self.writes = 0

    async def run(self, script: Script, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        """Run a script and return its reply (bytes, int, None or lists of them).

        Raises:
            StoreUnavailable: When Redis does not answer in time; it may have run the script all the same.
            StoreError: When the script fails.
            ConfigurationError: When the server does not let us in.
        """
        return await self._issue((len(keys), *keys, *args), script)

    async def command(self, *parts: Any) -> Any:
        """Run one command, e.g. `command("HGETALL", key)`; raises like `run`."""
        return await self._issue(parts, None)

    def send(
        self,
        script: Script,
        keys: Sequence[str] = (),
        args: Sequence[Any] = (),
        *,
        within_s: float = 0.0,
        receiver: Receiver | None = None,
    ) -> None:
        """Run a script some time soon. Failures are counted in `lost_sends` where nobody learns its reply.

        Args:
            script: What to run.
            keys: Its KEYS.
            args: Its ARGV.
            within_s: So long it may wait for another command to leave with; at most a quarter of the timeout.
            receiver: Who gets the reply.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._timeout_s
        self._start(PendingCommand((len(keys), *keys, *args), due, receiver, script), loop, within_s)

    def run_together(self, common: Together, keys: Sequence[str], args: Sequence[Any]) -> asyncio.Future[Any]:
        """Run one of the calls that may go in one command, and return its reply; raises like `run`."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        reply = asyncio.get_running_loop().create_future()
        self.send_together(common, keys, args, receiver=reply)
        return reply

    def send_together(
        self,
        common: Together,
        keys: Sequence[str] = (),
        args: Sequence[Any] = (),
        *,
        within_s: float = 0.0,
        receiver: Receiver | None = None,
    ) -> None:
        """Run a script some time soon, as `send`, in one command with those calls that wait already.

        A call goes with the first of them, if that waits not for long: ahead of what `common.passes` lets it overtake.

        Args:
            common: What they have in common.
            keys: KEYS of this call.
            args: ARGV of this call.
            within_s: As `send` takes it.
            receiver: Who gets the reply.
        """
        loop = asyncio.get_running_loop()
        growing = self._outbox.growing(common, due_from=loop.time() + self._timeout_s * (1 - wire.MOST_AGE))
        if growing is not None:
            growing.add(keys, args, receiver)
            self._flush_within(within_s, loop)
            return
        call = GrowingCommand(common, loop.time() + self._timeout_s)
        call.add(keys, args, receiver)
        self._start(call, loop, within_s)
        if not self._closed:
            self._outbox.grow(common, call)

    def refusal(self, script: Script, text: str) -> FleetError:
        """Return the error that `run` would raise, for one that a script has caught and tells of in its reply."""
        return translate(script.located(text), self._url)

    async def close(self) -> None:
        """Wait for the replies that are due (at most the timeout), then cut the connection."""
        try:
            while self._outbox or (self._connection is not None and self._connection.pending):
                await self.command("PING")
        except FleetError as error:
            _log.debug("store_close_incomplete error=%s", error)
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            self._connection.drop("the store was closed")
            await asyncio.sleep(0)  # lets asyncio close the socket

    def _start(self, call: PendingCommand, loop: asyncio.AbstractEventLoop, within_s: float = 0.0) -> None:
        if self._closed:
            self._fail([call], StoreUnavailable("the store is closed"))
        else:
            self._enqueue(call, loop, within_s)

    def _issue(self, parts: tuple[Any, ...], script: Script | None) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._enqueue(PendingCommand(parts, loop.time() + self._timeout_s, future, script), loop)
        return future

    def _enqueue(self, call: PendingCommand, loop: asyncio.AbstractEventLoop, within_s: float = 0.0) -> None:
        self._outbox.append(call)
        self._flush_within(within_s, loop)
        if self._watch is None:
            self._watch = loop.call_at(call.due, self._expire)

    def _flush_within(self, within_s: float, loop: asyncio.AbstractEventLoop) -> None:
        if within_s > 0:
            at = loop.time() + min(within_s, self._timeout_s / 4)
            if not self._flush_is_due and (self._late_flush is None or at < self._late_flush.when()):
                if self._late_flush is not None:
                    self._late_flush.cancel()
                self._late_flush = loop.call_at(at, self._flush)
        elif not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._late_flush is not None:
            self._late_flush.cancel()
            self._late_flush = None
        if not self._outbox:
            return
        if self._connection is None:
            if self._connecting is None and not self._closed:
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        calls = self._outbox.take()
        self.writes += 1
        self._connection.write(calls)

    def _on_reply(self, call: PendingCommand, reply: Any) -> None:
        future = call.future
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if call.script is not None and text.startswith("NOSCRIPT"):
                call.send_text()
                self._enqueue(call, asyncio.get_running_loop())
            else:
                where = call.script.located(text) if call.script is not None else text
                self._fail([call], translate(where, self._url))
                if "READONLY" in text and self._connection is not None:  # no master any more: look for the new one
                    self._connection.drop("the server became a replica")
        elif future is not None and not future.done():
            future.set_result(reply)

    def _on_lost(self, connection: Connection, reason: str, calls: Iterable[PendingCommand]) -> None:
        if self._connection is connection:
            self._connection = None
        self._fail(calls, self._unavailable(reason))

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(f"{masked(self._url)}: Redis did not answer: {reason}")

    def _fail(self, calls: Iterable[PendingCommand], error: FleetError) -> None:
        lost = 0
        for call in calls:
            if call.future is None:
                lost += call.calls
            elif not call.future.done():
                # One instance each: a shared one would collect the traceback of every waiter.
                call.future.set_exception(type(error)(str(error)))
        self.lost_sends += lost
        if lost and not self._in_outage:
            self._in_outage = True
            _log.warning("store_sends_lost count=%d error=%s", lost, error)

    def _expire(self) -> None:
        """Fail what is overdue. One timer watches the oldest command of all."""
        loop = asyncio.get_running_loop()
        self._watch = None
        now = loop.time()
        connection = self._connection
        if connection is not None and connection.pending and connection.pending[0].due <= now:
            connection.drop(f"no reply within {self._timeout_s:g} s")
        waiting = self._outbox.take()
        late = [call for call in waiting if call.due <= now]
        self._outbox += [call for call in waiting if call.due > now]
        self._fail(late, self._unavailable(f"not connected within {self._timeout_s:g} s: {self._last_failure}"))
        dues = [call.due for call in self._outbox[:1]]
        if self._connection is not None and self._connection.pending:
            dues.append(self._connection.pending[0].due)
        if dues:
            self._watch = loop.call_at(min(dues), self._expire)

    async def _connect(self) -> None:
        """Connect, again and again while commands wait for it."""
        attempt = 0
        try:
            while self._outbox and self._connection is None:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        self._connection = await self._open()
                    self._in_outage = False
                except ConfigurationError as error:
                    self._fail(self._outbox.take(), error)
                except (OSError, TimeoutError, FleetError) as error:
                    self._last_failure = str(error) or "no answer"
                    cap_s = min(BACKOFF_CAP_S, self._timeout_s / 4)
                    await asyncio.sleep(random.uniform(0, min(cap_s, FIRST_BACKOFF_S * 2**attempt)))
                    attempt = min(attempt + 1, 16)
        finally:
            self._connecting = None
        self._flush()

    def _line(self) -> Connection:
        return Connection(self._on_reply, self._on_lost)

    async def _open(self) -> Connection:
        """Return a connection that has authenticated, selected its database and answered PING."""
        loop, where = asyncio.get_running_loop(), self._address
        if where.sentinels:
            where = await find_master(where)
        connection = self._line()
        try:
            if where.path is not None:
                await loop.create_unix_connection(lambda: connection, where.path)
            else:
                await loop.create_connection(lambda: connection, where.host, where.port, ssl=where.ssl_context())
            futures = [(parts, loop.create_future()) for parts in where.handshake(self._name)]
            connection.write([PendingCommand(parts, 0.0, future) for parts, future in futures])
            await asyncio.gather(*[future for _, future in futures])
            if not connection.is_open:
                raise StoreUnavailable("the server closed the connection")
        except BaseException:
            connection.drop("the connection could not be opened")
            raise
        return connection
