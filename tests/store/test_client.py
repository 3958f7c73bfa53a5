"""`Store` and `connect` against a real Redis that is restarted, killed, frozen and emptied of scripts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fleet.errors import ConfigurationError, StoreError, StoreUnavailable
from fleet.store.address import Address
from fleet.store.client import Script, Store, connect, masked, store_errors
from fleet.store.wire import MOST_TOGETHER, Together
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until

PASSWORD = "correct/horse"


@pytest.fixture
def add(tmp_path: Path) -> Script:
    """A script that adds ARGV[1] to KEYS[1] and returns the sum."""
    (tmp_path / "add.lua").write_text("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    return Script.beside(str(tmp_path / "any_module.py"), "add.lua")


@asynccontextmanager
async def opened(url: str, timeout_s: float = 5.0) -> AsyncIterator[Store]:
    store = Store(url, timeout_s=timeout_s)
    try:
        yield store
    finally:
        await store.close()


def with_store(url: str, body: Callable[[Store], Awaitable[Any]], timeout_s: float = 5.0) -> Any:
    """Run `body` with a store in a loop of its own."""

    async def main() -> Any:
        async with opened(url, timeout_s) as store:
            return await body(store)

    return asyncio.run(main())


async def a_few_ticks() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_commands_of_one_tick_leave_in_one_write(redis_url: str, add: Script) -> None:
    async def body(store: Store) -> tuple[list[int], int]:
        await store.command("PING")
        before = store.writes
        return await asyncio.gather(*[store.run(add, ["k"], [1]) for _ in range(500)]), store.writes - before

    sums, writes = with_store(redis_url, body)
    assert sums == list(range(1, 501))
    assert writes == 1


def test_what_may_wait_leaves_with_the_next_command_or_when_its_time_is_over(redis_url: str, add: Script) -> None:
    async def body(store: Store) -> None:
        await store.command("PING")
        before = store.writes
        store.send(add, ["total"], [1], within_s=60)
        await a_few_ticks()
        assert store.writes == before
        assert await store.command("GET", "total") == b"1"
        assert store.writes == before + 1

        store.send(add, ["total"], [0], within_s=60)
        store.send(add, ["total"], [1], within_s=0.05)
        async with asyncio.timeout(5):
            while store.writes == before + 1:
                await asyncio.sleep(0.01)
        assert await store.command("GET", "total") == b"2"

    with_store(redis_url, body, timeout_s=60)


@pytest.fixture
def note(tmp_path: Path) -> Script:
    """A script that notes calls in a list, each under a key of its own and behind what they have in common."""
    source = """-- Notes calls. KEYS: list, own. ARGV: common, calls. Reply: of each call, the value of its key.
local replies = {}
for i = 1, #ARGV - CALLS do
  redis.call('RPUSH', KEYS[LIST], ARGV[COMMON] .. ':' .. ARGV[CALLS + i])
  if KEYS[OWN + i] then replies[i] = redis.call('INCR', KEYS[OWN + i]) end
end
redis.call('RPUSH', KEYS[LIST], '.')
return #replies == 1 and replies[1] or replies"""
    (tmp_path / "note.lua").write_text(source)
    return Script.beside(str(tmp_path / "any_module.py"), "note.lua", keys="list own*", argv="common calls*")


def test_calls_that_may_go_together_leave_in_one_command_until_it_is_full(redis_url: str, note: Script) -> None:
    one, other = Together(note, ("noted",), ("a",)), Together(note, ("noted",), ("b",))

    async def body(store: Store) -> list[bytes]:
        await store.command("PING")
        for number in range(MOST_TOGETHER + 2):
            store.send_together(one, (), [number], within_s=60)
        store.send_together(other, (), [0], within_s=60)
        await store.command("PING")
        store.send_together(one, (), ["later"])
        found: list[bytes] = await store.command("LRANGE", "noted", 0, -1)
        return found

    numbers = [f"a:{number}".encode() for number in range(MOST_TOGETHER + 2)]
    full, rest = numbers[:MOST_TOGETHER], numbers[MOST_TOGETHER:]
    assert with_store(redis_url, body) == [*full, b".", *rest, b".", b"b:0", b".", b"a:later", b"."]


