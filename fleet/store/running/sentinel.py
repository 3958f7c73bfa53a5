"""Plain clients, and who is the master: asked of the Sentinels anew with every connection, as their protocol wants it.

https://redis.io/docs/latest/develop/reference/sentinel-clients/. A Sentinel that thinks the master is down is not
believed, and the next one is asked.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from fleet.errors import ConfigurationError, StoreUnavailable
from fleet.store.address import Address

#: Seconds for one Sentinel: another one may know as well.
SENTINEL_TIMEOUT_S = 1.0
_INCOMPLETE = object()
#: Errors that waiting does not cure, if all Sentinels agree.
_REFUSED = re.compile("No such master|NOAUTH|WRONGPASS|AUTH <password>")


async def find_master(where: Address) -> Address:
    """Return the address of the master that the Sentinels of `where` agree on.

    Raises:
        StoreUnavailable: When none of them knows a master that is up just now.
        ConfigurationError: When they do not know its name, or do not let us in.
    """
    said = []
    refusal = None
    for host, port in where.sentinels:
        try:
            async with asyncio.timeout(SENTINEL_TIMEOUT_S):
                reply = await _ask(where, host, port)
        except (OSError, TimeoutError, hiredis.ProtocolError) as error:
            said.append(f"{host}:{port}: {error or 'no answer'}")
            continue
        if isinstance(reply, hiredis.ReplyError):
            refusal = refusal or f"{host}:{port}: {reply}"
            said.append(f"{host}:{port}: {reply}")
            continue
        facts = dict(zip(reply[::2], reply[1::2], strict=False))
        flags = facts[b"flags"].decode().split(",")
        if "master" in flags and not {"s_down", "o_down", "disconnected"}.intersection(flags):
            return where.at(facts[b"ip"].decode(), int(facts[b"port"]))
        said.append(f"{host}:{port}: the master is {','.join(flags)}")
    if refusal is not None and all(_REFUSED.search(line) for line in said):
        raise ConfigurationError(
            f"expected the Sentinels to know the master {where.master_name!r} and to let us in, got {refusal}; "
            "correct redis.master_name or redis.sentinel_password"
        )
    raise StoreUnavailable(f"no Sentinel names a master {where.master_name!r} that is up: {'; '.join(said)}")


async def _ask(where: Address, host: str, port: int) -> Any:
    """Return a Sentinel's facts about the master as a flat list, or its error reply."""
    reader, writer = await asyncio.open_connection(host, port, ssl=where.ssl_context())
    try:
        auth = [("AUTH", where.sentinel_password)] if where.sentinel_password else []
        commands = [*auth, ("SENTINEL", "MASTER", where.master_name)]
        writer.write(b"".join(hiredis.pack_command(command) for command in commands))
        replies: list[Any] = []
        parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        while len(replies) < len(commands):
            data = await reader.read(65536)
            if not data:
                raise ConnectionResetError("it closed the connection")
            parser.feed(data)
            while (reply := parser.gets()) is not _INCOMPLETE:
                replies.append(reply)
        errors = [reply for reply in replies if isinstance(reply, hiredis.ReplyError)]
        return errors[0] if errors else replies[-1]
    finally:
        writer.transport.abort()


def plain_client(where: Address, timeout_s: float) -> redis.Redis:
    """Return redis-py's client of a server, or of the master that Sentinels name; nothing is sent yet."""
    # No retries: redis-py's default repeats a command that may have been carried out, and takes seconds to fail.
    patience = {"retry": Retry(NoBackoff(), 0), "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    login = {"db": where.db, "username": where.username, "password": where.password, "protocol": 2}
    tls: dict[str, Any] = {} if (checks := where.tls_options()) is None else {"ssl": True, **checks}
    if where.path is not None:
        return redis.Redis(**cast(Any, login | patience), unix_socket_path=where.path)
    options: dict[str, Any] = {**login, **patience, **tls, "socket_keepalive": True}
    if not where.sentinels:
        return redis.Redis(host=where.host, port=where.port, **options)
    brief = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    ask = {**patience, **brief, **tls, "protocol": 2, "password": where.sentinel_password}
    sentinels: Any = cast(Any, Sentinel)(where.sentinels, sentinel_kwargs=ask, **options)
    return cast(redis.Redis, sentinels.master_for(where.master_name))
