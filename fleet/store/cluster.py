"""`ClusterStore`: a `Store` over a Redis Cluster, one pipelined connection per node that is needed.

It keeps no table of slots: the first command of a slot goes to any node, whose MOVED says where it belongs. A script's
keys share one hash tag, so all of them are on one node.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis.crc import key_slot

from fleet.errors import ConfigurationError, FleetError, StoreUnavailable
from fleet.store.client import Store
from fleet.store.wire import PendingCommand, Receiver, Together

#: Schemes of a cluster's URL, and of its nodes.
SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
#: Redirections of one command that are followed at once, and the pause before each further one (s): two nodes that each
#: name the other, as during a failover, would be asked thousands of times a second.
QUICK_REDIRECTS, REDIRECT_PAUSE_S = 2, 0.05


def store_of(url: str, *, timeout_s: float = 5.0) -> Store:
    """Return the store for a URL: `redis+cluster://host:port,host:port` is a cluster, others are as `Store` takes them.

    Raises:
        ConfigurationError: When `url` is none.
    """
    if url.partition("://")[0] in SCHEMES:
        return ClusterStore(url, timeout_s=timeout_s)
    return Store(url, timeout_s=timeout_s)


class ClusterStore(Store):
    """A store whose commands go to the nodes that have their keys.

    Weakness: when a master is lost, what was sent to it fails; what is sent later asks the other nodes for the new one.

    Args:
        url: `redis+cluster://[user:password@]host:port[,host:port ...]`: some of its nodes.
        timeout_s: As `Store`.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        scheme, _, rest = url.partition("://")
        login, _, hosts = rest.rpartition("@")
        if scheme not in SCHEMES or not hosts:
            raise ConfigurationError("expected redis+cluster://[user:password@]host:port[,host:port ...]")
        self._form = f"{SCHEMES[scheme]}://{login}{'@' if login else ''}{{}}"
        query = urlsplit(f"//{hosts.rpartition(',')[2]}").query
        self._query = f"?{query}" if query else ""
        self._seeds = [host.partition("/")[0].partition("?")[0] for host in hosts.split(",")]
        super().__init__(self._form.format(self._seeds[0]) + self._query, timeout_s=timeout_s)
        self._nodes: dict[str, _Node] = {}
        self._places: dict[int, str] = {}
        self._turns = itertools.count()

    async def close(self) -> None:
        """Close the connections to all nodes, as `Store.close`."""
        self._closed = True
        for node in self._nodes.values():
            await node.close()

    def send_together(
        self,
        common: Together,
        keys: Sequence[str] = (),
        args: Sequence[Any] = (),
        *,
        within_s: float = 0.0,
        receiver: Receiver | None = None,
    ) -> None:
        """Send each call by itself: which of them go to one node is not known here."""
        names, arguments = (*common.keys, *keys), (*common.args, *args)
        self.send(common.script, names, arguments, within_s=within_s, receiver=receiver)

    def redirect(self, call: PendingCommand, answer: str) -> None:
        """Send a command where a node said that its slot is: "MOVED slot host:port", or ASK while it moves there."""
        loop = asyncio.get_running_loop()
        kind, slot, place = answer.split()[:3]
        if loop.time() > call.due:
            self._fail([call], StoreUnavailable(f"expected the node of slot {slot}, got {kind} again and again"))
            return
        if kind == "MOVED":
            self._places[int(slot)] = place
        node = self._node(place)
        call.redirects += 1
        if call.redirects <= QUICK_REDIRECTS:
            self._pass_on(call, node, kind, loop)
        else:
            loop.call_later(REDIRECT_PAUSE_S, self._pass_on, call, node, kind, loop)

    def _pass_on(self, call: PendingCommand, node: _Node, kind: str, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            self._fail([call], StoreUnavailable("the store is closed"))
            return
        if kind == "ASK":
            node.enqueue(PendingCommand(("ASKING",), call.due, None), loop)
        node.enqueue(call, loop)

    def forget(self, place: str) -> None:
        """A node did not answer: its slots may be elsewhere by now."""
        self._places = {slot: where for slot, where in self._places.items() if where != place}

    def fail(self, calls: Iterable[PendingCommand], error: FleetError) -> None:
        """Tell who waits for commands that failed on a node."""
        self._fail(calls, error)

    def _enqueue(self, call: PendingCommand, loop: asyncio.AbstractEventLoop, within_s: float = 0.0) -> None:
        # The first key stands second: behind a command's name, or behind the number of a script's keys.
        place = self._places.get(key_slot(str(call.parts[1]).encode())) if len(call.parts) > 1 else None
        self._node(place or self._any_place()).enqueue(call, loop, within_s)

    def _any_place(self) -> str:
        places = [*dict.fromkeys((*self._seeds, *self._nodes))]
        return places[next(self._turns) % len(places)]

    def _node(self, place: str) -> _Node:
        if place not in self._nodes:
            self._nodes[place] = _Node(self, place, self._form.format(place) + self._query, self._timeout_s)
        return self._nodes[place]


class _Node(Store):
    """The connection to one node."""

    def __init__(self, cluster: ClusterStore, place: str, url: str, timeout_s: float) -> None:
        super().__init__(url, timeout_s=timeout_s)
        self._cluster = cluster
        self._place = place

    def enqueue(self, call: PendingCommand, loop: asyncio.AbstractEventLoop, within_s: float = 0.0) -> None:
        self._enqueue(call, loop, within_s)

    def _on_reply(self, call: PendingCommand, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith(("MOVED ", "ASK ")):
            self._cluster.redirect(call, str(reply))
        else:
            super()._on_reply(call, reply)

    def _unavailable(self, reason: str) -> StoreUnavailable:
        self._cluster.forget(self._place)
        return super()._unavailable(reason)

    def _fail(self, calls: Iterable[PendingCommand], error: FleetError) -> None:
        self._cluster.fail(calls, error)