def test_calls_go_together_past_nothing_on_their_keys_but_what_they_may_pass(
    redis_url: str, note: Script, add: Script
) -> None:
    asks = Together(note, ("noted", "state"), ("ask",), frozenset({"note.lua"}))
    others = Together(note, ("noted", "state"), ("other",), frozenset({"note.lua", "add.lua"}))

    async def body(store: Store) -> list[bytes]:
        await store.command("PING")
        for number in range(2):
            store.send_together(asks, (), [number])
            store.send_together(others, (), [number])
        store.send(add, ["elsewhere"], [1])
        store.send_together(asks, (), ["past what is elsewhere"])
        store.send(add, ["state"], [1])
        store.send_together(asks, (), ["behind"])
        store.send_together(others, (), ["past it"])
        store.send_together(asks, (), ["with that"])
        found: list[bytes] = await store.command("LRANGE", "noted", 0, -1)
        return found

    told = [b"ask:0", b"ask:1", b"ask:past what is elsewhere", b".", b"other:0", b"other:1", b"other:past it", b"."]
    assert with_store(redis_url, body) == [*told, b"ask:behind", b"ask:with that", b"."]


def test_each_of_the_calls_of_one_command_gets_its_own_reply(redis_url: str, note: Script) -> None:
    common = Together(note, ("noted",), ("a",))

    async def body(store: Store) -> tuple[list[int], int]:
        await store.command("SET", "k7", 100)
        replies = [store.run_together(common, [f"k{number}"], [number]) for number in range(MOST_TOGETHER + 5)]
        replies[3].cancel()
        found = await asyncio.gather(*replies, return_exceptions=True)
        return [one for one in found if isinstance(one, int)], await store.run_together(common, ["k7"], ["alone"])

    found, alone = with_store(redis_url, body)
    assert found == [1] * 6 + [101] + [1] * (MOST_TOGETHER - 3)
    assert alone == 102


def test_a_call_that_may_not_wait_takes_those_along_that_may(redis_url: str, note: Script) -> None:
    common = Together(note, ("noted",), ("a",))

    async def body(store: Store) -> int:
        await store.command("PING")
        writes = store.writes
        store.send_together(common, (), [1], within_s=60)
        store.send_together(common, (), [2])
        await a_few_ticks()
        return store.writes - writes

    assert with_store(redis_url, body) == 1
    with connect(redis_url) as client:
        assert client.lrange("noted", 0, -1) == [b"a:1", b"a:2", b"."]


def test_calls_whose_command_is_lost_all_hear_of_it_or_are_counted(own_redis: RedisServer, note: Script) -> None:
    common = Together(note, ("noted",), ("a",))

    async def body(store: Store) -> int:
        await store.command("PING")
        own_redis.kill()
        await a_few_ticks()
        for number in range(3):
            store.send_together(common, (), [number])
        with pytest.raises(StoreUnavailable):
            await store.command("PING")
        heard = await asyncio.gather(
            *(store.run_together(common, ["k"], [number]) for number in range(3)), return_exceptions=True
        )
        assert every(isinstance(one, StoreUnavailable) for one in heard) and len({id(one) for one in heard}) == 3
        return store.lost_sends

    assert with_store(own_redis.url, body, timeout_s=0.2) == 3


def test_a_call_that_comes_late_in_an_outage_keeps_its_own_patience(own_redis: RedisServer, note: Script) -> None:
    common = Together(note, ("noted",), ("a",))

    async def body(store: Store) -> tuple[float, float]:
        await store.command("PING")
        own_redis.kill()
        await a_few_ticks()
        loop, timeout_s = asyncio.get_running_loop(), 1.0

        async def failed_after(pause_s: float) -> float:
            await asyncio.sleep(pause_s)
            began = loop.time()
            with pytest.raises(StoreUnavailable):
                await store.run_together(common, ["k"], [pause_s])
            return loop.time() - began

        with pytest.raises(StoreUnavailable):
            await store.command("PING")
        early, late = await asyncio.gather(failed_after(0), failed_after(0.6 * timeout_s))
        return early, late

    early, late = with_store(own_redis.url, body, timeout_s=1.0)
    assert early > 0.9 and late > 0.9


def test_calls_of_one_command_run_again_after_the_server_forgot_the_script(redis_url: str, note: Script) -> None:
    common = Together(note, ("noted",), ("a",))

    async def body(store: Store) -> list[int]:
        await store.run_together(common, ["k"], [0])
        await store.command("SCRIPT", "FLUSH")
        return list(await asyncio.gather(*(store.run_together(common, ["k"], [number]) for number in range(3))))

    assert with_store(redis_url, body) == [2, 3, 4]


