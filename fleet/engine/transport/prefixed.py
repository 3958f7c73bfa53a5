"""kombu's own names in Redis, behind `redis.prefix`: lists, bindings and the channels of broadcasts.

kombu's option for it, `global_keyprefix`, reaches only the first key of a script. Plain clients set it and meet the
fleet; here the names are made with the prefix in them.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str

from fleet.store import keys


class PrefixedChannel(kombu_redis.Channel):
    """A kombu channel whose every key begins with the prefix of this process; without one, as kombu's own."""

    from_transport_options = tuple(
        name for name in kombu_redis.Channel.from_transport_options if name != "global_keyprefix"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        prefix = keys.lists("")
        for name in ("queue", "binding_deadlines", "binding_permanent", "fanout"):
            setattr(self, f"keyprefix_{name}", prefix + getattr(self, f"keyprefix_{name}"))
        super().__init__(*args, **kwargs)

    def _q_for_pri(self, queue: str, pri: int) -> str:
        return keys.lists(str(super()._q_for_pri(queue, pri)))

    def _receive_one(self, client: Any) -> Any:
        """Deliver a broadcast: kombu finds out which it is by what follows our prefix."""
        return super()._receive_one(_Unprefixed(client) if keys.lists("") else client)


class _Unprefixed:
    """A pub/sub client as kombu reads it: channels come without the prefix."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.handle_message = client.handle_message

    def parse_response(self) -> Any:
        reply = self._client.parse_response()
        if isinstance(reply, (list, tuple)) and bytes_to_str(reply[0]).endswith("message"):
            prefix = keys.lists("").encode()
            *names, payload = reply
            return [*(name.removeprefix(prefix) for name in names), payload]
        return reply
