"""A command that two nodes send to each other and back. A whole cluster: `tests/limiter/test_cluster.py`."""

from __future__ import annotations

import asyncio
from functools import partial

import hiredis
import pytest

from fleet.errors import StoreUnavailable
from fleet.store.cluster import ClusterStore


async def node(
    asked: list[bytes], other: list[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the handshake, and to everything else: the other node has that."""
    parser = hiredis.Reader()
    while data := await reader.read(65536):
        parser.feed(data)
        while command := parser.gets():
            name = command[0]
            if name == b"GET":
                asked.append(name)
            answers = {b"GET": f"-MOVED 1 127.0.0.1:{other[0]}", b"PING": "+PONG"}
            writer.write(f"{answers.get(name, '+OK')}\r\n".encode())
    writer.close()
    asked.append(b"END")


def test_nodes_that_name_each_other_are_asked_with_pauses() -> None:
    async def main() -> int:
        asked: list[bytes] = []
        places: tuple[list[int], list[int]] = ([], [])
        servers = [await asyncio.start_server(partial(node, asked, other), "127.0.0.1", 0) for other in places]
        for server, other in zip(servers, reversed(places), strict=True):
            other.append(server.sockets[0].getsockname()[1])
        store = ClusterStore(f"redis+cluster://127.0.0.1:{places[0][0]},127.0.0.1:{places[1][0]}", timeout_s=0.5)
        with pytest.raises(StoreUnavailable):
            await store.command("GET", "x")
        await store.close()
        async with asyncio.timeout(5):
            while asked.count(b"END") < 2:
                await asyncio.sleep(0.01)
        for server in servers:
            server.close()
            await server.wait_closed()
        return asked.count(b"GET")

    assert 3 <= asyncio.run(main()) <= 20