def test_an_argument_of_a_wrong_type_spoils_none_of_the_others(redis_url: str, note: Script) -> None:
    common = Together(note, ("noted",), ("a",))

    async def body(store: Store) -> list[bytes]:
        await store.command("PING")
        store.send_together(common, (), [1])
        with pytest.raises(TypeError):
            store.send_together(common, (), [{}])
        found: list[bytes] = await store.command("LRANGE", "noted", 0, -1)
        return found

    assert with_store(redis_url, body) == [b"a:1", b"."]


def test_what_may_wait_leaves_long_before_its_timeout(redis_url: str, add: Script) -> None:
    async def body(store: Store) -> int:
        store.send(add, ["total"], [1], within_s=60)
        async with asyncio.timeout(5):
            while not store.writes:
                await asyncio.sleep(0.01)
        assert await store.command("GET", "total") == b"1"
        return store.lost_sends

    assert with_store(redis_url, body, timeout_s=1) == 0


def test_ten_thousand_concurrent_commands_each_get_their_own_reply(redis_url: str) -> None:
    async def ask(store: Store, number: int) -> bool:
        await asyncio.sleep(0.0001 * (number % 50))
        return bool(await store.command("ECHO", number) == str(number).encode())

    async def body(store: Store) -> list[bool]:
        return await asyncio.gather(*[ask(store, number) for number in range(10_000)])

    assert every(with_store(redis_url, body))


def test_a_second_batch_does_not_wait_for_the_replies_of_the_first(own_redis: RedisServer) -> None:
    async def body(store: Store) -> Any:
        await store.command("PING")
        own_redis.freeze()
        before = store.writes
        first = asyncio.ensure_future(store.command("ECHO", "first"))
        await a_few_ticks()
        assert store.writes == before + 1
        second = asyncio.ensure_future(store.command("ECHO", "second"))
        await a_few_ticks()
        assert store.writes == before + 2
        assert not first.done()
        own_redis.thaw()
        return await asyncio.gather(first, second)

    assert with_store(own_redis.url, body) == [b"first", b"second"]


def test_replies_are_bytes_integers_none_and_lists(redis_url: str) -> None:
    async def body(store: Store) -> list[Any]:
        await store.command("HSET", "h", "a", 1, b"b", "zwei")
        return [await store.command("HGETALL", "h"), await store.command("GET", "none"), await store.command("DBSIZE")]

    assert with_store(redis_url, body) == [[b"a", b"1", b"b", b"zwei"], None, 1]


def test_a_cancelled_waiter_does_not_shift_the_replies_of_the_others(redis_url: str) -> None:
    async def body(store: Store) -> list[Any]:
        await store.command("PING")
        waiters = [asyncio.ensure_future(store.command("ECHO", number)) for number in range(10)]
        await asyncio.sleep(0)
        waiters[3].cancel()
        return await asyncio.gather(*waiters, return_exceptions=True)

    replies = with_store(redis_url, body)
    assert isinstance(replies.pop(3), asyncio.CancelledError)
    assert replies == [str(number).encode() for number in range(10) if number != 3]


def test_a_script_runs_again_after_the_server_forgot_it(redis_url: str, add: Script) -> None:
    async def body(store: Store) -> list[Any]:
        sums = [await store.run(add, ["k"], [1])]
        await store.command("SCRIPT", "FLUSH")
        sums += await asyncio.gather(*[store.run(add, ["k"], [1]) for _ in range(50)])
        await store.command("SCRIPT", "FLUSH")
        store.send(add, ["k"], [1000])
        while (total := int(await store.command("GET", "k"))) < 1000:
            await asyncio.sleep(0)
        return [*sums, total, store.lost_sends]

    assert with_store(redis_url, body) == [*range(1, 52), 1051, 0]


def test_an_argument_of_a_wrong_type_fails_alone(redis_url: str) -> None:
    async def body(store: Store) -> list[Any]:
        calls = [store.command("ECHO", "a"), store.command("ECHO", object()), store.command("ECHO", "b")]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, wrong, last = with_store(redis_url, body)
    assert (first, last) == (b"a", b"b")
    assert isinstance(wrong, TypeError)


def test_an_error_reply_fails_only_its_own_command(redis_url: str) -> None:
    async def body(store: Store) -> list[Any]:
        calls = [store.command("SET", "s", "x"), store.command("LPUSH", "s", 1), store.command("GET", "s")]
        return await asyncio.gather(*calls, return_exceptions=True)

    _, wrong, value = with_store(redis_url, body)
    assert value == b"x"
    assert isinstance(wrong, StoreError)
    assert "WRONGTYPE" in str(wrong)


def test_commands_in_flight_fail_when_redis_dies_and_the_next_one_reconnects(own_redis: RedisServer) -> None:
    async def body(store: Store) -> None:
        await store.command("PING")
        own_redis.freeze()
        waiters = [asyncio.ensure_future(store.command("INCR", "k")) for _ in range(20)]
        await asyncio.sleep(0.01)
        own_redis.kill()
        failures = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(failure) for failure in failures] == [StoreUnavailable] * 20
        own_redis.start()
        assert await store.command("INCR", "k") == 1

    with_store(own_redis.url, body)


def test_a_command_waits_for_a_redis_that_comes_back_in_time(own_redis: RedisServer) -> None:
    async def body(store: Store) -> Any:
        own_redis.kill()
        waiter = asyncio.ensure_future(store.command("PING"))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(own_redis.start)
        return await waiter

    assert with_store(own_redis.url, body) == b"PONG"


def test_without_a_redis_a_command_fails_after_the_timeout_and_says_why(own_redis: RedisServer) -> None:
    own_redis.kill()

    async def body(store: Store) -> float:
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"not connected within 0\.3 s"):
            await store.command("PING")
        return time.monotonic() - begin

    assert 0.25 < with_store(own_redis.url, body, timeout_s=0.3) < 1.5


@pytest.mark.parametrize("connected_before", [True, False])
def test_a_frozen_redis_fails_everything_that_waits_and_loses_the_connection(
    own_redis: RedisServer, connected_before: bool
) -> None:
    async def body(store: Store) -> None:
        if connected_before:
            await store.command("PING")
        own_redis.freeze()
        begin = time.monotonic()
        failures = await asyncio.gather(*[store.command("PING") for _ in range(100)], return_exceptions=True)
        assert {type(failure) for failure in failures} == {StoreUnavailable}
        assert 0.25 < time.monotonic() - begin < 1.5
        own_redis.thaw()
        assert await store.command("PING") == b"PONG"

    with_store(own_redis.url, body, timeout_s=0.3)


def test_lost_sends_are_counted_and_logged_once_per_outage(
    own_redis: RedisServer, add: Script, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> int:
        return sum(record.levelno == logging.WARNING for record in caplog.records)

    async def outage(store: Store) -> None:
        expected = store.lost_sends + 5
        own_redis.kill()
        for _ in range(5):
            store.send(add, ["k"], [1])
            await asyncio.sleep(0.05)
        while store.lost_sends < expected:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(own_redis.start)

    async def body(store: Store) -> None:
        await store.command("PING")
        await outage(store)
        assert (store.lost_sends, warnings()) == (5, 1)
        await store.command("PING")
        await outage(store)
        assert (store.lost_sends, warnings()) == (10, 2)

    with_store(own_redis.url, body, timeout_s=0.2)


def test_closing_delivers_what_was_sent_before(redis_url: str, add: Script) -> None:
    async def body(store: Store) -> None:
        await store.command("PING")
        for _ in range(100):
            store.send(add, ["k"], [1], within_s=60)

    with_store(redis_url, body)
    with connect(redis_url) as client:
        assert client.get("k") == b"100"


def test_a_closed_store_refuses_commands_and_counts_sends(redis_url: str, add: Script) -> None:
    async def body() -> int:
        store = Store(redis_url)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.command("PING")
        store.send(add, ["k"], [1])
        return store.lost_sends

    assert asyncio.run(body()) == 1


def test_a_replica_after_a_failover_is_unavailable_not_broken(own_redis: RedisServer, add: Script) -> None:
    async def body(store: Store) -> None:
        await store.command("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await store.command("SET", "k", 1)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await store.run(add, ["k"], [1])

    with_store(own_redis.url, body)


def test_a_redis_that_is_busy_with_a_script_is_unavailable(own_redis: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "spin.lua").write_text("while true do end")
    spin = Script.beside(str(tmp_path / "m.py"), "spin.lua")

    async def body(store: Store) -> None:
        await store.command("CONFIG", "SET", "lua-time-limit", 20)
        async with opened(own_redis.url) as other:
            await other.command("PING")
            spinning = asyncio.ensure_future(store.run(spin))
            with pytest.raises(StoreUnavailable, match="BUSY"):
                while True:
                    await other.command("GET", "k")
            await other.command("SCRIPT", "KILL")
        with pytest.raises(StoreError):
            await spinning

    with_store(own_redis.url, body)


def test_a_wrong_password_is_a_configuration_error_that_hides_the_password(own_redis: RedisServer) -> None:
    with connect(own_redis.url) as client:
        client.config_set("requirepass", PASSWORD)
    url = own_redis.url.replace("//", "//:wrong-pass@")

    async def body(store: Store) -> str:
        with pytest.raises(ConfigurationError) as caught:
            await store.command("PING")
        return str(caught.value)

    with pytest.raises(ConfigurationError) as caught:
        connect(url)
    for message in (str(caught.value), with_store(url, body), with_store(own_redis.url, body)):
        assert "redis.url" in message
        assert "wrong-pass" not in message


def test_user_password_database_and_client_name_are_used(own_redis: RedisServer) -> None:
    with connect(own_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", f">{PASSWORD}", "~*", "+@all")
    url = own_redis.url.replace("//", f"//ann:{PASSWORD.replace('/', '%2F')}@").replace("/0", "/5")

    async def body(store: Store) -> tuple[bytes, bytes]:
        await store.command("SET", "k", "five")
        return await store.command("ACL", "WHOAMI"), await store.command("CLIENT", "GETNAME")

    user, name = with_store(url, body)
    assert user == b"ann"
    assert name.startswith(b"fleet-")
    with connect(url) as client:
        assert client.get("k") == b"five"


def test_a_unix_socket_works_for_both_clients(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "r.sock"))
    try:
        for url in (f"unix://{tmp_path}/r.sock?db=2", f"redis+socket://{tmp_path}/r.sock?virtual_host=2"):
            assert with_store(url, lambda store: store.command("INCR", "k")) > 0
            with connect(url) as client:
                assert client.exists("k")
    finally:
        server.stop()


def test_a_server_that_is_no_redis_is_named_as_such() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with opened(f"redis://127.0.0.1:{port}", timeout_s=0.3) as store:
            with pytest.raises(StoreUnavailable, match="does not speak the Redis protocol"):
                await store.command("PING")
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_connect_to_nothing_fails_at_once(own_redis: RedisServer) -> None:
    own_redis.kill()
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable, match="did not answer"):
        connect(own_redis.url)
    assert time.monotonic() - begin < 1


def test_errors_of_the_plain_client_are_translated(own_redis: RedisServer) -> None:
    with connect(own_redis.url) as client:
        client.set("s", "x")
        with pytest.raises(StoreError, match="WRONGTYPE"), store_errors(own_redis.url):
            client.lpush("s", 1)
        client.execute_command("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreUnavailable, match="replica"), store_errors(own_redis.url):
            client.set("s", "y")
        own_redis.kill()
        with pytest.raises(StoreUnavailable), store_errors(own_redis.url):
            client.get("s")


@pytest.mark.parametrize("url", ["", "localhost", "http://h:1", "redis://", "redis://h:port", "redis://h/x", "unix://"])
def test_what_is_no_redis_url_is_refused_with_the_expected_form(url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected redis://"):
        Address.parse(url)


def test_tls_options_are_those_of_redis_py() -> None:
    strict = Address.parse("rediss://h").ssl_context()
    lax = Address.parse("rediss://h?ssl_cert_reqs=CERT_NONE").ssl_context()
    assert strict is not None
    assert lax is not None
    assert (strict.check_hostname, lax.check_hostname, lax.verify_mode.name) == (True, False, "CERT_NONE")
    assert Address.parse("redis://h").ssl_context() is None


@given(st.text(st.characters(exclude_characters="*"), min_size=5, max_size=20), st.text(max_size=8))
@example("two\nlines", "ann")
@example("after/a@strange", "us/er")
def test_no_password_survives_masking(password: str, user: str) -> None:
    assume(password not in f"redis://{user}@host:6379/0")
    assert password not in masked(f"redis://{user}:{password}@host:6379/0")


def test_the_password_shows_in_no_repr() -> None:
    assert "s3cret" not in repr(Address.parse("redis://:s3cret@h"))
    wait_until(lambda: "s3cret" not in masked("unix:///s?password=s3cret&db=1"))
